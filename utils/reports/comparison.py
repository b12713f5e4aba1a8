"""The comparison of folders of results: pairs of rows, and their tables in Markdown and CSV."""
import html
import os
import re
import string
import typing

from utils.files import UserError
from utils.reports.names import heading, is_sample, model_order
from utils.results import FLAGS, KEY, RATES, csv_name, key_of, read_rows, training_of

STAGES = {"train": "training", "infer": "inference"}
RATIOS = {"train": RATES, "infer": RATES + ("latency_ms_p50", "latency_ms_p99")}
DIFFERENCES = {"train": ("best_gauc", "best_auc", "final_gauc", "final_auc"), "infer": ("gauc", "auc")}
CSV_COLUMNS = ("stage",) + KEY + (
    "column", "first", "first_value", "other", "other_value", "ratio", "difference", "flags")


class Folder(typing.NamedTuple):
    """A folder of results."""
    letter: str  # what the tables call it, A the first
    path: str
    rows: dict   # {stage: {key: row}}


class Pair(typing.NamedTuple):
    """A row of the first folder, and the row of another folder that has its key."""
    stage: str
    key: tuple
    first: Folder
    other: Folder
    flags: list        # texts: why the two are not comparable
    is_compared: bool  # as are all without flags, the others where that is asked for

    def texts(self, column):
        """The two figures of a column, as the CSVs have them."""
        return [folder.rows[self.stage][self.key][column] for folder in (self.first, self.other)]

    def figure(self, column):
        """The other figure minus the first for DIFFERENCES, else over the first, or None where one is next to 0."""
        first, other = map(float, self.texts(column))
        if column in DIFFERENCES[self.stage]:
            return other - first
        return other / first if min(first, other) > 1e-9 else None

    def cell(self, column, decimals=6):
        """`figure` as a text: a difference with sign and `decimals`, a ratio with three digits, a dash for None."""
        value = self.figure(column)
        if column in DIFFERENCES[self.stage]:
            return "%+.*f" % (decimals, value)
        if value is None:
            return "-"
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
        folders.append(Folder(letter, path, {stage: {key_of(row): row for row in rows[stage]} for stage in STAGES}))
        for stage in STAGES:
            if len(folders[-1].rows[stage]) < len(rows[stage]):
                raise UserError("%s has two rows of the same model, data set, batch size and numbers of accelerators "
                                "and workers; leave one" % os.path.join(path, csv_name(stage)))
    return folders


def compare(folders, anyway):
    """Returns (pairs, lone_rows): the Pairs of each folder's rows with the first's, and the rows that a folder lacks.

    `lone_rows` has (stage, key, text) for each: the text says which folders have it, and which have it on other data.
    With `anyway`, rows that are not comparable are compared, too.
    """
    pairs, lone_rows = [], []
    for stage in STAGES:
        keys = dict.fromkeys(key for folder in folders for key in folder.rows[stage])
        for key in sorted(keys, key=lambda key: (key[1], model_order(key[0]), list(map(float, key[2:])))):
            owners = [folder for folder in folders if key in folder.rows[stage]]
            if owners[0] is folders[0]:
                for other in owners[1:]:
                    flags = _flags(stage, key, folders[0], other)
                    pairs.append(Pair(stage, key, folders[0], other, flags, anyway or not flags))
            if len(owners) < len(folders):
                texts = ["only in " + " and ".join(folder.letter for folder in owners)]
                texts += ["%s has it on %s" % (folder.letter, other[1]) for folder in folders if folder not in owners
                          for other in folder.rows[stage] if other[:1] + other[2:] == key[:1] + key[2:]]
                lone_rows.append((stage, key, "; ".join(texts)))
    return pairs, lone_rows


