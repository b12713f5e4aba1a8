"""What the benchmarks' commands share: their arguments, and the table that they print."""
import json
import string
import sys

import numpy as np

from utils import models
from utils.commands import at_least, positive_float
from utils.files import Parser, UserError


def make_parser(name, description):
    """A parser with the arguments that benchmarks.train and benchmarks.infer share."""
    parser = Parser(prog="python -m benchmarks.%s" % name, description=description)
    parser.add_argument("--data", default="small", help="small or full: the generated sample, made where it is not "
                        "there yet; or a dataset.pkl, or the folder of one (default: %(default)s)")
    parser.add_argument("--model", choices=models.names(), default="din", help="default: %(default)s")
    parser.add_argument("--batch_sizes", type=at_least(1), nargs="+", default=[32, 256, 1024], metavar="SIZE",
                        help="default: 32 256 1024")
    parser.add_argument("--rounds", type=at_least(1), default=5,
                        help="how often the sides alternate (default: %(default)s)")
    parser.add_argument("--seconds", type=positive_float, default=2.0,
                        help="of each side in a round, about (default: %(default)s)")
    parser.add_argument("--ours_only", action="store_true", help="leave out the padded sides and the ratios to them, "
                        "as for a model that benchmarks/padded.py does not have")
    add_common_arguments(parser)
    return parser


def add_common_arguments(parser):
    """Adds the arguments that every benchmark of the models has."""
    parser.add_argument("--threads", type=at_least(0), default=0,
                        help="TensorFlow's, on all sides; 0: each side's own (default)")
    add_json_argument(parser)


def add_json_argument(parser):
    """Adds `--json`, which `Table` takes."""
    parser.add_argument("--json", action="store_true",
                        help="a JSON line per measurement on standard output; the table then goes to standard error")


def check_batch_sizes(batch_sizes, examples, name):
    """Raises UserError where one of `batch_sizes` is larger than the number of `examples` of the data set `name`."""
    if max(batch_sizes) > examples:
        raise UserError("a batch of %d is larger than the %d examples of %s; lower --batch_sizes"
                        % (max(batch_sizes), examples, name))


def summary(figures):
    """The median of each of `figures`, {name: [its value in each round]}, and "spread": its lowest and highest."""
    return dict({name: float(np.median(values)) for name, values in figures.items()},
                spread={name: [min(values), max(values)] for name, values in figures.items()})


def with_spread(name, form):
    """The format of a cell with the figure `name` and, from `spread`, its lowest and highest value, each as `form`."""
    return "{NAME:FORM} ({spread[NAME][0]:FORM} to {spread[NAME][1]:FORM})".replace("NAME", name).replace("FORM", form)


class _Cell(string.Formatter):
    """Formats as `str.format`, and None, a figure that this machine does not tell, as a dash."""

    def format_field(self, value, format_spec):
        return "-" if value is None else super().format_field(value, format_spec)


class Table:
    """Prints a line of fixed-width text per measurement, or with `as_json` also a JSON line.

    Args:
      as_json: JSON lines on standard output, the table on standard error.
      columns: (heading, width, format of the cell), in order.
    """

    def __init__(self, as_json, columns):
        self._as_json, self._columns, self._has_heading = as_json, columns, False
        self._file = sys.stderr if as_json else sys.stdout

    def title(self, line):
        """Prints a line of text."""
        print(line, file=self._file, flush=True)

    def row(self, result):
        """Prints a measurement, a dictionary."""
        if not self._has_heading:
            self.title("".join(heading.rjust(width + 2) for heading, width, _ in self._columns))
            self._has_heading = True
        self.title("".join(_Cell().format(form, **result).rjust(width + 2) for _, width, form in self._columns))
        if self._as_json:
            print(json.dumps(result), flush=True)
