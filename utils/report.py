"""The report: results/report.html, one file with plots and tables of the CSVs, and the plots as PNG files beside it.

    python -m utils.report [--results FOLDER]

run.sh, train.sh and infer.sh make it at their end. It works with any of the three CSVs missing. Each data set has its
plots and tables, and those of a generated sample say that they are. A line of a plot joins runs that were made with the
same flags on the same machine, and nothing else; runs that differ in their seed alone are one, drawn as their mean with
the lowest and the highest.
"""
import os
import re

from utils.files import Parser, UserError, replacing, run_main
from utils.reports.page import page, section
from utils.results import COLUMNS, RESULTS, read_published, read_rows

REPORT = "report.html"


def make_report(folder):
    """Writes report.html and the plots into `folder`; returns the report's path.

    Raises:
      UserError: there are no results in the folder, or they can't be read; what was there stays as it is.
    """
    results = {stage: read_rows(folder, stage) for stage in COLUMNS}
    if not any(results.values()):
        raise UserError("no results in %s; run ./run.sh, or name their folder: --results FOLDER" % folder)
    from utils.reports.figures import plots_of  # not above: matplotlib may lack a folder to write in

    published = read_published()
    sections, files = {}, {}
    for dataset in dict.fromkeys(row["dataset"] for rows in results.values() for row in rows):
        dataset_results = {stage: [row for row in rows if row["dataset"] == dataset] for stage, rows in results.items()}
        figures = list(plots_of(dataset_results))
        sections[dataset] = section(dataset, dataset_results, figures, published)
        for plot in figures:
            name = re.sub(r"[^A-Za-z0-9.-]", "_", "%s_%s" % (plot.name, dataset))
            while name + ".png" in files:
                name += "_"
            files[name + ".png"] = plot.png
    files[REPORT] = page(folder, results, sections, published).encode("utf-8")
    for name, content in files.items():
        with replacing(os.path.join(folder, name)) as file:
            file.write(content)
    return os.path.join(folder, REPORT)


def main():
    parser = Parser(prog="python -m utils.report", description=__doc__.splitlines()[0])
    parser.add_argument("--results", default=RESULTS, help="folder of the CSVs (default: %(default)s)")
    print("The report is %s" % os.path.relpath(make_report(parser.parse_args().results)))


if __name__ == "__main__":
    run_main(main)
