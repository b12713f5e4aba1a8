"""Makes a data set in the format of Amazon's raw files, from a seed: `python utils/make_sample.py small`.

`small` is the embedded default, made in seconds; `full` has the counts and the file sizes of Amazon Electronics.
The same seed gives the same bytes on every NumPy from 1.18 on: only frozen streams of `RandomState` are drawn, and
results of exp and log are rounded to whole numbers before they decide anything.

How people buy here (data/purchases.py says how much, and draws it; data/sample_files.py writes the files):

  * a category's items fall into a few styles (families that go together); each item has one;
  * a user has a few interests: categories, drawn in proportion to their sales. In each of them he has one style,
    drawn anew for each interest, to which he mostly sticks;
  * his purchases come from his interests in random order; a few come from anywhere.

So a good candidate is told by the part of the history that lies in the candidate's own category: attention to it
finds the style, while a mean over the whole history blurs which style belongs to which interest.

How it is drawn. The purchases of each user and of each item are counted out first, so both shapes are exact. Then
all purchases lie on one line twice: as copies of the items, sorted by (category, style), and as the users' interests,
in random order, each a run of purchases. A copy and a purchase at the same place belong together. The last step is
to shuffle copies among places, in ever wider groups, which changes neither shape.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from utils.data.purchases import SIZES
from utils.data.sample_files import write_sample
from utils.files import ROOT, Parser, UserError, run_main

DEFAULT_SEED = 1234


def main():
    parser = Parser(description="Makes a data set in the format of Amazon's raw files, from a seed.")
    parser.add_argument("size", choices=sorted(SIZES), help="small: 10,000 users, in seconds; full: as many as the "
                        "real Amazon Electronics, 1.7 GB, in about a minute")
    parser.add_argument("--output", metavar="FOLDER",
                        help="folder of the files (default: one in raw_data, named like the sample)")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="0 to 4294967295 (default: %(default)s)")
    arguments = parser.parse_args()
    if not 0 <= arguments.seed < 2 ** 32:
        raise UserError("--seed is %d; choose one from 0 to 4294967295" % arguments.seed)

    suffix = "" if arguments.seed == DEFAULT_SEED else "_seed%d" % arguments.seed
    dataset = "sample_" + arguments.size + suffix
    folder = arguments.output or os.path.join(ROOT, "raw_data", dataset)
    written = write_sample(folder, dataset, SIZES[arguments.size], arguments.seed)
    print(("wrote %s into %s" if written else "%s is in %s already; nothing to do") % (dataset, folder))


if __name__ == "__main__":
    run_main(main)
