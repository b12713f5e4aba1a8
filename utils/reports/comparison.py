"""The comparison of folders of results: pairs of rows, and their tables in Markdown and CSV."""
import os
import string
import typing

from utils.files import UserError
from utils.reports.markdown import dataset_cell, table
from utils.reports.names import heading, model_order, path_label
from utils.results import (
    FLAGS,
    KEY,
    MACHINE,
    PLACES,
    RATES,
    STEADILY,
    TRAINING,
    csv_name,
    flag_text,
    read_rows,
    run_of,
    texts_of,
)

STAGES = {"train": "training", "infer": "inference"}
RATIOS = {"train": RATES, "infer": RATES + ("latency_ms_p50", "latency_ms_p99")}
DIFFERENCES = {"train": ("best_gauc", "best_auc", "final_gauc", "final_auc"), "infer": ("gauc", "auc")}
CSV_COLUMNS = ("stage",) + KEY + (
    "column", "first", "first_value", "other", "other_value", "ratio", "difference", "flags", "run")
KNOWN_FLAGS = ("epochs", "optimizer", "learning_rate", "seed")  # without which a checkpoint may be of any training


class Folder(typing.NamedTuple):
    """A folder of results."""
    letter: str  # what the tables call it, A the first
    path: str    # as it is shown
    rows: dict   # {stage: [row]}

    def rows_of(self, stage, key):
        """The rows of a stage with the values `key` in KEY."""
        return [row for row in self.rows[stage] if texts_of(row, KEY) == key]


class Pair(typing.NamedTuple):
    """A row of the first folder, and a row of another folder that has its key."""
    stage: str
    key: tuple
    first: Folder
    other: Folder
    rows: tuple        # the two
    run: str           # what tells the first row from others there that have its key; empty where there are none
    flags: list        # texts: why the two are not comparable
    is_compared: bool  # as are all without flags, the others where that is asked for

    def texts(self, column):
        """The two figures of a column, as the CSVs have them."""
        return [row[column] for row in self.rows]

    def figure(self, column):
        """The other figure minus the first for DIFFERENCES, else over the first; None without one, or next to 0."""
        if "" in self.texts(column):  # not measured
            return None
        first, other = map(float, self.texts(column))
        if column in DIFFERENCES[self.stage]:
            return other - first
        return other / first if min(first, other) > 1e-9 else None

    def cell(self, column, decimals=6):
        """`figure` as a text: a difference with sign and `decimals`, a ratio with three digits, a dash for None."""
        value = self.figure(column)
        if value is None:
            return "-"
        if column in DIFFERENCES[self.stage]:
            return "%+.*f" % (decimals, value)
        return ("%.0f" if value >= 100 else "%.2f" if value >= 1 else "%.3f" if value >= 0.1 else "%.3g") % value


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
        folders.append(Folder(letter, path_label(path), rows))
    return folders


def compare(folders, anyway):
    """Returns (pairs, lone_rows): the Pairs of each folder's rows with the first's, and the rows that a folder lacks.

    `lone_rows` has (stage, key, text) for each: the text says which folders have it, and which have it on other data.
    With `anyway`, rows that are not comparable are compared, too.
    """
    pairs, lone_rows = [], []
    for stage in STAGES:
        keys = dict.fromkeys(texts_of(row, KEY) for folder in folders for row in folder.rows[stage])
        for key in sorted(keys, key=lambda key: (key[1], model_order(key[0]), list(map(float, key[2:])))):
            pairs_of_key, groups = _pairs_and_groups(stage, key, folders, anyway)
            pairs += pairs_of_key
            lone_rows += _lone_rows(stage, key, folders, groups)
    return pairs, lone_rows


def _pairs_and_groups(stage, key, folders, anyway):
    """Returns (the Pairs of a key, its rows in groups, lists of (folder, row)).

    A group is a row of the first folder and those that are paired with it, or else rows of others with the same flags.
    """
    first_rows = folders[0].rows_of(stage, key)
    pairs, groups, groups_of_others = [], [[(folders[0], row)] for row in first_rows], []
    for other in folders[1:]:
        rows = other.rows_of(stage, key)
        for number, row in _matched(stage, first_rows, rows):
            if number is None:
                group = next((group for group in groups_of_others if not _differences(stage, group[0][1], row)), None)
                if group is None:
                    group = []
                    groups_of_others.append(group)
            else:
                first_row, group = first_rows[number], groups[number]
                flags, run = _differences(stage, first_row, row), _run(stage, (first_row, first_rows), (row, rows))
                pairs.append(Pair(stage, key, folders[0], other, (first_row, row), run, flags, anyway or not flags))
            group.append((other, row))
    return pairs, groups + groups_of_others


def _matched(stage, first_rows, rows):
    """Yields (the number of one of `first_rows`, one of `rows`), rows of one key: the closest first, each once.

    Close are rows with the same flags, and of these the ones of the same machine. Further rows with the same flags are
    given the same number; the others None.
    """
    def distance(pair):
        both = first_rows[pair[0]], pair[1]
        return len(_differences(stage, *both)), sum(both[0][column] != both[1][column] for column in MACHINE)
    numbers, left = list(range(len(first_rows))), list(rows)
    while left:
        pair = min(((number, row) for row in left for number in numbers), key=distance, default=(None, left[0]))
        if pair[0] is None:  # each of the first rows has its own
            same = [number for number in range(len(first_rows)) if not distance((number, left[0]))[0]]
            pair = (same[0] if same else None), left[0]
        else:
            numbers.remove(pair[0])
        yield pair
        left = [row for row in left if row is not pair[1]]


