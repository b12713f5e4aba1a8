"""What a comparison of folders of results compares: runs of the first folder with runs of another, in pairs."""
import os
import string
import typing

import numpy as np

from utils.files import UserError
from utils.reports.names import heading, model_order, path_label
from utils.reports.verdicts import Verdict, verdict_of
from utils.results import (
    FLAGS,
    KEY,
    MACHINE,
    PLACES,
    RATES,
    STEADILY,
    TRAINING,
    by_seed,
    csv_name,
    flag_text,
    is_learnt,
    read_rows,
    run_of,
    texts_of,
)

STAGES = {"train": "training", "infer": "inference"}
RATIOS = {"train": RATES, "infer": RATES + ("latency_ms_p50", "latency_ms_p99")}
DIFFERENCES = {"train": ("best_gauc", "best_auc", "final_gauc", "final_auc"), "infer": ("gauc", "auc")}
TESTED = {stage: RATIOS[stage] + DIFFERENCES[stage][:2] for stage in STAGES}
KNOWN_FLAGS = ("epochs", "optimizer", "learning_rate")  # without which a checkpoint may be of any training


class Folder(typing.NamedTuple):
    """A folder of results."""
    letter: str  # what the tables call it, A the first
    path: str
    label: str   # the path as it is shown
    rows: dict   # {stage: [row]}

    def runs_of(self, stage, key):
        """The `Runs` of a stage with the values `key` in KEY, a list."""
        rows = [row for row in self.rows[stage] if texts_of(row, KEY) == key]
        return [Runs(self, stage, group) for group in by_seed(rows, stage)]


class Runs(typing.NamedTuple):
    """Runs of a folder that differ in their seed alone, one or more."""
    folder: Folder
    stage: str
    rows: list

    def figures(self, column):
        """The figures of a column, of the runs that have it."""
        return [float(row[column]) for row in self.rows if row[column] != ""]

    def mean(self, column):
        """The mean of `figures`; None where no run has it."""
        figures = self.figures(column)
        return float(np.mean(figures)) if figures else None

    def text(self, column):
        """What the runs have in a column, a flag as people read it; several texts where they were ended early."""
        flags = FLAGS[self.stage] + PLACES[self.stage]
        return ", ".join(sorted({flag_text(row, column) if column in flags else row[column] for row in self.rows}))

    def may_end_early(self):
        """Whether patience or a target may have ended the training."""
        return any(float(self.rows[0][column] or 0) for column in ("patience", "target_gauc"))

    def are_learnt(self):
        """Whether each run has a GAUC well above what popularity alone gives."""
        return all(map(is_learnt, self.rows))


class Pair(typing.NamedTuple):
    """Runs of the first folder, and runs of another folder that have their key."""
    stage: str
    key: tuple
    first: Runs
    other: Runs
    run: str           # what tells the first runs from others there that have their key; empty where there are none
    flags: list        # texts: why the two are not comparable
    is_compared: bool  # as are all without flags, the others where that is asked for
    verdicts: dict     # {column of TESTED: Verdict}

    def figure(self, column):
        """The other mean minus the first for DIFFERENCES, else over the first; None without one, or next to 0."""
        first, other = self.first.mean(column), self.other.mean(column)
        if first is None or other is None:
            return None
        if column in DIFFERENCES[self.stage]:
            return other - first
        return other / first if min(first, other) > 1e-9 else None

    def verdict(self, column):
        """The `Verdict` on a column; an empty one where it is not tested."""
        return self.verdicts.get(column, Verdict())

    def bounds(self, column):
        """The low and the high bound of a difference in DIFFERENCES, where it is tested; else empty."""
        is_tested = column in DIFFERENCES[self.stage] and self.verdict(column).test
        return self.verdict(column).interval[1:] if is_tested else ()

    def cell(self, column, decimals=6):
        """`figure` as a text: a difference with sign and `decimals`, a ratio with three digits, a dash for None.

        A ratio that may be noise has a "~" before it.
        """
        value = self.figure(column)
        if value is None:
            return "-"
        if column in DIFFERENCES[self.stage]:
            return "%+.*f" % (decimals, value)
        text = ("%.0f" if value >= 100 else "%.2f" if value >= 1 else "%.3f" if value >= 0.1 else "%.3g") % value
        return "~" * self.verdict(column).may_be_noise + text

    def not_learnt(self):
        """The letters of the folders whose runs are not learnt yet."""
        return [runs.folder.letter for runs in (self.first, self.other) if not runs.are_learnt()]


