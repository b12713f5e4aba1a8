"""The CSVs of results: one header; a row for each run, in curves for each evaluation, in searches for each trial.

It needs the standard library alone, as the scripts check their arguments with it before anything is installed.

A row carries what it was made with: rows with the same `run_of` are one run measured again, any other is another row.
What an earlier version did not write, or what does not apply, is empty.
"""
import csv
import os
import shutil

from utils.files import ROOT, UserError, check_writable, dated_folder, make_folder, replacing
from utils.runs.locks import waited_for

RESULTS = os.path.join(ROOT, "results")
OUTCOMES = "outcomes"  # the folder in it of runs/outcomes.py

RUN = ("model", "dataset", "batch_size", "num_accelerators")
SEARCH = ("model", "dataset", "dataset_fingerprint", "search_seed")  # what says which search a row of a trial is of
KEY = RUN + ("num_workers",)  # what people look a row up by; num_workers: machines that trained together, else 1
CLOCK_RATES = ("system_recommendations_per_second", "accelerator_recommendations_per_second")
THROUGHPUT = ("recommendations", "system_seconds", CLOCK_RATES[0], "accelerator_seconds", CLOCK_RATES[1])
# The median over steps, warm-up and partial batches left out; 90% and 10% of the steps are as fast.
STEADY = tuple("steady_recommendations_per_second" + suffix for suffix in ("", "_p10", "_p90"))
RATES = CLOCK_RATES + STEADY[:1]
MACHINE = ("device", "tensorflow")

# What a training's outcome depends on, beside KEY. `parts` says what changed when a run was resumed; SELECTION, what
# the best checkpoint is chosen by, and what ends the run.
TRAINED_WITH = ("epochs", "optimizer", "learning_rate", "seed", "max_steps", "eval_every", "parts",
                "dataset_fingerprint")
SELECTION = ("selected_on", "patience", "target_gauc")
TRAINING = TRAINED_WITH + SELECTION
FLAGS = {"train": TRAINING + ("profile",),
         "infer": TRAINING + ("num_ads", "candidate_seed", "duration", "trained_batch_size", "trained_steps"),
         "curves": TRAINING + ("profile",)}
# Where a row was made, which is no reason not to compare it.
PLACES = {"train": MACHINE, "infer": MACHINE + ("trained_on",), "curves": MACHINE}
UNKNOWN_CHECKPOINT = ("checkpoint_step", "gauc", "auc")  # what tells one from others whose training is not known either
STEADILY = "steady"  # in the column `duration`: until the figure is
TOO_LARGE = 10 ** 15  # no figure of this benchmark is
POINT = ("epoch", "step", "recommendations", "seconds", "train_loss", "gauc", "auc",
         "seconds_without_evaluations")  # an evaluation, in a curve
TARGET = ("target_reached", "seconds_to_target", "seconds_to_target_without_evaluations", "recommendations_to_target")
QUALITY = ("popularity_gauc", "outcomes")  # data/popularity.py; which users were ranked right, runs/outcomes.py

# New columns go to the end: others' scripts read the first ones by their places.
TRAIN_COLUMNS = RUN + ("epochs", "steps") + THROUGHPUT + (
    "final_loss", "final_gauc", "final_auc", "best_gauc", "best_auc", "best_step", "optimizer", "learning_rate",
    "seed") + MACHINE + ("num_workers",) + (
    "max_steps", "eval_every", "profile", "parts", "dataset_fingerprint") + STEADY + (
    "step_ms_p50", "step_ms_p99") + SELECTION + ("validation_gauc", "validation_auc") + TARGET + (
    "evaluation_seconds",) + QUALITY
INFER_COLUMNS = RUN + THROUGHPUT + (
    "latency_ms_p50", "latency_ms_p99", "gauc", "auc", "checkpoint_step") + MACHINE + ("num_workers",) + (
    "num_ads", "candidate_seed", "duration") + TRAINED_WITH + (
        "trained_batch_size", "trained_steps", "trained_on") + STEADY + ("steady_half_width",) + SELECTION + QUALITY
CURVES_COLUMNS = KEY + POINT[:-1] + TRAINED_WITH + ("profile",) + MACHINE + SELECTION + POINT[-1:] + QUALITY[:1]
SEARCH_COLUMNS = ("model", "dataset", "dataset_fingerprint", "search_seed", "trial", "epochs", "steps",
                  "recommendations", "optimizer", "learning_rate", "batch_size", "eval_every", "validation_gauc",
                  "validation_auc", "popularity_gauc", "best_step",
                  "seconds") + MACHINE + ("error",)  # a trial of utils/search.py
COLUMNS = {"train": TRAIN_COLUMNS, "infer": INFER_COLUMNS, "curves": CURVES_COLUMNS,
           "search": SEARCH_COLUMNS}  # by stage
