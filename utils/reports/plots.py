"""The look of the project's plots: legible on paper, on a telephone and to the colour-blind.

Lines differ by colour, by marker and by dash. A plot goes straight into a PNG: no display, no state kept by pyplot.
Letters that matplotlib's font lacks are taken from a font that is installed; those that none has are escaped (\\u4e2d).
"""
import contextlib
import functools
import textwrap

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from utils.reports.names import one_line

# Okabe and Ito's, told apart by the colour-blind, without yellow, which is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
GREY, PALE, THIN = "#666666", 0.2, 0.6  # a colour, of what is no line of a run; an opacity; points
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))  # 7, 8 and 5: the first 280 lines are all different
LOOK = {"figure.dpi": 160, "savefig.bbox": "tight", "savefig.pad_inches": 0.05, "font.size": 9, "axes.titlesize": 9,
        "axes.titlelocation": "left", "axes.axisbelow": True, "axes.grid": True, "grid.color": "#DDDDDD",
        "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.4, "lines.markersize": 5,
        "legend.frameon": False, "legend.handlelength": 4}
FONT = "DejaVu Sans"  # matplotlib brings it along
TAKES_SEVERAL_FONTS = matplotlib.__version_info__ >= (3, 6)  # for the letters of one text


@contextlib.contextmanager
def drawing(file, title, width, height, rows=1, columns=1, **subplots):
    """Yields (figure, axes) to draw on; at the end of the block, writes the PNG into `file`, open for binary writing.

    Args:
      width, height: inches.
      axes: an array [rows, columns]; `subplots` are further arguments of Figure.subplots.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update(LOOK)
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle("\n".join(textwrap.fill(plain(line), int(12 * width)) for line in title.splitlines()),
                        fontsize=10, horizontalalignment="left", x=0.01)
        yield figure, figure.subplots(rows, columns, squeeze=False, **subplots)
        texts = figure.findobj(Text)
        fonts = {_font_with(letter) for text in texts for letter in text.get_text()} - {FONT, None}
        for text in texts if fonts else ():
            text.set_fontfamily([FONT] + sorted(fonts))
        figure.savefig(file, format="png")


def plain(text):
    """`text` as matplotlib shows it letter by letter, taking no part of it for a formula."""
    return "".join(letter if _font_with(letter) else letter.encode("unicode_escape").decode()
                   for letter in one_line(text)).replace("$", r"\$")


@functools.lru_cache(maxsize=None)
def _font_with(letter):
    """The name of the first font that has `letter`, or None: of FONT, then of those that are installed, Sans first."""
    installed = {font.name for font in fontManager.ttflist if not font.fname.startswith(matplotlib.get_data_path())}
    fonts = sorted(installed, key=lambda name: ("Sans" not in name, name)) if TAKES_SEVERAL_FONTS else []
    return next((font for font in [FONT] + fonts if ord(letter) in _letters(font)), None)


@functools.lru_cache(maxsize=None)
def _letters(font):
    """The numbers of the letters that matplotlib can draw in `font`, a name."""
    try:
        return frozenset(FT2Font(fontManager.findfont(FontProperties(family=[font]))).get_charmap())
    except (OSError, RuntimeError):  # it is not there any more, or damaged
        return frozenset()


def style(index):
    """What tells line `index` from the others, a dictionary of arguments for Axes.plot."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)],
            "linestyle": DASHES[index % len(DASHES)]}


def spread(axis, x, summaries, colour, is_band):
    """Draws from the lowest to the highest of `summaries`, `Summary`s at `x`: a pale band, or bars."""
    lowest, highest = ([getattr(each, name) for each in summaries] for name in ("lowest", "highest"))
    if is_band:
        axis.fill_between(x, lowest, highest, color=colour, alpha=PALE, linewidth=0)
    else:
        middle, half = ([(high + sign * low) / 2 for low, high in zip(lowest, highest)] for sign in (1, -1))
        axis.errorbar(x, middle, half, fmt="none", ecolor=colour, elinewidth=1, capsize=3)


def spread_key(label, is_band):
    """What a legend shows of `spread`."""
    return Patch(color=GREY, alpha=PALE, label=label) if is_band else Line2D(
        [], [], color=GREY, linestyle="none", marker="|", markersize=10, label=label)


def thin_key(label):
    """What a legend shows of lines of width THIN."""
    return Line2D([], [], color=GREY, linewidth=THIN, label=label)


def level(axis, y, label, linestyle, linewidth):
    """Draws a grey horizontal line across `axis` and returns it."""
    return axis.axhline(y, color=GREY, linestyle=linestyle, linewidth=linewidth, label=label)


def powers_of_two(axis, low, high, ticks, template):
    """Makes the x axis logarithmic, from `low` to `high`, with `ticks` alone, in the format `template`."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks)
    axis.minorticks_off()
    axis.xaxis.set_major_formatter(template)
    axis.set_xlim(low, high)


def legend(figure, lines):
    """Puts one legend below all panels, of `lines`, artists with a label."""
    labels = [textwrap.fill(plain(line.get_label()), 50) for line in lines]
    columns = max(1, 64 // (10 + max(map(len, labels))))  # as many as a plot of the report is wide
    texts = figure.legend(lines, ["line"] * len(lines), loc="upper center", bbox_to_anchor=(0.5, 0),
                          ncol=min(columns, len(lines))).get_texts()
    for text, label in zip(texts, labels):
        text.set_text(label)  # given above, a label that begins with "_" would be left out
