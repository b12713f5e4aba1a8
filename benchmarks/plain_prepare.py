"""The original's way of preparing data, written plainly: the other side of benchmarks/prepare.py.

    python -m benchmarks.plain_prepare convert RAW_FOLDER FOLDER [--eval]
    python -m benchmarks.plain_prepare remap FOLDER
    python -m benchmarks.plain_prepare build FOLDER DATASET_PKL
    python -m benchmarks.plain_prepare load DATASET_PKL

Every line becomes a dictionary, every example a tuple with a list of its whole history.
"""
import ast
import os
import pickle
import random
import sys

import numpy as np
import pandas as pd

from utils.data.raw_files import find_raw_file
from utils.files import UserError, run_main


def convert(raw_folder, folder, evaluate=None):
    """Raw files -> FOLDER/reviews.pkl, FOLDER/meta.pkl: frames of all columns, the meta of reviewed items alone.

    The original evaluates each line, and so does `--eval`. benchmarks/prepare.py asks for it only where it has
    generated the raw files itself: a line can run any code, and to leave out the builtins is no protection. Lines of
    other origin are parsed by `ast.literal_eval`, which is slower.
    """
    parse = (lambda line: eval(line, {"__builtins__": {}})) if evaluate == "--eval" else ast.literal_eval
    reviews = _frame(find_raw_file(raw_folder, "reviews"), parse)
    _dump(os.path.join(folder, "reviews.pkl"), reviews)
    meta = _frame(find_raw_file(raw_folder, "meta"), parse)
    meta = meta[meta["asin"].isin(reviews["asin"].unique())].reset_index(drop=True)
    _dump(os.path.join(folder, "meta.pkl"), meta)


def _frame(path, parse):
    rows = {}
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file):
            rows[number] = parse(line)
    return pd.DataFrame.from_dict(rows, orient="index")


def remap(folder):
    """FOLDER/reviews.pkl, FOLDER/meta.pkl -> FOLDER/remap.pkl: texts become positions in their sorted order."""
    (reviews,), (meta,) = (_load(os.path.join(folder, name)) for name in ("reviews.pkl", "meta.pkl"))
    reviews = reviews[["reviewerID", "asin", "unixReviewTime"]].copy()
    meta = meta[["asin", "categories"]].copy()
    meta["categories"] = meta["categories"].map(lambda paths: paths[-1][-1])

    asin_map, asin_key = _ids(meta, "asin")
    _, cate_key = _ids(meta, "categories")
    _, revi_key = _ids(reviews, "reviewerID")
    reviews["asin"] = reviews["asin"].map(lambda asin: asin_map[asin])
    meta = meta.sort_values("asin").reset_index(drop=True)
    reviews = reviews.sort_values(["reviewerID", "unixReviewTime"]).reset_index(drop=True)

    cate_list = np.array([meta["categories"][item] for item in range(len(asin_map))], dtype=np.int32)
    counts = len(revi_key), len(asin_key), len(cate_key), len(reviews)
    _dump(os.path.join(folder, "remap.pkl"), reviews, cate_list, counts, (asin_key, cate_key, revi_key))


def _ids(frame, column):
    """Replaces the texts of a column by ids; returns {text: id} and the texts in the order of their ids."""
    key = sorted(frame[column].unique().tolist())
    ids = dict(zip(key, range(len(key))))
    frame[column] = frame[column].map(lambda text: ids[text])
    return ids, key


def build(folder, output):
    """FOLDER/remap.pkl -> dataset.pkl: the training set, the test set, cate_list and the counts."""
    reviews, cate_list, (user_count, item_count, cate_count, _), _ = _load(os.path.join(folder, "remap.pkl"))
    purchases = ((user, rows["asin"].tolist()) for user, rows in reviews.groupby("reviewerID"))
    train_set, test_set = examples(purchases, item_count)
    _dump(output, train_set, test_set, cate_list, (user_count, item_count, cate_count))


def examples(purchases, item_count):
    """Returns the original's training set [(user, history, item, label), ..] and test set [(user, history, pair), ..].

    Args:
      purchases: (user, list of items in time order) of each user, ascending.
      item_count: number of items; negatives are drawn from 0 .. item_count - 1.
    """
    random.seed(1234)
    train_set, test_set = [], []
    for user, items in purchases:
        negatives = [_draw_negative(items, item_count) for _ in items]
        for k in range(1, len(items)):
            history = items[:k]
            if k != len(items) - 1:
                train_set.append((user, history, items[k], 1))
                train_set.append((user, history, negatives[k], 0))
            else:
                test_set.append((user, history, (items[k], negatives[k])))
    random.shuffle(train_set)
    random.shuffle(test_set)
    return train_set, test_set


def _draw_negative(items, item_count):
    negative = items[0]
    while negative in items:
        negative = random.randint(0, item_count - 1)
    return negative


def _dump(path, *parts):
    with open(path, "wb") as file:
        for part in parts:
            pickle.dump(part, file, pickle.HIGHEST_PROTOCOL)


def _load(path):
    """Returns the parts of a pickle that this script has written."""
    parts = []
    with open(path, "rb") as file:
        while file.peek(1):
            parts.append(pickle.load(file))
    return parts


def main():
    steps = {"convert": convert, "remap": remap, "build": build, "load": _load}
    if len(sys.argv) < 3 or sys.argv[1] not in steps:
        raise UserError("it takes a step (%s) and its files, as benchmarks/plain_prepare.py says" % ", ".join(steps))
    steps[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    run_main(main)