# How many the earliest version wrote, with num_workers.
FIRST_COLUMNS = {"train": 23, "infer": 17, "curves": 12, "search": len(SEARCH_COLUMNS)}
TEXTS = ("model", "dataset", "optimizer", "device", "tensorflow", "profile", "parts", "dataset_fingerprint",
         "duration", "trained_on", "data", "metric", "settings", "source", "selected_on", "target_reached",
         "outcomes", "error")  # no figures
EARLIER = {"num_workers": "1", "selected_on": "test", "patience": "0", "target_gauc": "0"}  # what earlier versions did
NOT_LEARNT = 0.01  # above what popularity alone gives, a GAUC is not worth quoting

PUBLISHED = "published.csv"  # in RESULTS, a file of the project itself: figures that others have published
PUBLISHED_COLUMNS = ("model", "data", "metric", "value", "settings", "source")


def run_of(row, stage):
    """What says which run, or search, a row of a stage is of, a tuple: rows with the same are of one, made again."""
    columns = SEARCH if stage == "search" else KEY + FLAGS[stage] + PLACES[stage]
    is_unknown = stage == "infer" and "" in texts_of(row, ("epochs", "optimizer"))
    return texts_of(row, columns + UNKNOWN_CHECKPOINT * is_unknown)


def by_seed(rows, stage):
    """`rows` of a stage in lists, of runs that differ in their seed alone; of curves, all points of such runs.

    How many steps a run had is no difference: it follows from the flags, or from what patience and a target made of
    them. Inference with a checkpoint before and after more training has one seed twice: each of these is on its own.
    """
    groups = {}
    for row in rows:
        key = run_of(dict(row, seed="", **{"trained_steps": ""} if stage == "infer" else {}), stage)
        groups.setdefault(key, {}).setdefault(run_of(row, stage), []).append(row)
    for runs in map(list, map(dict.values, groups.values())):
        has_seed_twice = len({run[0]["seed"] for run in runs}) < len(runs)
        yield from runs if has_seed_twice else [[row for run in runs for row in run]]


def texts_of(row, columns):
    """The texts of `columns` in `row`, a tuple."""
    return tuple(row[column] for column in columns)


def csv_name(stage):
    """The name of the CSV of a stage, one of COLUMNS."""
    return "results_%s.csv" % stage


def flag_text(row, column):
    """A flag as people read it: "none" where there is none, "unknown" where an earlier version did not write it."""
    has_none = column in ("parts", "candidate_seed") and row["dataset_fingerprint"] != ""
    return row[column] or ("none" if has_none else "unknown")


def machine_of(row):
    """The machine that a row was measured on, a text."""
    return "%s, TensorFlow %s" % (row["device"], row["tensorflow"])


def whole_batch(row):
    """How many recommendations, or users, a batch of a row has on all accelerators and workers together."""
    return int(row["batch_size"]) * int(row["num_accelerators"]) * int(row["num_workers"])


def gauc_column(row):
    """The column of the GAUC that a row of training, inference or a search is judged by; None of other rows."""
    return next((column for column in ("best_gauc", "gauc", "validation_gauc") if column in row), None)


def is_learnt(row):
    """Whether the GAUC of a row, its `gauc_column`, is NOT_LEARNT or more above what item popularity alone gives.

    True where the row does not say what popularity gives, as those of earlier versions, or has no GAUC.
    """
    gauc, floor = row[gauc_column(row)], row["popularity_gauc"]
    return "" in (gauc, floor) or float(gauc) >= float(floor) + NOT_LEARNT


