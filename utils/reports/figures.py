"""The plots of a report, against batch size and during training, and of a comparison, ratios and differences."""
import collections
import io
import math
import re
import typing

from matplotlib.ticker import MaxNLocator

from utils.reports import plots
from utils.reports.names import dataset_label, heading, kinds_of, machines_of, model_order
from utils.reports.pairs import DIFFERENCES, RATIOS, STAGES
from utils.reports.seeds import seed_groups
from utils.reports.statistics import summary
from utils.reports.verdicts import INTERVAL
from utils.results import RATES, flag_text

WIDTH, HEIGHT = 4.8, 2.7  # inches, of a panel: the letters can be read where a plot fills the width of a telephone
MAX_MARKERS = 12  # of a curve
SHIFT, MAX_SHIFT = 0.03, 0.4  # octaves: from one line with bars to the next at a batch size, and of all together
OVER_SEEDS = "mean of %d seeds, lowest to highest"
NUMBER = "{x:,.10g}"  # a tick's format

# The panels of a plot: (title, column) of each; of curves, (column, label).
THROUGHPUT_PANELS = (("system: wall clock of the whole script", RATES[0]),
                     ("accelerator: inside the session's calls", RATES[1]),
                     ("steady: the median over steps, warm-up left out", RATES[2]))
LATENCY_PANELS = (("p50: half of the batches take less", "latency_ms_p50"),
                  ("p99: one batch in 100 takes longer", "latency_ms_p99"))
CURVE_PANELS = (("step", "step"), ("seconds", "seconds since the start of training, evaluations included"))


class Plot(typing.NamedTuple):
    """A plot of the report."""
    name: str   # its file's, without the data set and .png
    title: str  # what it shows
    png: bytes


def plots_of(results):
    """Yields the Plots of one data set, whose rows by stage are `results`."""
    if results["train"]:
        yield _against_batch_size("throughput_training", "Training throughput", results, "train", THROUGHPUT_PANELS,
                                  "recommendations per second", "recommendations per accelerator")
    if results["infer"]:
        yield _against_batch_size("throughput_inference", "Inference throughput", results, "infer", THROUGHPUT_PANELS,
                                  "recommendations per second", "users per accelerator")
        yield _against_batch_size("latency", "Inference latency", results, "infer", LATENCY_PANELS,
                                  "milliseconds per batch", "users per accelerator")
    yield from learning_curves(results["curves"])


class Line(typing.NamedTuple):
    """A line of a plot."""
    label: str
    groups: list  # the SeedGroups that it joins, all of the same seeds; none where the plot lacks the line

    @property
    def seeds(self):
        """How many seeds it is the mean of; 0 where the plot lacks it."""
        return len(self.groups[0].runs) if self.groups else 0

    def tails(self, place):
        """The rows of each run that went on when another seed had ended, lists; `place` is SeedGroup's column."""
        return [tail for group in self.groups for tail in group.tails(place)]


def _against_batch_size(name, subject, results, stage, panels, label, unit):
    """A Plot of columns against batch size: a line for each model and kind of run.

    Of several seeds it shows the mean, with bars from the lowest to the highest, and the lines side by side, or their
    bars would hide each other.
    """
    rows, lines = results[stage], collections.defaultdict(list)
    groups = seed_groups(rows, stage)
    for group, kind in zip(groups, kinds_of([group.row for group in groups], stage)):
        lines[group.row["model"], kind].append(group)
    lines = [Line(", ".join(filter(None, line)), sorted(lines[line], key=lambda group: float(group.row["batch_size"])))
             for line in sorted(lines, key=lambda line: (model_order(line[0]), line[1]))]
    panels = [panel for panel in panels if any(row[panel[1]] for row in rows)]
    sizes, drawn = sorted({float(row["batch_size"]) for row in rows}), {}
    image, title = io.BytesIO(), _title(subject, rows)
    with plots.drawing(image, title, WIDTH, HEIGHT * len(panels), len(panels), sharex=True) as (figure, axes):
        for axis, (title, column) in zip(axes[:, 0], panels):
            drawn.update(_draw(axis, lines, "batch_size", "batch_size", column))
            axis.set(title=title, ylabel=label, ylim=(0, 1.05 * axis.dataLim.y1 or 1))
            axis.yaxis.set_major_formatter(NUMBER)
        plots.powers_of_two(axis, sizes[0] / 1.3, sizes[-1] * 1.3, sizes, "{x:,.0f}")
        axis.tick_params(axis="x", labelrotation=45 if len(sizes) > 6 else 0)
        axis.set_xlabel("batch size, %s" % unit)
        plots.legend(figure, _keys(drawn, lines))
    return Plot(name, subject, image.getvalue())


