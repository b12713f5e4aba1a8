"""The look of the project's plots: legible on paper, on a telephone and to the colour-blind.

Lines differ by colour, by marker and by dash. What is drawn goes straight into a PNG: no display, no state kept by pyplot.
"""
import contextlib
import math
import textwrap

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

# Okabe and Ito's, told apart by the colour-blind, without yellow, which is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))  # 7, 8 and 5: the first 280 lines are all different
GRID = "#DDDDDD"
LOOK = {"figure.dpi": 160, "savefig.bbox": "tight", "savefig.pad_inches": 0.05, "font.size": 9, "axes.titlesize": 9,
        "axes.titlelocation": "left", "axes.axisbelow": True, "axes.grid": True, "grid.color": GRID,
        "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.4, "lines.markersize": 5,
        "legend.frameon": False, "legend.handlelength": 4}


@contextlib.contextmanager
def drawing(file, title, width, height, rows=1, columns=1, **subplots):
    """Yields (figure, axes) to draw on; at the end of the block the PNG is written into `file`, open for binary writing.

    Args:
      width, height: inches.
      axes: an array [rows, columns]; `subplots` are further arguments of Figure.subplots.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update(LOOK)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle("\n".join(textwrap.fill(plain(line), int(12 * width)) for line in title.splitlines()),
                        fontsize=10, horizontalalignment="left", x=0.01)
        yield figure, figure.subplots(rows, columns, squeeze=False, **subplots)
        figure.savefig(file, format="png")


def plain(text):
    """`text` as matplotlib shows it letter by letter, taking no part of it for a formula."""
    return "".join(letter if letter.isprintable() else " " for letter in text).replace("$", r"\$")


def style(index):
    """What tells line `index` from the others, a dictionary of arguments for Axes.plot."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)],
            "linestyle": DASHES[index % len(DASHES)]}


def batch_size_axis(axis, sizes, unit):
    """Makes the x axis one of batch sizes, in powers of two, with a tick at each of `sizes`, those really run."""
    sizes = sorted(set(sizes))
    axis.set_xscale("log", base=2)
    axis.set_xlim(sizes[0] / 1.3, sizes[-1] * 1.3)
    axis.xaxis.set_major_locator(FixedLocator(sizes))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if len(sizes) > 6:
        axis.tick_params(axis="x", labelrotation=45)
    axis.set_xlabel("batch size, %s" % unit)


def ratio_axis(axis, largest):
    """Makes the x axis one of ratios up to `largest`, with room for figures beside the points, and as far down from 1."""
    largest = max(1.2, largest ** 1.6)
    axis.set_xscale("log", base=2)
    axis.set_xlim(1 / largest, largest)
    powers = int(math.log(largest, 2))
    steps = [1.1, 1.2] if largest < 1.4 else [1.25, 1.5, 2] if largest < 3 else [
        2.0 ** power for power in range(1, powers + 1, 1 + powers // 4)]
    axis.xaxis.set_major_locator(FixedLocator([1] + steps + [1 / step for step in steps]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))


def difference_axis(axis, largest):
    """Makes the x axis one of differences up to `largest`, with room for figures beside the points, and as far below 0."""
    largest = max(0.0001, 1.8 * largest)
    axis.set_xlim(-largest, largest)
    axis.xaxis.set_major_locator(MaxNLocator(5))


def count_axis(axis, label):
    """Makes the x axis one of numbers that may be long: few ticks, with commas."""
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    axis.set_xlabel(label)


def from_zero(axis, label):
    """Makes the y axis, of what is drawn already, begin at 0."""
    axis.set_ylim(0, 1.05 * axis.dataLim.y1 or 1)
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    axis.set_ylabel(label)


def legend(figure, lines):
    """Puts one legend for all panels below them, of `lines`, what Axes.plot returned."""
    labels = [textwrap.fill(plain(line.get_label()), 50) for line in lines]
    columns = max(1, 64 // (10 + max(map(len, labels))))  # as many as a plot of the report is wide
    texts = figure.legend(lines, ["line"] * len(lines), loc="upper center", bbox_to_anchor=(0.5, 0),
                          ncol=min(columns, len(lines))).get_texts()
    for text, label in zip(texts, labels):
        text.set_text(label)  # given above, a label that begins with "_" would be left out