def _run(stage, *rows_among):
    """What tells a row from others of its folder that have its key, a text; of two (row, the others and itself)."""
    texts = []
    for column in FLAGS[stage] + PLACES[stage]:
        values = [flag_text(row, column) for row, rows in rows_among if len({other[column] for other in rows}) > 1]
        texts += ["%s %s" % (heading(column), value) for value in values[:1]]
    return ", ".join(texts)


def _lone_rows(stage, key, folders, groups):
    """Yields (stage, key, text) for each of `groups`, rows of one run by folder, that not every folder has."""
    for group in groups:
        owners = [folder for folder in folders if any(folder is owner for owner, _ in group)]
        if len(owners) < len(folders):
            run = _run(stage, *[(group[0][1], folder.rows_of(stage, key)) for folder in folders])
            texts = ["only in " + " and ".join(folder.letter for folder in owners) + (run and ", with " + run)]
            texts += ["%s has it on %s" % (folder.letter, dataset) for folder in folders if folder not in owners
                      for dataset in dict.fromkeys(row["dataset"] for row in folder.rows[stage] if texts_of(
                          dict(row, dataset=key[1]), KEY) == key and row["dataset"] != key[1])]
            yield stage, key, "; ".join(texts)


def _differences(stage, *rows):
    """Why two rows of a stage are not comparable: texts, none where they are.

    What neither of the two has, since an earlier version made them, is taken for the same, but for the training of a
    checkpoint, which may be any.
    """
    columns = FLAGS[stage]
    if stage == "train":
        columns += ("steps", "recommendations")
    elif any(row["duration"] in ("", "0", STEADILY) for row in rows):  # the others count what was scored in a time
        columns += ("recommendations",)
    texts = []
    for column in columns:
        first, other = (flag_text(row, column) if column in FLAGS[stage] else row[column] for row in rows)
        if first != other or stage == "infer" and first == "unknown" and column in KNOWN_FLAGS:
            trained = "trained with " if stage == "infer" and column in TRAINING else ""
            texts.append("%s%s %s and %s" % (trained, heading(column), first, other))
    return texts


def csv_rows(pairs):
    """Yields a row of CSV_COLUMNS for each figure of `pairs`."""
    for pair in pairs:
        for column in RATIOS[pair.stage] + DIFFERENCES[pair.stage]:
            value = pair.figure(column) if pair.is_compared else None
            row = dict(zip(KEY, pair.key), stage=pair.stage, column=column, flags="; ".join(pair.flags), run=pair.run)
            row.update(first=pair.first.path, other=pair.other.path)
            row["first_value"], row["other_value"] = pair.texts(column)
            if value is not None:
                row["ratio" if column in RATIOS[pair.stage] else "difference"] = "%.6g" % value
            yield row


def markdown(folders, pairs, lone_rows):
    """The comparison in Markdown: a list of headings, sentences and tables."""
    first = folders[0].letter
    machines = [[folder.letter, folder.path, *machine] for folder in folders for machine in sorted(
        {texts_of(row, MACHINE) for rows in folder.rows.values() for row in rows})]
    blocks = ["# Comparison of results", table(["", "folder", "device", "TensorFlow"], machines)]
    unknown = ", ".join(map(heading, _unknown_flags(pair for pair in pairs if pair.is_compared)))
    if unknown:
        blocks.append("An earlier version did not write these, which are taken for the same: %s." % unknown)
    keys = list(map(heading, KEY))
    for stage, name in STAGES.items():
        columns = RATIOS[stage] + DIFFERENCES[stage]
        has_runs = any(pair.run for pair in pairs if pair.stage == stage)
        rows = [_cells(pair.key) + [pair.run] * has_runs + [pair.other.letter + " (not comparable)" * bool(pair.flags)]
                + [pair.cell(column) for column in columns]
                for pair in pairs if pair.stage == stage and pair.is_compared]
        if rows:
            headers = [heading(column) + " difference" * (column in DIFFERENCES[stage]) for column in columns]
            blocks += ["## %s, ratios to %s" % (name.capitalize(), first),
                       "Each figure divided by %s's; of GAUC and AUC, less %s's.%s" % (
                           first, first, " Of latencies, less is better." if stage == "infer" else ""),
                       table(keys + ["run"] * has_runs + ["folder"] + headers, rows, len(columns))]
    flag_rows = [(pair.stage, pair.key, pair.other.letter, "; ".join(pair.flags)) for pair in pairs if pair.flags]
    for title, headers, rows in (("Not comparable", ["folder", "%s's and the folder's" % first], flag_rows),
                                 ("Not in every folder", ["where"], lone_rows)):
        if rows:
            blocks += ["## " + title, table(["stage"] + keys + headers, [
                [STAGES[stage]] + _cells(key) + texts for stage, key, *texts in rows])]
    return blocks


def _unknown_flags(pairs):
    """The flags that neither row of one of `pairs` has, since an earlier version made them: {column: None}."""
    return dict.fromkeys(column for pair in pairs for column in FLAGS[pair.stage]
                         if {flag_text(row, column) for row in pair.rows} == {"unknown"})


def _cells(key):
    """The cells of a key, the data set with the mark of a sample."""
    return [key[0], dataset_cell(key[1])] + list(key[2:])
