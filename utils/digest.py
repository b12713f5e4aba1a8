"""`python -m utils.digest`: digests of the prepared data, as JSON, to compare with another machine's.

sha256 over the little-endian int64 bytes of columns, or over UTF-8 text; --help names the files.
"""
import hashlib
import json
import os
from itertools import chain

from utils.batches import flat_histories
from utils.dataset import REMAP, read_dataset, read_remap, sha256
from utils.files import ROOT, Parser, run_main


def digests(remap_path, dataset_path):
    """Returns the counts and digests of a remap.pkl and a dataset.pkl as a dictionary."""
    reviews, cate_list, counts, keys, _ = read_remap(remap_path)
    return dict(
        counts=dict(zip(("user_count", "item_count", "cate_count", "example_count"), map(int, counts))),
        remap_reviews_sha256=sha256(reviews[name] for name in ("reviewerID", "asin", "unixReviewTime")),
        cate_list_sha256=sha256([cate_list]),
        keys_sha256=hashlib.sha256("\n".join(chain.from_iterable(keys)).encode()).hexdigest(),
        **example_digests(read_dataset(dataset_path)))


def example_digests(dataset):
    """Returns the counts and digests of a data set's examples, the same for every layout of their histories."""
    def digest(examples):
        histories = flat_histories(examples, slice(None))
        return sha256(chain([examples.users, examples.lengths, histories], examples[4:]))  # 4: from the candidates on

    return {"train_examples": len(dataset.train.items), "test_users": len(dataset.test.users),
            "train_set_sha256": digest(dataset.train), "test_set_sha256": digest(dataset.test)}


def main():
    parser = Parser(prog="python -m utils.digest", description=__doc__)
    parser.add_argument("--remap", default=REMAP, help="default: %(default)s")
    parser.add_argument("--dataset", default=os.path.join(ROOT, "din", "dataset.pkl"), help="default: %(default)s")
    arguments = parser.parse_args()
    print(json.dumps(digests(arguments.remap, arguments.dataset), indent=1))


if __name__ == "__main__":
    run_main(main)
