"""The validation set of `--selection validation`: of each user the last purchase but one, taken out of training.

As TIN does (Zhou et al. 2024, "Temporal Interest Network for User Response Prediction", arXiv 2308.08487, section 5.1):
the test set, each user's last purchase, then decides nothing.
"""
import numpy as np

from utils.dataset import TestSet
from utils.files import UserError


def hold_out_validation(dataset):
    """Returns (a `Dataset` without the validation examples, those examples: a `TestSet` of V users).

    A user's validation example is the pair, of a purchase and its negative, with the longest history that the training
    set has of him. The other training examples and the validation users keep the order of the training set.

    Raises:
      UserError: a user's pair is not whole, or nothing is left to train on.
    """
    train = dataset.train
    longest = np.zeros(dataset.user_count, np.int32)
    np.maximum.at(longest, train.users, train.lengths)
    is_held_out = train.lengths == longest[train.users]
    positives, negatives = (np.flatnonzero(is_held_out & (train.labels == label)) for label in (1, 0))
    negatives = negatives[np.argsort(train.users[negatives], kind="stable")]
    by_user = np.argsort(train.users[positives], kind="stable")
    if (len(positives) != len(negatives) or len(np.unique(train.users[positives])) < len(positives)
            or (train.users[positives[by_user]] != train.users[negatives]).any()):
        raise UserError("the data set has users without one purchase and one negative after the longest history in "
                        "training, so it has no validation set; leave out --selection validation")
    if is_held_out.all():
        raise UserError("no user has more than three purchases, so that nothing is left to train on; leave out "
                        "--selection validation")
    negatives_in_order = np.empty_like(negatives)
    negatives_in_order[by_user] = negatives
    validation = TestSet(train.history_items, train.users[positives], train.offsets[positives],
                         train.lengths[positives], train.items[positives], train.items[negatives_in_order])
    columns = {name: column[~is_held_out] for name, column in train._asdict().items() if name != "history_items"}
    return dataset._replace(train=train._replace(**columns)), validation
