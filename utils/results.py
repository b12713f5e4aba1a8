"""results_train.csv and results_infer.csv: one header, one row per model and batch size; results_curves.csv: a row per
evaluation of their training.

The programs write their own rows, when all has gone well. The scripts keep the folder of the results:

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

from utils import models
from utils.files import ROOT, Parser, UserError, dated_folder, make_folder, replacing, run_main, set_aside
from utils.runs.locks import waited_for

RESULTS = os.path.join(ROOT, "results")
GO_ON = 10  # exit status of `begin`
UNFINISHED = ".unfinished"  # in the folder of the results, while a script fills it: what the script was called with

TRAIN_COLUMNS = (
    "model", "dataset", "batch_size", "num_accelerators", "epochs", "steps", "recommendations", "system_seconds",
    "system_recommendations_per_second", "accelerator_seconds", "accelerator_recommendations_per_second", "final_loss",
    "final_gauc", "final_auc", "best_gauc", "best_auc", "best_step", "optimizer", "learning_rate", "seed", "device",
    "tensorflow", "num_workers")

INFER_COLUMNS = (
    "model", "dataset", "batch_size", "num_accelerators", "recommendations", "system_seconds",
    "system_recommendations_per_second", "accelerator_seconds", "accelerator_recommendations_per_second",
    "latency_ms_p50", "latency_ms_p99", "gauc", "auc", "checkpoint_step", "device", "tensorflow",
    "num_workers")

WORKERS = "num_workers"  # machines that trained together (cluster.py); else 1
KEY = ("model", "dataset", "batch_size", "num_accelerators", WORKERS)
POINT = ("epoch", "step", "recommendations", "seconds", "train_loss", "gauc", "auc")  # what an evaluation adds to a curve
CURVES_COLUMNS = KEY + POINT

COLUMNS = {"train": TRAIN_COLUMNS, "infer": INFER_COLUMNS, "curves": CURVES_COLUMNS}
TEXTS = ("model", "dataset", "optimizer", "device", "tensorflow")  # the columns that hold no figures
FLAGS = ("epochs", "optimizer", "learning_rate", "seed")  # what a row was made with, beside its key

PUBLISHED = "published.csv"  # in RESULTS, a file of the project itself: figures that others have published
PUBLISHED_COLUMNS = ("model", "data", "metric", "value", "settings", "source")


def add_rows(folder, tables):
    """Adds rows to CSVs in `folder`.

    Rows of the same model, data set, batch size and numbers of accelerators and workers are replaced; the files that held
    them are kept in <folder>_<date>.

    Args:
      tables: {a key of COLUMNS: rows of one such run}; a row is a dictionary with a value for each column.

    Raises:
      UserError: a file there has another header.
    """
    make_folder(folder)
    with waited_for(os.path.join(folder, ".csv.lock")):  # models that are trained side by side share the files
        contents, replaced = {}, []
        for name, rows in tables.items():
            path = os.path.join(folder, csv_name(name))
            rows = [{column: str(row[column]) for column in COLUMNS[name]} for row in rows]
            found = _read_rows(path, COLUMNS[name])
            others = [other for other in found if any(other[column] != rows[0][column] for column in KEY)]
            if len(others) < len(found):
                replaced.append(path)
            contents[path] = COLUMNS[name], others + rows
        if replaced:
            aside = dated_folder(folder)
            for path in replaced:
                shutil.copy2(path, aside)
        for path, (columns, rows) in contents.items():
            with replacing(path, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(rows)


def _read_rows(path, columns):
    """The rows of the CSV `path`, dictionaries; none where it is not there."""
    if not os.path.exists(path):
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            found = tuple(reader.fieldnames or ())
            if found not in (columns, tuple(column for column in columns if column != WORKERS)):
                raise UserError("%s has other columns than this version writes; move it away" % path)
            rows = list(reader)
            if found != columns:  # of a version that knew one worker alone
                rows = [dict(row, **{WORKERS: "1"}) for row in rows]
    except (csv.Error, ValueError) as error:
        raise UserError("%s can't be read (%s); move it away" % (path, error)) from None
    if any(None in row or None in row.values() for row in rows):
        raise UserError("%s has a row with more or fewer columns than its header; mend it or move it away" % path)
    return rows


def csv_name(stage):
    """The name of the CSV of a stage, one of COLUMNS."""
    return "results_%s.csv" % stage


def read_rows(folder, stage):
    """The rows of a stage's CSV in `folder`, dictionaries of text; none where it is not there.

    Raises:
      UserError: it is damaged, or what should be a figure is none.
    """
    path = os.path.join(folder, csv_name(stage))
    rows = _read_rows(path, COLUMNS[stage])
    for row in rows:
        for column in row:
            if not (column in TEXTS or _is_figure(column, row[column]) or (column, row[column]) == ("train_loss", "")):
                raise UserError("%s has %r as a %s; mend it or move it away" % (path, row[column], column))
    return rows


def _is_figure(column, text):
    try:
        value = float(text)
    except ValueError:
        return False
    lowest = 1 if column in ("batch_size", "num_accelerators", WORKERS) else 0
    return lowest <= value < 1e15  # what is beyond, or not finite, is no figure of this benchmark


def read_published():
    """The rows of the project's published.csv, dictionaries of text; none in a folder of results that lost it."""
    return _read_rows(os.path.join(RESULTS, PUBLISHED), PUBLISHED_COLUMNS)


