"""results_train.csv and results_infer.csv: one header, one row per model and batch size.

The programs write their own rows, when all has gone well. train.sh and infer.sh move earlier results aside first:

    python -m utils.results set_aside train      everything in results/, since new training makes it stale
    python -m utils.results set_aside infer      what earlier inference left
"""
import csv
import glob
import os
import subprocess

from utils.files import ROOT, Parser, UserError, replacing, run_main, set_aside

RESULTS = os.path.join(ROOT, "results")

TRAIN_COLUMNS = (
    "model", "dataset", "batch_size", "num_accelerators", "epochs", "steps", "recommendations", "system_seconds",
    "system_recommendations_per_second", "accelerator_seconds", "accelerator_recommendations_per_second", "final_loss",
    "final_gauc", "final_auc", "best_gauc", "best_auc", "best_step", "optimizer", "learning_rate", "seed", "device",
    "tensorflow")

INFER_COLUMNS = (
    "model", "dataset", "batch_size", "num_accelerators", "recommendations", "system_seconds",
    "system_recommendations_per_second", "accelerator_seconds", "accelerator_recommendations_per_second",
    "latency_ms_p50", "latency_ms_p99", "gauc", "auc", "checkpoint_step", "device", "tensorflow")

KEY = ("model", "dataset", "batch_size", "num_accelerators")


def add_row(folder, name, columns, row):
    """Adds `row` to the CSV `name` in `folder`.

    A row of the same model, data set, batch size and number of accelerators is replaced; the file that held it is kept
    in <folder>_<date>.

    Args:
      columns: the header.
      row: a dictionary with a value for each column.

    Raises:
      UserError: the file there has another header.
    """
    path = os.path.join(folder, name)
    row = {column: str(row[column]) for column in columns}
    rows = []
    if os.path.exists(path):
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != columns:
                raise UserError("%s has other columns than this version writes; move it away" % path)
            rows = list(reader)
    others = [other for other in rows if any(other[column] != row[column] for column in KEY)]
    if len(others) < len(rows):
        set_aside([path], folder)
    with replacing(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(others + [row])


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


def set_results_aside(folder, stage):
    """Moves earlier results in `folder` into <folder>_<date>; returns the new folder, or None where there were none.

    Args:
      stage: "train" moves everything, "infer" what inference left.
    """
    patterns = {"train": ("*",), "infer": ("results_infer*", "result_infer_*")}[stage]
    paths = {path for pattern in patterns for path in glob.glob(os.path.join(folder, pattern))}
    return set_aside(sorted(paths - _tracked(folder)), folder) if paths else None


def main():
    parser = Parser(prog="python -m utils.results", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["set_aside"])
    parser.add_argument("stage", choices=["train", "infer"])
    parser.add_argument("--results", default=RESULTS, help="default: %(default)s")
    arguments = parser.parse_args()
    aside = set_results_aside(arguments.results, arguments.stage)
    if aside:
        print("earlier results are in %s" % os.path.relpath(aside))


if __name__ == "__main__":
    run_main(main)
