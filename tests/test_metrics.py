"""GAUC and AUC are the definitions, ties included."""
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from utils.metrics import auc, gauc


@pytest.mark.parametrize("decimals", [8, 1, 0])
@pytest.mark.parametrize("users", [1, 2, 1000])
def test_auc_equals_scikit_learns(decimals, users):
    random = np.random.RandomState(users + decimals)
    positive, negative = (random.randn(2, users) + [[0.5], [0.0]]).round(decimals).astype(np.float32)
    expected = roc_auc_score(np.repeat([1, 0], users), np.concatenate([positive, negative]))
    assert auc(positive, negative) == pytest.approx(expected, abs=1e-12)


def test_gauc_counts_a_tie_as_zero():
    assert gauc([3, 1, 2, 5], [1, 3, 2, 4]) == 0.5


def test_gauc_equals_its_definition():
    positive, negative = np.random.RandomState(0).randn(2, 500).round(1)
    assert gauc(positive, negative) == sum(p > n for p, n in zip(positive, negative)) / 500