def _flags(stage, key, *folders):
    """Why the rows of a key in two Folders are not comparable: texts, none where they are."""
    rows = [folder.rows[stage][key] for folder in folders]
    if stage == "train":
        checks = [("", FLAGS + ("steps", "recommendations"), rows)]
    else:
        checks = [("", ("recommendations",), rows)]
        trainings = [training_of(row, folder.rows["train"].values()) for row, folder in zip(rows, folders)]
        if all(trainings):
            checks.append(("trained with ", FLAGS + ("steps",), trainings))
    return ["%s%s %s and %s" % (prefix, heading(column), first[column], other[column])
            for prefix, columns, (first, other) in checks for column in columns if first[column] != other[column]]


def csv_rows(pairs):
    """Yields a row of CSV_COLUMNS for each figure of `pairs`."""
    for pair in pairs:
        for column in RATIOS[pair.stage] + DIFFERENCES[pair.stage]:
            value = pair.figure(column) if pair.is_compared else None
            row = dict(zip(KEY, pair.key), stage=pair.stage, column=column, flags="; ".join(pair.flags))
            row.update(first=pair.first.path, other=pair.other.path)
            row["first_value"], row["other_value"] = pair.texts(column)
            if value is not None:
                row["ratio" if column in RATIOS[pair.stage] else "difference"] = "%.6g" % value
            yield row


def markdown(folders, pairs, lone_rows):
    """The comparison in Markdown: a list of headings, sentences and tables."""
    first = folders[0].letter
    machines = [[folder.letter, folder.path, *machine] for folder in folders for machine in sorted(
        {(row["device"], row["tensorflow"]) for rows in folder.rows.values() for row in rows.values()})]
    blocks = ["# Comparison of results", _table(["", "folder", "device", "TensorFlow"], machines)]
    keys = list(map(heading, KEY))
    for stage, name in STAGES.items():
        columns = RATIOS[stage] + DIFFERENCES[stage]
        rows = [_cells(pair.key) + [pair.other.letter + (" (not comparable)" if pair.flags else "")]
                + [pair.cell(column) for column in columns]
                for pair in pairs if pair.stage == stage and pair.is_compared]
        if rows:
            headers = [heading(column) + " difference" * (column in DIFFERENCES[stage]) for column in columns]
            blocks += ["## %s, ratios to %s" % (name.capitalize(), first),
                       "Each figure divided by %s's; of GAUC and AUC, less %s's.%s" % (
                           first, first, " Of latencies, less is better." if stage == "infer" else ""),
                       _table(keys + ["folder"] + headers, rows, len(columns))]
    flag_rows = [(pair.stage, pair.key, pair.other.letter, "; ".join(pair.flags)) for pair in pairs if pair.flags]
    for title, headers, rows in (("Not comparable", ["folder", "%s's and the folder's" % first], flag_rows),
                                 ("Not in every folder", ["where"], lone_rows)):
        if rows:
            blocks += ["## " + title, _table(["stage"] + keys + headers, [
                [STAGES[stage]] + _cells(key) + texts for stage, key, *texts in rows])]
    return blocks


def _cells(key):
    """The cells of a key, the data set with the mark of a sample."""
    return [key[0], key[1] + (" (generated)" if is_sample(key[1]) else "")] + list(key[2:])


def _table(headers, rows, figures=0):
    """A Markdown table whose columns are aligned, the last `figures` columns to the right."""
    columns = []
    for index, texts in enumerate(zip(headers, *rows)):
        texts = ["".join(letter if letter.isprintable() else " " for letter in text) for text in texts]
        cells = [re.sub(r"([\\|*`\[\]])", r"\\\1", html.escape(text, quote=False)) for text in texts]
        width = max(3, *map(len, cells))
        align, end = (str.ljust, "-") if index < len(headers) - figures else (str.rjust, ":")
        header, *cells = [" %s " % align(cell, width) for cell in cells]
        columns.append([header, "-" * (width + 1) + end] + cells)
    return "\n".join("|%s|" % "|".join(line) for line in zip(*columns))
