"""Compares folders of results, of different machines or versions: each with the first, run by run.

    python -m utils.compare_results A B [C ...] [--output FOLDER] [--anyway]

For each model, batch size and numbers of accelerators and workers it gives ratios of throughputs and latencies, and
differences of GAUC and AUC. Runs that differ in their seed alone are compared by their means. A difference is told from
noise over the seeds, where both folders have two or more; of one run on each side, over the test users.

It prints tables, and writes comparison.csv, comparison.md (the tables) and comparison.png into the output folder. Runs
that were made from other data or with other flags than the first folder's are listed with the differences, and compared
only if asked for. Another device or TensorFlow is shown and compared.
"""
import os

from utils.files import ROOT, Parser, UserError, replacing, run_main
from utils.reports.comparison import CSV_COLUMNS, csv_rows, markdown
from utils.reports.pairs import compare, read_folders
from utils.results import write_csv

OUTPUT = os.path.join(ROOT, "comparison")
PICTURE = "![Ratios and differences, as in the tables](comparison.png)"


def main():
    parser = Parser(prog="python -m utils.compare_results", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER",
                        help="of results, two or more; the first is compared with")
    parser.add_argument("--output", default=OUTPUT, help="folder of the tables and the plot (default: %(default)s)")
    parser.add_argument("--anyway", action="store_true", help="compare runs that are not comparable, too, with a mark")
    arguments = parser.parse_args()
    if len(arguments.folders) < 2:
        raise UserError("there is one folder; name two or more to compare")
    folders = read_folders(arguments.folders)
    pairs, lone_runs = compare(folders, arguments.anyway)
    blocks = markdown(folders, pairs, lone_runs)
    path = os.path.join(arguments.output, "comparison")
    write_csv(path + ".csv", CSV_COLUMNS, csv_rows(pairs))
    has_plot = any(pair.is_compared for pair in pairs)
    if has_plot:
        from utils.reports.figures import comparison_plot  # not above: matplotlib may lack a folder to write in

        with replacing(path + ".png") as file:
            comparison_plot(file, folders, pairs)
    elif os.path.exists(path + ".png"):  # of an earlier comparison
        os.remove(path + ".png")
    with replacing(path + ".md", "w", encoding="utf-8") as file:
        file.write("\n\n".join(blocks + [PICTURE] * has_plot) + "\n")
    print("\n\n".join(blocks + ["Written to %s" % os.path.relpath(arguments.output or ".")]))


if __name__ == "__main__":
    run_main(main)