def write_csv(path, columns, rows):
    """Writes dictionaries as the CSV `path`; a column that a row lacks stays empty."""
    with replacing(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def check_folder(folder, stages):
    """Raises UserError where rows of `stages` can't be added to the CSVs in `folder`; leaves nothing there.

    To be called before hours of work whose rows are to go there.
    """
    check_writable(folder)
    check_writable(os.path.join(folder, OUTCOMES))
    for stage in stages:
        _read_csv(os.path.join(folder, csv_name(stage)), COLUMNS[stage], FIRST_COLUMNS[stage])


def add_rows(folder, tables):
    """Adds rows to CSVs in `folder`.

    Rows of the same run, or search, are replaced; the files that held others than now are copied to <folder>_<date>.

    Args:
      tables: {stage: rows of one run, or search}; a row is a dictionary with a value for each of the stage's COLUMNS.

    Raises:
      UserError: a file there has another header.
    """
    make_folder(folder)
    with waited_for(os.path.join(folder, ".csv.lock")):  # models that are trained side by side share the files
        contents, changed_paths = {}, []
        for stage, rows in tables.items():
            path = os.path.join(folder, csv_name(stage))
            rows = [{column: str(row[column]) for column in COLUMNS[stage]} for row in rows]
            old_rows = _read_csv(path, COLUMNS[stage], FIRST_COLUMNS[stage])
            other_rows = [row for row in old_rows if run_of(row, stage) != run_of(rows[0], stage)]
            if any(row not in other_rows + rows for row in old_rows):
                changed_paths.append(path)
            contents[path] = COLUMNS[stage], other_rows + rows
        if changed_paths:
            copies = dated_folder(folder)
            for path in changed_paths:
                shutil.copy2(path, copies)
            copy_outcomes(folder, copies)
        for path, (columns, rows) in contents.items():
            write_csv(path, columns, rows)


def copy_outcomes(folder, copies):
    """Copies the outcomes in `folder`, if there are any, into the folder `copies`, for CSVs there."""
    if os.path.isdir(os.path.join(folder, OUTCOMES)):
        shutil.copytree(os.path.join(folder, OUTCOMES), os.path.join(copies, OUTCOMES))


def _read_csv(path, columns, fewest=None):
    """The rows of the CSV `path`, dictionaries; none where it is not there.

    An earlier version wrote the first of `columns`, `fewest` or more, and before that knew one worker alone. A column
    that it did not write is empty.
    """
    if not os.path.exists(path):
        return []
    if not os.path.isfile(path):
        raise UserError("%s is no file; move it away" % path)
    rows = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # Excel writes a byte order mark
            reader = csv.DictReader(file)
            header = tuple(reader.fieldnames or ())
            headers = [columns[:count] for count in range(fewest or len(columns), len(columns) + 1)]
            headers += [tuple(column for column in older if column != "num_workers") for older in headers]
            if header not in headers:
                raise UserError("%s has %s" % (path, _header_fault(header, headers)))
            for row in reader:
                if None in row or None in row.values():
                    raise UserError("%s has a row with more or fewer columns than its header; mend it or move it away"
                                    % path)
                rows.append(row)
    except UnicodeDecodeError:
        raise UserError("%s is not UTF-8 text; save it as CSV in UTF-8, or move it away" % path) from None
    except (csv.Error, ValueError) as error:
        raise UserError("%s can't be read (%s); move it away" % (path, error)) from None
    return [dict(_not_written(columns, row), **row) for row in rows]


def _not_written(columns, row):
    """The values of `columns` that an earlier version did not write into `row`: {column: text}."""
    is_unknown = "checkpoint_step" in columns and not row.get("optimizer")  # which training a checkpoint is of
    return dict(dict.fromkeys(columns, ""), **{column: value for column, value in EARLIER.items() if column in columns
                                         and not (is_unknown and column in SELECTION)})


def _header_fault(header, headers):
    """What is wrong with a CSV whose `header` is none of `headers`."""
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if tuple(separator.join(header).split(separator)) in headers:
            return "%s between its columns, as Excel may write them; save it with commas, or move it away" % name
    return "other columns than this version writes; move it away"


def read_rows(folder, stage):
    """The rows of a stage's CSV in `folder`, dictionaries of text; none where it is not there.

    A row of inference by an earlier version is given the flags of its training, where the folder has that.

    Raises:
      UserError: it is damaged, or what should be a figure is none.
    """
    path = os.path.join(folder, csv_name(stage))
    rows = _read_csv(path, COLUMNS[stage], FIRST_COLUMNS[stage])
    for row in rows:
        for column, text in row.items():
            if not (column in TEXTS or _is_figure(column, text) or text == "" and column in _maybe_empty(stage)):
                raise UserError("%s has %.100r as a %s; mend it or move it away" % (path, text, column))
    if stage == "infer" and any(row["optimizer"] == "" for row in rows):
        train_rows = read_rows(folder, "train")
        rows = [dict(row, **_earlier_training(row, train_rows)) for row in rows]
    return rows


def _maybe_empty(stage):
    """The columns of figures that a row may lack.

    They are those of later versions, the loss before the first step, the test figures of the last step, which are not
    looked at where the best is selected on validation, and what a trial that failed has not measured.
    """
    if stage == "search":
        return ("steps", "recommendations", "validation_gauc", "validation_auc", "best_step", "seconds")
    return COLUMNS[stage][FIRST_COLUMNS[stage]:] + ("train_loss", "final_gauc", "final_auc")


def _is_figure(column, text):
    if column in KEY:
        return text.isdecimal() and int(text) > 0
    try:
        return 0 <= float(text) < TOO_LARGE
    except ValueError:
        return False


def _earlier_training(row, train_rows):
    """The flags of the training whose best checkpoint a row of an earlier version was measured with; {} if not known.

    The best step alone does not tell trainings apart: it is a multiple of --eval_every.
    """
    if row["optimizer"] != "":
        return {}
    trainings = [other for other in train_rows if other["dataset_fingerprint"] == ""
                 and texts_of(other, RUN) == texts_of(row, RUN)
                 and texts_of(other, ("best_step", "best_gauc", "best_auc"))
                 == texts_of(row, ("checkpoint_step", "gauc", "auc"))]
    if len(trainings) != 1:
        return {}
    training, = trainings
    return dict({column: training[column] for column in TRAINING}, trained_batch_size=str(whole_batch(training)),
                trained_steps=training["steps"], trained_on=machine_of(training))


def read_published():
    """The rows of the project's published.csv, dictionaries of text; none in a folder of results that lost it."""
    return _read_csv(os.path.join(RESULTS, PUBLISHED), PUBLISHED_COLUMNS)


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