def read_folders(paths):
    """Returns the Folders at `paths`.

    Raises:
      UserError: one of them holds no results, or can't be read, or is there twice.
    """
    if len(set(map(os.path.realpath, paths))) < len(paths):
        raise UserError("the same folder is given twice; name different folders")
    if len(paths) > len(string.ascii_uppercase):
        raise UserError("%d folders are more than %d; name fewer" % (len(paths), len(string.ascii_uppercase)))
    folders = []
    for letter, path in zip(string.ascii_uppercase, paths):
        rows = {stage: read_rows(path, stage) for stage in STAGES}
        if not any(rows.values()):
            raise UserError("there %s %s; name folders with %s or %s" % (
                "are no results in" if os.path.isdir(path) else "is no folder", path, *map(csv_name, STAGES)))
        for stage in STAGES:
            if len({run_of(row, stage) for row in rows[stage]}) < len(rows[stage]):
                raise UserError("%s has two rows of one run, with the same flags on the same machine; leave one"
                                % os.path.join(path, csv_name(stage)))
        folders.append(Folder(letter, path, path_label(path), rows))
    return folders


def compare(folders, anyway):
    """Returns (pairs, lone_runs): the Pairs of each folder's runs with the first's, and the runs that a folder lacks.

    `lone_runs` has (stage, key, text) for each: the text says which folders have it, and which have it on other data.
    With `anyway`, runs that are not comparable are compared, too.

    Raises:
      UserError: a file of outcomes is damaged, or of other users than another of the same data.
    """
    pairs, lone_runs = [], []
    for stage in STAGES:
        keys = dict.fromkeys(texts_of(row, KEY) for folder in folders for row in folder.rows[stage])
        for key in sorted(keys, key=lambda key: (key[1], model_order(key[0]), list(map(float, key[2:])))):
            by_folder = [folder.runs_of(stage, key) for folder in folders]
            pairs_of_key, groups = _pairs_and_groups(key, by_folder, anyway)
            pairs += pairs_of_key
            lone_runs += _lone_runs(stage, key, folders, groups, by_folder)
    return pairs, lone_runs


def _pairs_and_groups(key, by_folder, anyway):
    """Returns (the Pairs of a key, its Runs in groups, lists); `by_folder` has a list of Runs for each folder.

    A group is Runs of the first folder and those that are paired with them, or else Runs of others with the same flags.
    """
    first_runs, *runs_of_others = by_folder
    pairs, groups, groups_of_others = [], [[runs] for runs in first_runs], []
    for other_runs in runs_of_others:
        for number, other in _matched(first_runs, other_runs):
            if number is None:
                group = next((group for group in groups_of_others if not _differences(group[0], other)), None)
                if group is None:
                    group = []
                    groups_of_others.append(group)
            else:
                first, group = first_runs[number], groups[number]
                pairs.append(_pair(key, first, other, _run((first, first_runs), (other, other_runs)), anyway))
            group.append(other)
    return pairs, groups + groups_of_others


def _pair(key, first, other, run, anyway):
    """The `Pair` of two Runs, tested where it is compared."""
    stage, flags = first.stage, _differences(first, other)
    is_compared = anyway or not flags
    verdicts = {column: verdict_of(first, other, column, over_users=column == DIFFERENCES[stage][0])
                for column in TESTED[stage] if is_compared}
    return Pair(stage, key, first, other, run, flags, is_compared, verdicts)


