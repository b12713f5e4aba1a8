"""What popularity alone gives on a data set: the floor to read a model's GAUC against."""
import typing

import numpy as np

from utils import metrics


class Floors(typing.NamedTuple):
    """GAUCs of popularity alone."""
    evaluated: float  # on what evaluations score: the test set, or the validation set
    test: float       # on the test set


def popularity_gauc(dataset, examples):
    """The GAUC of `examples`, a TestSet, where each item's score is how often it was bought where it was shown.

    The rates are counted in the training set of `dataset`. Each item has, beside its own examples, one with the rate of
    its category; a category two purchases and two negatives. So an item that training never showed is as its category.
    """
    train, categories = dataset.train, dataset.cate_list
    shown = np.bincount(train.items, minlength=dataset.item_count)
    bought = np.bincount(train.items, train.labels, dataset.item_count)
    shown_categories = np.bincount(categories, shown, dataset.cate_count)
    bought_categories = np.bincount(categories, bought, dataset.cate_count)
    category_rates = (bought_categories + 2) / (shown_categories + 4)
    rates = (bought + category_rates[categories]) / (shown + 1)
    return metrics.gauc(rates[examples.positives], rates[examples.negatives])


def floors_of(dataset, evaluated):
    """The `Floors` of training on `dataset` where evaluations score `evaluated`, its test set or a validation set."""
    test = popularity_gauc(dataset, dataset.test)
    return Floors(test if evaluated is dataset.test else popularity_gauc(dataset, evaluated), test)