def learning_curves(rows):
    """Yields Plots of GAUC: one for each batch size with a line for each model; or the reverse, if that is fewer.

    Runs of one model and batch size that were made otherwise have lines of their own; runs that differ in their seed
    alone are one line. Runs that were evaluated on another set than the test set are in plots of their own.
    """
    rows_by_set = collections.defaultdict(list)
    for row in sorted(rows, key=lambda row: float(row["step"])):
        rows_by_set[flag_text(row, "selected_on")].append(row)
    for evaluated_on in sorted(rows_by_set, key=lambda name: (name != "test", name)):
        yield from _curves_of_set(evaluated_on, rows_by_set[evaluated_on])


def _curves_of_set(evaluated_on, rows):
    """Yields the Plots of runs that were evaluated on one set, of their `rows` in order of steps."""
    runs, orders, split = {}, {}, ("num_accelerators", "num_workers")
    groups = seed_groups(rows, "curves")
    for group, kind in zip(groups, kinds_of([group.row for group in groups], "curves", besides=split)):
        size = group.row["batch_size"] + "".join(" x %s %s" % (group.row[column], heading(column))
                                                 for column in split if group.row[column] != "1")
        line = ", ".join(filter(None, (group.row["model"], kind)))
        orders[line] = model_order(group.row["model"]), line
        runs[line, size] = [group]
    models = sorted(orders, key=orders.get)
    sizes = sorted({size for _, size in runs}, key=lambda size: (list(map(int, re.findall(r"\d+", size))), size))
    if len(models) >= len(sizes):
        for size in sizes:
            yield _curves(evaluated_on, "batch_" + size, "batch size " + size, [
                Line(model, runs.get((model, size), [])) for model in models])
    else:
        for model in models:
            yield _curves(evaluated_on, model, model + ", by batch size", [
                Line(size, runs.get((model, size), [])) for size in sizes])


def _curves(evaluated_on, name, subject, lines):
    """A Plot of GAUC against step and seconds.

    Of several seeds it shows the mean at each evaluation that all of them had, against seconds at the mean of their
    seconds, in a band from the lowest to the highest. Where one has ended, those that go on are thin lines.
    Grey lines say what item popularity alone gives, and the target where all lines have the same one.
    """
    is_test, image = evaluated_on == "test", io.BytesIO()
    name = "gauc_%s%s" % ("" if is_test else evaluated_on + "_", name)
    subject = "GAUC %sduring training, %s" % ("" if is_test else "on %s " % evaluated_on, subject)
    rows = [row for line in lines for group in line.groups for row in group.rows]
    with plots.drawing(image, _title(subject, rows), WIDTH, 2 * HEIGHT, len(CURVE_PANELS), sharey=True) as (
            figure, axes):
        for axis, (column, label) in zip(axes[:, 0], CURVE_PANELS):
            drawn = _draw(axis, lines, "step", column, "gauc", MAX_MARKERS)
            levels = _levels(axis, rows)
            axis.xaxis.set_major_locator(MaxNLocator(5))
            axis.xaxis.set_major_formatter(NUMBER)
            axis.set(xlabel=label, ylabel=plots.plain("GAUC on the %s set" % evaluated_on))
        plots.legend(figure, _keys(drawn, lines, "step") + levels)
    return Plot(name, subject, image.getvalue())


