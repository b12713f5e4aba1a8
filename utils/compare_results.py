"""Compares folders of results, of different machines or versions: each with the first, row by row.

    python -m utils.compare_results A B [C ...] [--output FOLDER] [--anyway]

For each model, batch size and numbers of accelerators and workers it gives ratios of throughputs and latencies, and differences of GAUC
and AUC. It prints them as tables, and writes comparison.csv, comparison.md (the tables) and comparison.png into the output
folder. Rows that were made from other data or with other flags than the first folder's are listed, with what differs, and not
compared, unless asked for; another device or TensorFlow is what a comparison is for, and shown.
"""
import collections
import contextlib
import csv
import html
import os
import re
import string

from utils.files import ROOT, Parser, UserError, make_folder, replacing, run_main
from utils.report import described, heading, in_order, is_sample
from utils.reports import plots
from utils.results import FLAGS, KEY, csv_name, read_rows, training_of

STAGES = ("train", "infer")
NAMES = {"train": "training", "infer": "inference"}
RATES = ("system_recommendations_per_second", "accelerator_recommendations_per_second")
RATIOS = {"train": RATES, "infer": RATES + ("latency_ms_p50", "latency_ms_p99")}
DIFFERENCES = {"train": ("best_gauc", "best_auc", "final_gauc", "final_auc"), "infer": ("gauc", "auc")}
OUTPUT_COLUMNS = ("stage",) + KEY + ("column", "first", "first_value", "other", "other_value", "ratio", "difference", "flags")
OUTPUT = os.path.join(ROOT, "comparison")
OUTPUT_NAME = "comparison"  # .csv, .md and .png

Folder = collections.namedtuple("Folder", "letter path rows")
Folder.__doc__ = "A folder of results: what the tables call it, A the first; its path; its rows, dictionaries by stage."

Pair = collections.namedtuple("Pair", "stage other first_row row flags")
Pair.__doc__ = """A row of the first folder, the row of another that has its key, and a text for each reason, `flags`, why the
two are not comparable."""


# ---- what is compared ------------------------------------------------------------------------------------------------

def read_folders(paths):
    """Returns the Folders at `paths`.

    Raises:
      UserError: one of them holds no results, or can't be read, or is there twice.
    """
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise UserError("the same folder is given twice; name different folders")
    if len(paths) > len(string.ascii_uppercase):
        raise UserError("%d folders are more than %d; name fewer" % (len(paths), len(string.ascii_uppercase)))
    folders = []
    for letter, path in zip(string.ascii_uppercase, paths):
        if not os.path.isdir(path):
            raise UserError("there is no folder %s; name folders with %s or %s"
                            % (path, csv_name("train"), csv_name("infer")))
        rows = {stage: read_rows(path, stage) for stage in STAGES}
        if not any(rows.values()):
            raise UserError("there are no results in %s; name folders with %s or %s"
                            % (path, csv_name("train"), csv_name("infer")))
        for stage in STAGES:
            if len({key_of(row) for row in rows[stage]}) < len(rows[stage]):
                raise UserError("%s has two rows of the same model, data set, batch size and numbers of accelerators and "
                                "workers; leave one" % os.path.join(path, csv_name(stage)))
        folders.append(Folder(letter, path, rows))
    return folders


def key_of(row):
    return tuple(row[column] for column in KEY)


def differences(first, other, columns, whose=""):
    """A text for each of `columns` in which the rows `first` and `other` differ."""
    return ["%s%s %s and %s" % (whose, heading(column), first[column], other[column])
            for column in columns if first[column] != other[column]]


def reasons(stage, first, first_row, other, row):
    """Why a row of the Folder `first` and one of the Folder `other` are not comparable: texts, none where they are."""
    if stage == "train":
        return differences(first_row, row, FLAGS + ("steps", "recommendations"))
    found = differences(first_row, row, ("recommendations",))
    trained = [training_of(*pair) for pair in ((first_row, first.rows["train"]), (row, other.rows["train"]))]
    if all(trained):
        return found + differences(*trained, columns=FLAGS + ("steps",), whose="trained with ")
    return found


def compare(folders):
    """Returns (pairs, lone): the Pairs of each folder's rows with the first's, and the rows that others lack.

    `lone` has (stage, key, text) for each: the text says which folders have it, and which have it on other data.
    """
    first = folders[0]
    pairs, lone = [], []
    for stage in STAGES:
        by_key = [{key_of(row): row for row in folder.rows[stage]} for folder in folders]
        keys = list(dict.fromkeys(key for rows in by_key for key in rows))
        models = in_order(key[0] for key in keys)
        for key in sorted(keys, key=lambda key: (key[1], models.index(key[0]), [float(figure) for figure in key[2:]])):
            having = [folder for folder, rows in zip(folders, by_key) if key in rows]
            if len(having) < len(folders):
                texts = ["only in " + " and ".join(folder.letter for folder in having)]
                lone.append((stage, key, "; ".join(texts + [
                    "%s has it on %s" % (folder.letter, other[1]) for folder, rows in zip(folders, by_key)
                    if folder not in having for other in rows if other[:1] + other[2:] == key[:1] + key[2:]])))
            if first in having:
                pairs += [Pair(stage, other, by_key[0][key], rows[key],
                               reasons(stage, first, by_key[0][key], other, rows[key]))
                          for other, rows in zip(folders[1:], by_key[1:]) if key in rows]
    return pairs, lone


