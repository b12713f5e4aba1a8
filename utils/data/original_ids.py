"""The original ids behind the numbers: reviewerIDs, asins and categories, which remap.pkl keeps."""
from typing import NamedTuple

import numpy as np

from utils.dataset import REMAP, read_remap
from utils.files import UserError


class Names(NamedTuple):
    """Lists of text; a number is a position in its list."""
    reviewers: list  # [user_count]
    asins: list  # [item_count]
    categories: list  # [cate_count]; cate_list has the number of an item's category


def read_names(dataset, path=REMAP):
    """Returns the `Names` of the users, items and categories of the Dataset `dataset`, which was made of `path`.

    Raises `UserError` where that remap.pkl is missing or damaged, or belongs to other data.
    """
    _, cate_list, _, keys, _ = read_remap(path)
    counts = (dataset.item_count, dataset.cate_count, dataset.user_count)
    if not (type(keys) is tuple and len(keys) == 3 and np.array_equal(cate_list, dataset.cate_list)
            and all(type(key) is list and len(key) == count and set(map(type, key)) == {str}
                    for key, count in zip(keys, counts))):
        raise UserError("%s is not of the data that the model trains on; run ./prepare_dataset.sh, then train again"
                        % path)
    asins, categories, reviewers = keys
    return Names(reviewers, asins, categories)
