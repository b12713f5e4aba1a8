"""The CSVs of results: one header; a row for each model and batch size, and of curves for each evaluation in training.

The programs write their rows, when all has gone well. The scripts look after the folder of the results:

    python -m utils.results begin ...    moves earlier results aside, or finds that the same script was interrupted
    python -m utils.results has ...      whether a model's row is there
    python -m utils.results end          the script is through
"""
import csv
import glob
import json
import os
import shutil
import subprocess
import sys
from operator import itemgetter

from utils import models
from utils.files import ROOT, Parser, UserError, dated_folder, make_folder, replacing, run_main, set_aside
from utils.runs.locks import waited_for

RESULTS = os.path.join(ROOT, "results")
GO_ON = 10  # exit status of `begin`
UNFINISHED = ".unfinished"  # in the folder of the results, while a script fills it: what the script was called with

RUN = ("model", "dataset", "batch_size", "num_accelerators")
RATES = ("system_recommendations_per_second", "accelerator_recommendations_per_second")
THROUGHPUT = ("recommendations", "system_seconds", RATES[0], "accelerator_seconds", RATES[1])
MACHINE = ("device", "tensorflow", "num_workers")  # num_workers: machines that trained together, else 1
FLAGS = ("epochs", "optimizer", "learning_rate", "seed")  # what a row was made with, beside its key
KEY = RUN + ("num_workers",)
POINT = ("epoch", "step", "recommendations", "seconds", "train_loss", "gauc", "auc")  # an evaluation, in a curve

TRAIN_COLUMNS = RUN + ("epochs", "steps") + THROUGHPUT + (
    "final_loss", "final_gauc", "final_auc", "best_gauc", "best_auc", "best_step", "optimizer", "learning_rate",
    "seed") + MACHINE
INFER_COLUMNS = RUN + THROUGHPUT + ("latency_ms_p50", "latency_ms_p99", "gauc", "auc", "checkpoint_step") + MACHINE
CURVES_COLUMNS = KEY + POINT
COLUMNS = {"train": TRAIN_COLUMNS, "infer": INFER_COLUMNS, "curves": CURVES_COLUMNS}  # by stage
TEXTS = ("model", "dataset", "optimizer", "device", "tensorflow", "data", "metric", "settings", "source")  # no figures

PUBLISHED = "published.csv"  # in RESULTS, a file of the project itself: figures that others have published
PUBLISHED_COLUMNS = ("model", "data", "metric", "value", "settings", "source")

key_of = itemgetter(*KEY)  # of a row: rows of the same key are one run measured again


def csv_name(stage):
    """The name of the CSV of a stage, one of COLUMNS."""
    return "results_%s.csv" % stage