def training_of(row, train_rows):
    """The training row of the checkpoint that a row of inference was measured with, or None where there is none."""
    return next((other for other in train_rows if all(other[column] == row[column] for column in KEY if column != WORKERS)
                 and other["best_step"] == row["checkpoint_step"]), None)


def report_throughput(log, recommendations, system_seconds, accelerator_seconds):
    """Prints the fixed closing lines of training and inference; returns the columns with their figures, a dictionary.

    Args:
      log: the function that prints a line.
      recommendations: how many were trained on or scored.
      system_seconds, accelerator_seconds: wall clock of the script, and inside the session's calls.
    """
    system_rate, accelerator_rate = recommendations / system_seconds, recommendations / accelerator_seconds
    log("Total recommendations: %d" % recommendations)
    log("Approximate accelerator time in seconds: %.3f" % accelerator_seconds)
    log("Approximate accelerator performance in recommendations/second: %.1f" % accelerator_rate)
    log("System time in milliseconds is: %.0f" % (system_seconds * 1000))
    log("System performance in recommendations/second is: %.1f" % system_rate)
    return {"recommendations": recommendations, "system_seconds": "%.3f" % system_seconds,
            "system_recommendations_per_second": "%.1f" % system_rate,
            "accelerator_seconds": "%.3f" % accelerator_seconds,
            "accelerator_recommendations_per_second": "%.1f" % accelerator_rate}


def _tracked(folder):
    """The files below `folder` that git tracks, which stay where they are."""
    try:
        names = subprocess.run(["git", "ls-files", "-z"], cwd=folder, check=True, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        return set()
    return {os.path.join(folder, name) for name in names if name}


def begin(folder, command, settings):
    """Makes `folder` ready for a script's results; returns whether it goes on with what the same script left unfinished.

    Args:
      command: run, train or infer. The first two move everything that is there into <folder>_<date>, since new training
        makes it stale, the last what inference left. What belongs to the project stays.
      settings: a string that tells whatever the results depend on.
    """
    mark = os.path.join(folder, UNFINISHED)
    started = "%s %s\n" % (command, settings)
    if os.path.exists(mark):
        with open(mark, errors="replace") as file:
            if file.read() == started:
                return True
        os.remove(mark)
    patterns = ("results_infer*", "result_infer_*") if command == "infer" else ("*",)
    paths = {path for pattern in patterns for path in glob.glob(os.path.join(folder, pattern))}
    paths.discard(os.path.join(folder, PUBLISHED))  # git tracks it, but a project unpacked from an archive has no git
    aside = set_aside(sorted(paths - _tracked(folder)), folder) if paths else None
    if aside:
        print("earlier results are in %s" % os.path.relpath(aside))
    with replacing(mark, "w") as file:
        file.write(started)
    return False


def end(folder):
    """Says that the script which began is through."""
    os.remove(os.path.join(folder, UNFINISHED))


def has_row(folder, stage, **values):
    """Whether there is a row with `values` among the results of `stage`, train or infer."""
    rows = _read_rows(os.path.join(folder, csv_name(stage)), COLUMNS[stage])
    return any(all(row[column] == value for column, value in values.items()) for row in rows)


def main():
    parser = Parser(prog="python -m utils.results", description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", parser_class=Parser)
    beginning = actions.add_parser("begin", help="exit status %d: go on with what was interrupted" % GO_ON)
    beginning.add_argument("command", choices=["run", "train", "infer"])
    beginning.add_argument("models", help="separated by spaces")
    beginning.add_argument("settings", nargs="*", help="what else the results depend on")
    has = actions.add_parser("has", help="exit status 1: it has not")
    has.add_argument("stage", choices=sorted(COLUMNS))
    for column in ("model", "batch_size", "num_accelerators", WORKERS):
        has.add_argument(column)
    actions.add_parser("end")
    arguments = parser.parse_args()
    if arguments.action == "end":
        end(RESULTS)
    elif arguments.action == "has":
        found = has_row(RESULTS, arguments.stage, model=arguments.model, batch_size=arguments.batch_size,
                        num_accelerators=arguments.num_accelerators, num_workers=arguments.num_workers)
        sys.exit(not found)
    else:
        data = [os.path.join(ROOT, models.place_of(model).folder, "dataset.pkl") for model in arguments.models.split()]
        made = [os.stat(path).st_mtime_ns for path in data if os.path.exists(path)]
        settings = json.dumps([arguments.models, arguments.settings, made])
        if begin(RESULTS, arguments.command, settings):
            print("going on with what was interrupted")
            sys.exit(GO_ON)


if __name__ == "__main__":
    run_main(main)
