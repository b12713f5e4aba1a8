"""How good the scores are: GAUC and AUC, both counted from logits, which don't saturate as probabilities do."""
import numpy as np


def gauc(positive, negative):
    """Mean over users of [score of the positive > score of the negative], [U] both; a tie counts as 0."""
    return float(np.mean(np.asarray(positive) > np.asarray(negative)))


def auc(positive, negative):
    """Area under the ROC curve over all positives [P] and negatives [Q] together; a tie counts as one half.

    The share of (positive, negative) pairs in which the positive scores higher, by the rank-sum identity
    (Mann and Whitney 1947), in O(U log U).
    """
    negative = np.sort(negative)
    below = np.searchsorted(negative, positive, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(negative, positive, side="right").sum(dtype=np.int64)
    return float((below + not_above) / 2.0 / (len(positive) * len(negative)))


def gauc_and_auc(scores):
    """(GAUC, AUC) of a test set; `scores` [U, 2] are of each user's positive and negative."""
    positive, negative = scores[:, 0], scores[:, 1]
    return gauc(positive, negative), auc(positive, negative)