def ratio(pair, column):
    """The other row's figure over the first's; None where one of them is next to nothing."""
    first, other = float(pair.first_row[column]), float(pair.row[column])
    return other / first if min(first, other) > 1e-9 else None


def difference(pair, column):
    """The other row's figure minus the first's."""
    return float(pair.row[column]) - float(pair.first_row[column])


# ---- how it is shown -------------------------------------------------------------------------------------------------

def cell(text):
    """`text` as a cell of a Markdown table, on one line, that shows it letter by letter."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return re.sub(r"([\\|*`\[\]])", r"\\\1", html.escape(text, quote=False))


def table(headers, rows, left):
    """The lines of a Markdown table whose columns are aligned; the first `left` hold texts, the others figures."""
    rows = [[cell(text) for text in row] for row in [headers] + rows]
    widths = [max(3, *(len(row[index]) for row in rows)) for index in range(len(headers))]
    lines = ["| %s |" % " | ".join(text.ljust(width) if index < left else text.rjust(width)
                                   for index, (text, width) in enumerate(zip(row, widths))) for row in rows]
    rule = "|%s|" % "|".join("-" * (width + 1) + ("-" if index < left else ":") for index, width in enumerate(widths))
    return [lines[0], rule] + lines[1:]


def key_cells(key):
    """The cells of a key: model, data set with the mark of a sample, batch size, numbers of accelerators and workers."""
    return [key[0], key[1] + (" (generated)" if is_sample(key[1]) else "")] + list(key[2:])


def shown_ratio(value):
    """A ratio with three digits, or a dash for None."""
    if value is None:
        return "-"
    return ("%.0f" if value >= 100 else "%.2f" if value >= 1 else "%.3f" if value >= 0.1 else "%.3g") % value


def shown_folder(pair):
    """What the tables call the other folder of a Pair, with a mark where the two rows are not comparable."""
    return pair.other.letter + (" (not comparable)" if pair.flags else "")


def markdown(folders, shown, pairs, lone):
    """The lines of the comparison, as Markdown; `shown` are those of the Pairs that are compared."""
    base = folders[0].letter
    keys = [heading(column) for column in KEY]
    machines = [[folder.letter, folder.path, device, tensorflow] for folder in folders for device, tensorflow in sorted(
        {(row["device"], row["tensorflow"]) for stage in STAGES for row in folder.rows[stage]})]
    lines = ["# Comparison of results", ""] + table(["", "folder", "device", "TensorFlow"], machines, 4)
    for stage in STAGES:
        rows = [key_cells(key_of(pair.row)) + [shown_folder(pair)]
                + [shown_ratio(ratio(pair, column)) for column in RATIOS[stage]]
                + ["%+.6f" % difference(pair, column) for column in DIFFERENCES[stage]]
                for pair in shown if pair.stage == stage]
        if rows:
            columns = [heading(column) for column in RATIOS[stage]]
            columns += [heading(column) + " difference" for column in DIFFERENCES[stage]]
            latency = " Of latencies, less is better." if stage == "infer" else ""
            lines += ["", "## %s, ratios to %s" % (NAMES[stage].capitalize(), base), "",
                      "Each figure divided by %s's; of GAUC and AUC, less %s's.%s" % (base, base, latency), ""]
            lines += table(keys + ["folder"] + columns, rows, len(KEY) + 1)
    flagged = [[NAMES[pair.stage]] + key_cells(key_of(pair.row)) + [pair.other.letter, "; ".join(pair.flags)]
               for pair in pairs if pair.flags]
    if flagged:
        lines += ["", "## Not comparable", ""]
        lines += table(["stage"] + keys + ["folder", "%s's and the folder's" % base], flagged, len(KEY) + 3)
    if lone:
        lines += ["", "## Not in every folder", ""]
        lines += table(["stage"] + keys + ["where"], [[NAMES[stage]] + key_cells(key) + [text] for stage, key, text in lone],
                       len(KEY) + 2)
    return lines


def csv_rows(folders, shown, pairs):
    """Yields the rows of comparison.csv: one for each figure that two folders both have."""
    for pair in pairs:
        for column in RATIOS[pair.stage] + DIFFERENCES[pair.stage]:
            name, compute = ("ratio", ratio) if column in RATIOS[pair.stage] else ("difference", difference)
            value = compute(pair, column) if pair in shown else None
            row = dict(zip(KEY, key_of(pair.row)), stage=pair.stage, column=column, first=folders[0].path, ratio="",
                       first_value=pair.first_row[column], other=pair.other.path, other_value=pair.row[column],
                       difference="", flags="; ".join(pair.flags))
            row[name] = "" if value is None else "%.6g" % value
            yield row


def plot(file, folders, shown):
    """Draws the ratios, and the differences of GAUC, of the Pairs `shown`: a panel for each column, into a PNG."""
    panels = [(stage, column) for stage in STAGES if any(pair.stage == stage for pair in shown)
              for column in RATIOS[stage] + DIFFERENCES[stage][:1]]
    longest = max(len({key_of(pair.row) for pair in shown if pair.stage == stage}) for stage in STAGES)
    height = 0.8 + 0.17 * longest * max(1.5, len(folders) - 1)  # inches of a panel
    rows = -(-len(panels) // 2)
    datasets = sorted({pair.row["dataset"] for pair in shown})
    title = ["%s: %s" % (folder.letter, folder.path) for folder in folders] + [", ".join(map(described, datasets))]
    with plots.drawing(file, "\n".join(title), 9.6, 0.2 * len(title) + height * rows, rows, 2) as (figure, axes):
        for axis, (stage, column) in zip(axes.flat, panels):
            lines = _panel(axis, folders, stage, column, [pair for pair in shown if pair.stage == stage], len(datasets) > 1)
        for axis in axes.flat[len(panels):]:
            axis.remove()
        plots.legend(figure, lines)


def _panel(axis, folders, stage, column, pairs, name_datasets):
    """Draws one column: a row for each key, in it a point for each other folder with its figure beside.

    Returns a line of matplotlib's for each other folder.
    """
    is_ratio = column in RATIOS[stage]
    middle, compute, shown = (1, ratio, shown_ratio) if is_ratio else (0, difference, "{:+.4f}".format)
    keys = list(dict.fromkeys(key_of(pair.row) for pair in pairs))
    lines, values = [], [middle]
    for index, folder in enumerate(folders[1:]):
        style = dict(plots.style(index), linestyle="none")
        lines += axis.plot([], [], label="%s, compared with %s" % (folder.letter, folders[0].letter), **style)
        for pair in pairs:
            value = compute(pair, column)
            if pair.other is folder and value is not None:
                height = keys.index(key_of(pair.row)) + (index + 0.5) / (len(folders) - 1) - 0.5
                side = 1 if value >= middle else -1
                axis.plot([value], [height], **style)
                axis.hlines(height, middle, value, color=style["color"], linewidth=1)
                axis.annotate(shown(value), (value, height), fontsize=8, xytext=(6 * side, 0), textcoords="offset points",
                              verticalalignment="center", horizontalalignment="left" if side > 0 else "right")
                values.append(value)
    axis.axvline(middle, color="#000000", linewidth=0.8)
    axis.set_ylim(len(keys) - 0.5, -0.5)
    axis.set_yticks(range(len(keys)))
    axis.set_yticklabels([plots.plain(run_name(key, name_datasets)) for key in keys])
    axis.set_title("%s: %s" % (NAMES[stage], heading(column)))
    axis.set_xlabel("%s %s, %s is better" % ("ratio to" if is_ratio else "difference from", folders[0].letter,
                                             "less" if "latency" in column else "more"))
    if is_ratio:
        plots.ratio_axis(axis, max(max(value, 1 / value) for value in values))
    else:
        plots.difference_axis(axis, max(map(abs, values)))
    return lines


def run_name(key, name_dataset):
    """What a plot calls a row: model, batch size, accelerators and workers if several, and the data set if asked for."""
    model, dataset, batch_size, accelerators, workers = key
    return "%s, %s%s%s%s" % (model, batch_size, "" if accelerators == "1" else " x " + accelerators,
                             "" if workers == "1" else " x %s workers" % workers, ", " + dataset if name_dataset else "")


def write(output, folders, shown, pairs, lines):
    """Writes comparison.csv, comparison.md and comparison.png into the folder `output`."""
    make_folder(output)
    path = os.path.join(output, OUTPUT_NAME)
    with replacing(path + ".csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, OUTPUT_COLUMNS)
        writer.writeheader()
        writer.writerows(csv_rows(folders, shown, pairs))
    if shown:
        with replacing(path + ".png") as file:
            plot(file, folders, shown)
        lines = lines + ["", "![Ratios and differences, as in the tables](%s.png)" % OUTPUT_NAME]
    else:
        with contextlib.suppress(FileNotFoundError):  # of an earlier comparison
            os.remove(path + ".png")
    with replacing(path + ".md", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def main():
    parser = Parser(prog="python -m utils.compare_results", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of results, two or more; the first is compared with")
    parser.add_argument("--output", default=OUTPUT, help="folder of the tables and the plot (default: %(default)s)")
    parser.add_argument("--anyway", action="store_true", help="compare rows that are not comparable, too, with a mark")
    arguments = parser.parse_args()
    if len(arguments.folders) < 2:
        raise UserError("there is one folder; name two or more to compare")
    folders = read_folders(arguments.folders)
    pairs, lone = compare(folders)
    shown = [pair for pair in pairs if arguments.anyway or not pair.flags]
    lines = markdown(folders, shown, pairs, lone)
    write(arguments.output, folders, shown, pairs, lines)
    print("\n".join(lines + ["", "Written to %s" % os.path.relpath(arguments.output)]))


if __name__ == "__main__":
    run_main(main)
