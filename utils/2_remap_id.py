"""reviews.pkl and meta.pkl -> remap.pkl: texts become integer ids.

`python utils/2_remap_id.py [--output FOLDER] [--if_needed]`

remap.pkl holds, one after another:
1. the reviews frame: reviewerID, asin (ids) and unixReviewTime, int64, sorted by user, then time, ties in file order
2. cate_list: int32 [items], the category of each item; the category is the last name of the item's last path
3. (user_count, item_count, cate_count, example_count)
4. (asin_key, cate_key, revi_key): lists of text in code point order; a text's position is its id
5. {"dataset": name, "md5": {"reviews": ..., "meta": ...}}: what it was made from, as source.json has it
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import numpy as np
import pandas as pd

from utils.data.pickles import dump_parts, load_parts, source_of
from utils.data.raw_files import KINDS, read_mark
from utils.files import ROOT, Parser, UserError, run_main

_CONVERT = "%s not found; run utils/1_convert_pd.py"


def remap(reviews, meta):
    """Returns the first four parts of remap.pkl (see above) of a reviews and a meta frame.

    reviews: columns reviewerID, asin (text or categorical) and unixReviewTime, in file order
    meta: columns asin (text) and categories (list of category paths), a row per reviewed item, in any order
    """
    categories = [paths[-1][-1] for paths in meta["categories"].tolist()]
    category_of = dict(zip(_texts(meta["asin"]), _texts(categories)))
    asin_key, cate_key = sorted(category_of), sorted(set(category_of.values()))
    users, items = (pd.Categorical(column if hasattr(column, "cat") else _texts(column))
                    for column in (reviews["reviewerID"], reviews["asin"]))
    revi_key = sorted(users.unique().tolist())

    user_ids, item_ids = _ids(users, revi_key), _ids(items, asin_key)
    times = reviews["unixReviewTime"].to_numpy(dtype=np.int64)
    order = np.lexsort((times, user_ids))  # stable: ties stay in file order
    frame = pd.DataFrame({"reviewerID": user_ids[order], "asin": item_ids[order], "unixReviewTime": times[order]})

    cate_list = _ids([category_of[asin] for asin in asin_key], cate_key).astype(np.int32)
    counts = (len(revi_key), len(asin_key), len(cate_key), len(frame))
    return frame, cate_list, counts, (asin_key, cate_key, revi_key)


def _load(path):
    if not os.path.exists(path):
        raise UserError(_CONVERT % path)
    return load_parts(path, "remove it, then run ./prepare_dataset.sh again")  # while it is there it counts as made


def _texts(values):
    """Returns the list of `values`; raises `TypeError` unless all are text: to look others up may take for ever."""
    values = list(values)
    if set(map(type, values)) - {str}:
        raise TypeError
    return values


def _ids(texts, key):
    """Returns the position in `key` of each of `texts` (categorical or a list): int64 [texts]."""
    texts, position_of = pd.Categorical(texts), dict(zip(key, range(len(key))))
    return np.array([position_of[text] for text in texts.categories.tolist()], dtype=np.int64)[texts.codes]


def remap_files(folder, if_needed=False):
    """Writes FOLDER/remap.pkl; returns its counts, or None where `if_needed` and it is of the data in source.json.

    Raises `UserError` where a file that utils/1_convert_pd.py writes into `folder` is missing or damaged.
    """
    mark, output = os.path.join(folder, "source.json"), os.path.join(folder, "remap.pkl")
    source = read_mark(mark)
    if source is None:
        raise UserError(_CONVERT % mark)
    try:
        made_from = {name: source[name] for name in ("dataset", "md5")}
        if type(made_from["dataset"]) is not str:
            raise TypeError
        if if_needed and source_of(output) == made_from:
            return None
        (reviews,), (meta,) = (_load(os.path.join(folder, kind + ".pkl")) for kind in KINDS)
        parts = remap(reviews, meta)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError("%s: reviews.pkl, meta.pkl and source.json don't fit together; remove them, then run "
                        "./prepare_dataset.sh again" % folder) from None
    dump_parts(output, list(parts) + [made_from])
    return parts[2]


def main():
    parser = Parser(description="reviews.pkl and meta.pkl -> remap.pkl.")
    parser.add_argument("--output", default=os.path.join(ROOT, "raw_data"),
                        help="folder of the pickles (default: raw_data)")
    parser.add_argument("--if_needed", action="store_true", help="do nothing where remap.pkl is made already")
    arguments = parser.parse_args()
    counts = remap_files(arguments.output, arguments.if_needed)
    outcome = "made: %d users, %d items, %d categories, %d reviews" % counts if counts else "is up to date"
    print("%s: remap.pkl %s" % (arguments.output, outcome))


if __name__ == "__main__":
    run_main(main)