def _levels(axis, rows):
    """Draws what popularity alone gives, of each of the data that `rows` are of, and their target if they share one.

    Returns the lines that belong in the legend.
    """
    floors = [plots.level(axis, float(text), "item popularity alone", "--", 1.2)
              for text in dict.fromkeys(row["popularity_gauc"] for row in rows) if text]
    targets = {float(row["target_gauc"] or 0) for row in rows}
    target = targets.pop()
    if targets or not target:
        return floors[:1]
    return floors[:1] + [plots.level(axis, target, "target GAUC %g" % target, ":", 0.9)]


def _title(subject, rows):
    """The title of a plot: what it shows, the data set, machines and versions of TensorFlow."""
    machines = machines_of(rows)
    return "\n".join([subject, dataset_label(rows[0]["dataset"])] + machines[:3] + ["and others"] * (len(machines) > 3))


def _draw(axis, lines, place, x, y, max_markers=None):
    """Draws column `y` against column `x`, over several seeds the mean and the spread at each value of column `place`.

    With `max_markers` the lines are curves: they have no more markers, and the spread is a band; else it is bars. Runs
    that lack the figure are left out. Returns {index of a line: what was drawn of it}.
    """
    drawn, has_bars = {}, not max_markers and any(line.seeds > 1 for line in lines)
    for index, line in enumerate(lines):
        places = [[row for row in rows if row[y]] for group in line.groups for rows in group.places(place)]
        places = [rows for rows in places if rows]
        if not places:
            continue
        shift = 2 ** ((index - (len(lines) - 1) / 2) * min(SHIFT, MAX_SHIFT / len(lines))) if has_bars else 1
        at, figures = ([summary([float(row[column]) for row in rows]) for rows in places] for column in (x, y))
        xs, style = [each.mean * shift for each in at], plots.style(index)
        drawn[index], = axis.plot(xs, [each.mean for each in figures], label=_label(line, lines),
                                  markevery=max_markers and -(-len(xs) // max_markers), **style)
        if line.seeds > 1:
            plots.spread(axis, xs, figures, style["color"], is_band=bool(max_markers))
        for tail in line.tails(place):
            axis.plot([float(row[x]) for row in tail], [float(row[y]) for row in tail], label="",
                      color=style["color"], linewidth=plots.THIN)
    return drawn


def _keys(drawn, lines, curves_place=None):
    """What the legend shows of `lines`, in their order, of which `drawn` is what `_draw` returned.

    Curves have tails after the last of their places, values of the column `curves_place`.
    """
    keys, seeds = [drawn[index] for index in sorted(drawn)], _shared_seeds(lines)
    if seeds:
        keys.append(plots.spread_key(OVER_SEEDS % seeds, is_band=bool(curves_place)))
    if curves_place and any(line.tails(curves_place) for line in lines):
        keys.append(plots.thin_key("seeds that went on when another had ended"))
    return keys


def _label(line, lines):
    """What the legend calls a line; of several seeds it says so, unless it says so of all `lines` in one entry."""
    return line.label + (", " + OVER_SEEDS % line.seeds if line.seeds > 1 and not _shared_seeds(lines) else "")


def _shared_seeds(lines):
    """How many seeds each of `lines` is the mean of, where they are several and of all lines as many; else None."""
    counts = {line.seeds for line in lines if line.seeds}
    return counts.pop() if len(counts) == 1 and counts != {1} else None


def comparison_plot(file, folders, pairs):
    """Draws what is compared into a PNG: a panel for each ratio, and for the first difference of GAUC."""
    pairs = [pair for pair in pairs if pair.is_compared]
    by_stage = {stage: [pair for pair in pairs if pair.stage == stage] for stage in STAGES}
    panels = [(stage, column) for stage in STAGES if by_stage[stage]
              for column in RATIOS[stage] + DIFFERENCES[stage][:1]]
    max_keys = max(len({pair.key for pair in stage_pairs}) for stage_pairs in by_stage.values())
    rows = -(-len(panels) // 2)
    height = rows * (0.8 + 0.17 * max_keys * max(1.5, len(folders) - 1))
    datasets = sorted({pair.key[1] for pair in pairs})
    title = ["%s: %s" % (folder.letter, folder.label) for folder in folders] + [", ".join(map(dataset_label, datasets))]
    with plots.drawing(file, "\n".join(title), 9.6, 0.2 * len(title) + height, rows, 2) as (figure, axes):
        for axis, (stage, column) in zip(axes.flat, panels):
            _panel(axis, folders, stage, column, by_stage[stage], len(datasets) > 1)
        for axis in axes.flat[len(panels):]:
            axis.remove()
        plots.legend(figure, axes[0, 0].get_lines()[:-1])  # the last is the line in the middle


def _panel(axis, folders, stage, column, pairs, name_datasets):
    """Draws one column: a row for each key, in it a point for each other folder with its figure beside."""
    first, is_ratio = folders[0].letter, column in RATIOS[stage]
    middle = 1 if is_ratio else 0
    keys = list(dict.fromkeys(pair.key for pair in pairs))
    pairs = [pair for pair in pairs if pair.figure(column) is not None]
    values = [pair.figure(column) for pair in pairs]
    bounds = [bound for pair in pairs for bound in pair.bounds(column)]
    for index, folder in enumerate(folders[1:]):
        offset = (index + 0.5) / (len(folders) - 1) - 0.5
        points = [(pair, value, keys.index(pair.key) + offset) for pair, value in zip(pairs, values)
                  if pair.other.folder is folder]
        style = plots.style(index)
        axis.plot([value for _, value, _ in points], [height for _, _, height in points],
                  label="%s, compared with %s" % (folder.letter, first), **dict(style, linestyle="none"))
        for pair, value, height in points:
            side = 1 if value >= middle else -1
            axis.hlines(height, middle, value, color=style["color"], linewidth=1)
            if pair.bounds(column):
                axis.hlines(height, *pair.bounds(column), color=style["color"], linewidth=8, alpha=0.25)
            axis.annotate(pair.cell(column, decimals=4), (value, height), fontsize=8, xytext=(6 * side, 0),
                          textcoords="offset points", verticalalignment="center",
                          horizontalalignment="left" if side > 0 else "right")
    axis.axvline(middle, color="#000000", linewidth=0.8)
    axis.set(ylim=(len(keys) - 0.5, -0.5), yticks=range(len(keys)),
             title="%s: %s%s" % (STAGES[stage], heading(column), ", with its " + INTERVAL if bounds else ""),
             yticklabels=[plots.plain(_run_name(key, name_datasets)) for key in keys],
             xlabel="%s %s, %s is better" % ("ratio to" if is_ratio else "difference from", first,
                                             "less" if "latency" in column else "more"))
    # The x axis goes as far down as up, and has room for the figures beside the points.
    if is_ratio:
        largest = max([1.2] + [max(value, 1 / value) ** 1.6 for value in values])
        powers = int(math.log(largest, 2))
        ticks = [1.1, 1.2] if largest < 1.4 else [1.25, 1.5, 2] if largest < 3 else [
            2.0 ** power for power in range(1, powers + 1, 1 + powers // 4)]
        plots.powers_of_two(axis, 1 / largest, largest, [1] + ticks + [1 / tick for tick in ticks], "{x:.3g}")
    else:
        largest = max([0.0001] + [1.8 * abs(value) for value in values] + [1.1 * abs(bound) for bound in bounds])
        axis.set_xlim(-largest, largest)
        axis.xaxis.set_major_locator(MaxNLocator(5))


def _run_name(key, name_dataset):
    """What a plot calls a row: model, batch size, accelerators and workers if several, the data set if asked for."""
    model, dataset, batch_size, accelerators, workers = key
    return "%s, %s%s%s%s" % (
        model, batch_size, "" if accelerators == "1" else " x " + accelerators,
        "" if workers == "1" else " x %s workers" % workers, ", " + dataset if name_dataset else "")
