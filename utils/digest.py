"""`python -m utils.digest`: digests of the data that is prepared, as JSON, to compare with another machine's.

sha256 over the little-endian int64 bytes of columns, or over UTF-8 text; --help names the files.
"""
import hashlib
import json
import os

import numpy as np

from utils.batches import flat_histories
from utils.dataset import REMAP, read_dataset, read_remap
from utils.files import ROOT, Parser, run_main


def sha256(columns):
    """The sha256, hexadecimal, over the little-endian int64 bytes of `columns`, one after another."""
    digest = hashlib.sha256()
    for column in columns:
        digest.update(np.ascontiguousarray(column, "<i8"))
    return digest.hexdigest()


def digests(remap_path, dataset_path):
    """Returns the counts and digests of a remap.pkl and a dataset.pkl as a dictionary."""
    reviews, cate_list, counts, keys, _ = read_remap(remap_path)
    result = {
        "counts": dict(zip(("user_count", "item_count", "cate_count", "example_count"), map(int, counts))),
        "remap_reviews_sha256": sha256(reviews[name] for name in ("reviewerID", "asin", "unixReviewTime")),
        "cate_list_sha256": sha256([cate_list]),
        "keys_sha256": hashlib.sha256("\n".join(key for key_list in keys for key in key_list).encode()).hexdigest(),
    }
    result.update(example_digests(read_dataset(dataset_path)))
    return result


def example_digests(dataset):
    """Returns the counts and digests of a data set's examples, the same for every layout of their histories."""
    train, test = dataset.train, dataset.test
    return {
        "train_examples": len(train.items),
        "test_users": len(test.users),
        "train_set_sha256": sha256([train.users, train.lengths, flat_histories(train, slice(None)),
                                    train.items, train.labels]),
        "test_set_sha256": sha256([test.users, test.lengths, flat_histories(test, slice(None)),
                                   test.positives, test.negatives]),
    }


def main():
    parser = Parser(prog="python -m utils.digest", description=__doc__)
    parser.add_argument("--remap", default=REMAP, help="default: %(default)s")
    parser.add_argument("--dataset", default=os.path.join(ROOT, "din", "dataset.pkl"), help="default: %(default)s")
    arguments = parser.parse_args()
    print(json.dumps(digests(arguments.remap, arguments.dataset), indent=1))


if __name__ == "__main__":
    run_main(main)