def _matched(first_runs, other_runs):
    """Yields (the number of one of `first_runs`, one of `other_runs`), of one key: the closest first, each once.

    Close are Runs with the same flags, and of these the ones of the same machine. Further Runs with the same flags are
    given the same number; the others None.
    """
    def distance(pair):
        both = first_runs[pair[0]], pair[1]
        return len(_differences(*both)), sum(both[0].text(column) != both[1].text(column) for column in MACHINE)
    numbers, left = list(range(len(first_runs))), list(other_runs)
    while left:
        pair = min(((number, runs) for runs in left for number in numbers), key=distance, default=(None, left[0]))
        if pair[0] is None:  # each of the first has its counterpart
            same = [number for number in range(len(first_runs)) if not distance((number, left[0]))[0]]
            pair = (same[0] if same else None), left[0]
        else:
            numbers.remove(pair[0])
        yield pair
        left = [runs for runs in left if runs is not pair[1]]


def _columns(stage):
    """The columns that may tell Runs of a key apart: all flags and places but the seed."""
    return [column for column in FLAGS[stage] + PLACES[stage] if column != "seed"]


def _run(*runs_among):
    """What tells Runs from others of their folder that have their key, a text; of two (Runs, these and the others)."""
    texts = []
    for column in _columns(runs_among[0][0].stage):
        values = [runs.text(column) for runs, others in runs_among if len({each.text(column) for each in others}) > 1]
        texts += ["%s %s" % (heading(column), value) for value in values[:1]]
    return ", ".join(texts)


def _run_of_group(group, by_folder):
    """What tells a group of Runs from others of their key, a text: flags in any folder, places in their folders."""
    texts, letters = [], {runs.folder.letter for runs in group}
    for column in _columns(group[0].stage):
        is_place, values = column in PLACES[group[0].stage], {runs.text(column) for runs in group}
        among = {runs.text(column) for runs_of_folder in by_folder for runs in runs_of_folder
                 if not is_place or runs.folder.letter in letters}
        if len(values) == 1 and values != among:
            texts.append(" ".join([heading(column), *values]))
    return ", ".join(texts)


def _lone_runs(stage, key, folders, groups, by_folder):
    """Yields (stage, key, text) for each of `groups` that not every folder has."""
    for group in groups:
        owners = [folder for folder in folders if any(folder is runs.folder for runs in group)]
        if len(owners) < len(folders):
            run = _run_of_group(group, by_folder)
            texts = ["only in " + " and ".join(folder.letter for folder in owners) + (run and ", with " + run)]
            texts += ["%s has it on %s" % (folder.letter, dataset) for folder in folders if folder not in owners
                      for dataset in dict.fromkeys(row["dataset"] for row in folder.rows[stage] if texts_of(
                          dict(row, dataset=key[1]), KEY) == key and row["dataset"] != key[1])]
            yield stage, key, "; ".join(texts)


def _differences(first, other):
    """Why two Runs are not comparable: texts, none where they are.

    What neither of the two has, since an earlier version made them, is taken for the same, but for the training of a
    checkpoint, which may be any. Seeds are no difference; nor are steps of trainings that both were ended early.
    """
    stage, ended_early = first.stage, first.may_end_early() and other.may_end_early()
    columns = [column for column in FLAGS[stage] if not (
        column == "seed" or column == "trained_steps" and ended_early)]
    if stage == "train" and not ended_early:
        columns += ["steps", "recommendations"]
    elif stage == "infer" and any(row["duration"] in ("", "0", STEADILY) for row in first.rows + other.rows):
        columns += ["recommendations"]  # the others count what was scored in a time
    texts = []
    for column in columns:
        values = first.text(column), other.text(column)
        if values[0] != values[1] or stage == "infer" and values[0] == "unknown" and column in KNOWN_FLAGS:
            trained = "trained with " if stage == "infer" and column in TRAINING else ""
            texts.append("%s%s %s and %s" % (trained, heading(column), *values))
    return texts
