"""Results as training and inference write them, for the tests of what reads them."""
import contextlib
import csv
import io
import os

from utils.files import run_main
from utils.results import COLUMNS, CURVES_COLUMNS, INFER_COLUMNS, SEARCH_COLUMNS, TRAIN_COLUMNS, csv_name

TRAIN = dict(zip(TRAIN_COLUMNS, (
    "din", "sample_small", "256", "1", "2", "1032", "264000", "20.500", "12878.0", "9.250", "28540.5", "0.496248",
    "0.914300", "0.915963", "0.924300", "0.925963", "600", "adam", "0.001", "1234", "CPU AMD EPYC (2 cores)", "2.21.0",
    "1", "0", "1000", "no", "", "0123456789abcdef", "52000.0", "48000.0", "55000.0", "4.923", "7.100",
    "test", "0", "0", "", "", "", "", "", "", "1.250", "0.697500", "8cbf4a043771461f")))
INFER = dict(zip(INFER_COLUMNS, (
    "din", "sample_small", "256", "1", "20000", "2.900", "6896.6", "0.150", "133333.3", "3.570", "7.854", "0.924300",
    "0.925963", "600", "CPU AMD EPYC (2 cores)", "2.21.0", "1", "2", "", "steady", "2", "adam", "0.001", "1234", "0",
    "1000", "", "0123456789abcdef", "256", "1032", "CPU AMD EPYC (2 cores), TensorFlow 2.21.0",
    "140000.0", "120000.0", "150000.0", "0.0150", "test", "0", "0", "0.697500", "8cbf4a043771461f")))
CURVE = dict(zip(CURVES_COLUMNS, (
    "din", "sample_small", "256", "1", "1", "0", "0", "0", "0.412", "", "0.503100", "0.502900", "2", "adam", "0.001",
    "1234", "0", "1000", "", "0123456789abcdef", "no", "CPU AMD EPYC (2 cores)", "2.21.0", "test", "0", "0", "0.350",
    "0.697500")))
TRIAL = dict(zip(SEARCH_COLUMNS, (
    "din", "sample_small", "0123456789abcdef", "0", "3", "9", "4644", "2376000", "adam", "0.001", "256", "200",
    "0.905100", "0.907300", "0.691500", "4000", "85.200", "CPU AMD EPYC (2 cores)", "2.21.0", "")))
ROWS = {"train": TRAIN, "infer": INFER, "curves": CURVE, "search": TRIAL}


def write_rows(folder, stage, *changes):
    """Writes a stage's CSV into `folder`: a row for each of `changes`, dictionaries of what differs from ROWS."""
    os.makedirs(str(folder), exist_ok=True)
    with open(os.path.join(str(folder), csv_name(stage)), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS[stage], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(dict(ROWS[stage], **change) for change in changes)


def error_line(command):
    """Calls `command`; returns the line `error: ...` that it ends with, at exit status 1, or None where it succeeds."""
    with contextlib.redirect_stderr(io.StringIO()) as output:
        try:
            command()
        except SystemExit as end:
            lines = output.getvalue().split("\n")
            assert (end.code, lines.pop()) == (1, "") and lines[-1].startswith("error: "), (end.code, lines)
            return lines[-1]
    return None


def error_of(main, monkeypatch, *arguments):
    """Runs a command's `main` with these arguments; returns the line that it ends with, or None."""
    monkeypatch.setattr("sys.argv", ["command"] + [str(argument) for argument in arguments])
    return error_line(lambda: run_main(main))