def write_csv(path, columns, rows):
    """Writes dictionaries as the CSV `path`; a column that a row lacks stays empty."""
    with replacing(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def add_rows(folder, tables):
    """Adds rows to CSVs in `folder`.

    Rows of the same key are replaced; the files that held them are copied to <folder>_<date>.

    Args:
      tables: {stage: rows of one run}; a row is a dictionary with a value for each of the stage's COLUMNS.

    Raises:
      UserError: a file there has another header.
    """
    make_folder(folder)
    with waited_for(os.path.join(folder, ".csv.lock")):  # models that are trained side by side share the files
        contents, changed_paths = {}, []
        for stage, rows in tables.items():
            path = os.path.join(folder, csv_name(stage))
            rows = [{column: str(row[column]) for column in COLUMNS[stage]} for row in rows]
            old_rows = _read_csv(path, COLUMNS[stage])
            other_rows = [row for row in old_rows if key_of(row) != key_of(rows[0])]
            if len(other_rows) < len(old_rows):
                changed_paths.append(path)
            contents[path] = COLUMNS[stage], other_rows + rows
        if changed_paths:
            copies = dated_folder(folder)
            for path in changed_paths:
                shutil.copy2(path, copies)
        for path, (columns, rows) in contents.items():
            write_csv(path, columns, rows)


def _read_csv(path, columns):
    """The rows of the CSV `path`, dictionaries; none where it is not there."""
    if not os.path.exists(path):
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            header = tuple(reader.fieldnames or ())
            if header not in (columns, tuple(column for column in columns if column != "num_workers")):
                raise UserError("%s has other columns than this version writes; move it away" % path)
            rows = list(reader)
    except (csv.Error, ValueError) as error:
        raise UserError("%s can't be read (%s); move it away" % (path, error)) from None
    if any(None in row or None in row.values() for row in rows):
        raise UserError("%s has a row with more or fewer columns than its header; mend it or move it away" % path)
    if header != columns:  # an earlier version's, which knew one worker alone
        rows = [dict(row, num_workers="1") for row in rows]
    return rows


def read_rows(folder, stage):
    """The rows of a stage's CSV in `folder`, dictionaries of text; none where it is not there.

    Raises:
      UserError: it is damaged, or what should be a figure is none.
    """
    path = os.path.join(folder, csv_name(stage))
    rows = _read_csv(path, COLUMNS[stage])
    for row in rows:
        for column, text in row.items():
            if not (column in TEXTS or _is_figure(column, text) or (column, text) == ("train_loss", "")):
                raise UserError("%s has %r as a %s; mend it or move it away" % (path, text, column))
    return rows


def _is_figure(column, text):
    try:
        return (1 if column in KEY else 0) <= float(text) < 1e15  # nothing in this benchmark is as large
    except ValueError:
        return False


def read_published():
    """The rows of the project's published.csv, dictionaries of text; none in a folder of results that lost it."""
    return _read_csv(os.path.join(RESULTS, PUBLISHED), PUBLISHED_COLUMNS)


def training_of(row, train_rows):
    """The training row of the checkpoint that a row of inference was measured with, or None where there is none."""
    return next((other for other in train_rows if all(other[column] == row[column] for column in RUN)
                 and other["best_step"] == row["checkpoint_step"]), None)


def report_throughput(log, recommendations, system_seconds, accelerator_seconds):
    """Prints the fixed closing lines of training or inference with `log`; returns {column: figure} of THROUGHPUT.

    `recommendations` is how many were trained on or scored, `system_seconds` the wall clock of the script,
    `accelerator_seconds` the time inside the session's calls.
    """
    system_rate, accelerator_rate = recommendations / system_seconds, recommendations / accelerator_seconds
    log("Total recommendations: %d" % recommendations)
    log("Approximate accelerator time in seconds: %.3f" % accelerator_seconds)
    log("Approximate accelerator performance in recommendations/second: %.1f" % accelerator_rate)
    log("System time in milliseconds is: %.0f" % (system_seconds * 1000))
    log("System performance in recommendations/second is: %.1f" % system_rate)
    return dict(zip(THROUGHPUT, (recommendations, "%.3f" % system_seconds, "%.1f" % system_rate,
                                 "%.3f" % accelerator_seconds, "%.1f" % accelerator_rate)))


def begin(folder, command, settings):
    """Makes `folder` ready for a script's results; returns whether the same script was interrupted, and goes on.

    Args:
      command: run, train or infer. The first two move all results into <folder>_<date>, since new training makes them
        stale; infer moves those of inference. The project's files stay.
      settings: a text; results that were begun with another are no results of the same script.
    """
    mark = os.path.join(folder, UNFINISHED)
    text = "%s %s\n" % (command, settings)
    if os.path.exists(mark):
        with open(mark, errors="replace") as file:
            if file.read() == text:
                return True
        os.remove(mark)
    patterns = ("results_infer*", "result_infer_*") if command == "infer" else ("*",)
    paths = {path for pattern in patterns for path in glob.glob(os.path.join(folder, pattern))}
    paths.discard(os.path.join(folder, PUBLISHED))  # git tracks it, but a project unpacked from an archive has no git
    old_results = set_aside(sorted(paths - _git_files(folder)), folder)
    if old_results:
        print("earlier results are in %s" % os.path.relpath(old_results))
    with replacing(mark, "w") as file:
        file.write(text)
    return False


def _git_files(folder):
    """The files below `folder` that git tracks."""
    try:
        names = subprocess.check_output(["git", "ls-files", "-z"], cwd=folder, stderr=subprocess.DEVNULL).decode()
    except (OSError, subprocess.CalledProcessError):
        return set()
    return {os.path.join(folder, name) for name in names.split("\0") if name}


def main():
    parser = Parser(prog="python -m utils.results", description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", parser_class=Parser)
    begin_parser = actions.add_parser("begin", help="exit status %d: go on with what was interrupted" % GO_ON)
    begin_parser.add_argument("command", choices=["run", "train", "infer"])
    begin_parser.add_argument("models", help="separated by spaces")
    begin_parser.add_argument("settings", nargs="*", help="what else the results depend on")
    has_parser = actions.add_parser("has", help="exit status 1: it has not")
    has_parser.add_argument("stage", choices=sorted(COLUMNS))
    columns = [column for column in KEY if column != "dataset"]
    for column in columns:
        has_parser.add_argument(column)
    actions.add_parser("end")
    arguments = parser.parse_args()
    if arguments.action == "end":
        os.remove(os.path.join(RESULTS, UNFINISHED))
    elif arguments.action == "has":
        values = {column: getattr(arguments, column) for column in columns}
        rows = _read_csv(os.path.join(RESULTS, csv_name(arguments.stage)), COLUMNS[arguments.stage])
        sys.exit(not any(values.items() <= row.items() for row in rows))
    else:
        paths = [os.path.join(ROOT, models.place_of(model).folder, "dataset.pkl") for model in arguments.models.split()]
        times = [os.stat(path).st_mtime_ns for path in paths if os.path.exists(path)]
        if begin(RESULTS, arguments.command, json.dumps([arguments.models, arguments.settings, times])):
            print("going on with what was interrupted")
            sys.exit(GO_ON)


if __name__ == "__main__":
    run_main(main)
