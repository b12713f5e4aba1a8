"""What a script that was interrupted has done, so that the same command goes on with what is left.

    python -m utils.runs.unfinished begin COMMAND MODELS SETTING ...    moves earlier results aside, or goes on
    python -m utils.runs.unfinished has COMMAND STAGE MODEL ...         whether that is done
    python -m utils.runs.unfinished add COMMAND STAGE MODEL ...         it is done now
    python -m utils.runs.unfinished end COMMAND                         the script is through

The folder of the results has a file for this, MARKS: {command: {"settings": text, "done": [[stage, model, ...], ...]}}.
A row in a CSV does not show that the script made it: people run train.py by hand, too.
"""
import glob
import json
import os
import subprocess
import sys

from utils import models
from utils.files import ROOT, Parser, replacing, run_main, set_aside
from utils.results import KEY, PUBLISHED, RESULTS, copy_outcomes, csv_name, read_rows

GO_ON = 10  # exit status of `begin`
MARKS = ".unfinished"
# What a script does one after another, at each stage. The seed, of training, is empty where the script names none.
STEP = [column for column in KEY if column != "dataset"] + ["seed"]


def read_marks(folder):
    """The marks of the scripts that were begun in `folder` and are not through; none where the file is damaged."""
    try:
        with open(os.path.join(folder, MARKS), encoding="utf-8") as file:
            marks = json.load(file)
        return {command: {"settings": str(mark["settings"]), "done": [list(map(str, step)) for step in mark["done"]]}
                for command, mark in marks.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # an earlier version's, or none
        return {}


def _write_marks(folder, marks):
    path = os.path.join(folder, MARKS)
    if marks:
        with replacing(path, "w", encoding="utf-8") as file:
            json.dump(marks, file)
    elif os.path.exists(path):
        os.remove(path)


def begin(folder, command, settings):
    """Makes `folder` ready for a script's results; returns whether the same script was interrupted, and goes on.

    Args:
      command: run, train or infer. The first two move all results into <folder>_<date>, since new training makes them
        stale; infer moves those of inference. The project's files stay, and what searches gave.
      settings: a text; results that were begun with another are no results of the same script.
    """
    marks = read_marks(folder)
    if command in marks and marks[command]["settings"] == settings:
        return True
    patterns = ("results_infer*", "result_infer_*") if command == "infer" else ("*",)
    paths = {path for pattern in patterns for path in glob.glob(os.path.join(glob.escape(folder), pattern))}
    paths.discard(os.path.join(folder, PUBLISHED))  # git tracks it, but a project unpacked from an archive has no git
    paths.discard(os.path.join(folder, csv_name("search")))  # training makes no search stale
    old_results = set_aside(sorted(paths - _git_files(folder)), folder)
    if old_results:
        print("earlier results are in %s" % os.path.relpath(old_results))
    if old_results and command == "infer":  # the folder's other results need them, too
        copy_outcomes(folder, old_results)
    if command != "infer":  # what other scripts have done has been moved
        for other in marks if old_results else ():
            print("%s.sh had not come to its end; what it made is there, too" % other)
        marks = {}
    for mark in marks.values():
        mark["done"] = [step for step in mark["done"] if step[0] == "train"]
    marks[command] = {"settings": settings, "done": []}
    _write_marks(folder, marks)
    return False


def has(folder, command, step):
    """Whether the script `command` has done `step`, [stage, model, ...], and its row is still there."""
    stage, *values = step
    done = read_marks(folder).get(command, {"done": []})["done"]
    return step in done and any(all(row[column] == value for column, value in zip(STEP, values) if value)
                                for row in read_rows(folder, stage))


def add(folder, command, step):
    """Notes that the script `command` has done `step`."""
    marks = read_marks(folder)
    marks[command]["done"].append(step)
    _write_marks(folder, marks)


def end(folder, command):
    """Forgets the script `command`, which is through."""
    marks = read_marks(folder)
    del marks[command]
    _write_marks(folder, marks)


def _git_files(folder):
    """The files below `folder` that git tracks."""
    try:
        names = subprocess.check_output(["git", "ls-files", "-z"], cwd=folder, stderr=subprocess.DEVNULL).decode()
    except (OSError, subprocess.CalledProcessError):
        return set()
    return {os.path.join(folder, name) for name in names.split("\0") if name}


def main():
    parser = Parser(prog="python -m utils.runs.unfinished", description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", parser_class=Parser)
    for action in ("begin", "has", "add", "end"):
        action_parser = actions.add_parser(action)
        action_parser.add_argument("command", choices=["run", "train", "infer"])
        if action == "begin":
            action_parser.add_argument("models", help="separated by spaces")
            action_parser.add_argument("settings", nargs="*", help="what else the results depend on")
        elif action != "end":
            action_parser.add_argument("stage", choices=["train", "infer"])
            for column in STEP:
                action_parser.add_argument(column)
    arguments = parser.parse_args()
    if arguments.action == "end":
        end(RESULTS, arguments.command)
    elif arguments.action == "begin":
        folders = [os.path.join(ROOT, models.place_of(model).folder) for model in arguments.models.split()]
        words = ["dataset.pkl"] + [word.split("=", 1)[-1] for word in arguments.settings]  # such as --dataset FILE
        paths = [os.path.join(folder, word) for folder in folders for word in words]
        times = [os.stat(path).st_mtime_ns for path in paths if os.path.isfile(path)]
        if begin(RESULTS, arguments.command, json.dumps([arguments.models, arguments.settings, times])):
            print("going on with what was interrupted")
            sys.exit(GO_ON)
    else:
        step = [arguments.stage] + [getattr(arguments, column) for column in STEP]
        if arguments.action == "add":
            add(RESULTS, arguments.command, step)
        else:
            sys.exit(not has(RESULTS, arguments.command, step))


if __name__ == "__main__":
    run_main(main)
