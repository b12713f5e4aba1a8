"""Batches hold the histories as they are, without padding, and every recommendation once an epoch."""
import numpy as np
import pytest

from tests.helpers import random_dataset
from utils import batches as batching
from utils.batches import split_batch, train_batches
from utils.batches import test_batches as batches_of_test

DATASET = random_dataset()


def histories(batch):
    """The histories of a batch as lists, checking that its flat form is consistent."""
    assert len(batch.history) == len(batch.segments) == batch.lengths.sum()
    np.testing.assert_array_equal(batch.segments, np.repeat(np.arange(len(batch.lengths)), batch.lengths))
    return [part.tolist() for part in np.split(batch.history, np.cumsum(batch.lengths)[:-1])]


def history_of(examples, row):
    offset, length = examples.offsets[row], examples.lengths[row]
    return examples.history_items[offset:offset + length].tolist()


@pytest.mark.parametrize("batch_size", [1, 7, 64, 10 ** 6])
def test_an_epoch_has_every_training_example_once_with_its_own_history(batch_size):
    train = DATASET.train
    batches = list(train_batches(train, batch_size, seed=5, epoch=2))
    assert all(len(batch.lengths) == batch_size for batch in batches[:-1])
    seen = [(history, candidate, label) for batch in batches
            for history, candidate, label in zip(histories(batch), batch.candidates[:, 0], batch.labels[:, 0])]
    expected = [(history_of(train, row), train.items[row], train.labels[row]) for row in range(len(train.items))]
    assert sorted(seen) == sorted(expected)


def test_the_order_follows_the_seed_and_the_epoch():
    def first(seed, epoch):
        return next(train_batches(DATASET.train, 50, seed, epoch)).candidates[:, 0].tolist()
    assert first(1, 0) == first(1, 0)
    assert first(1, 0) != first(1, 1)
    assert first(1, 0) != first(2, 0)


def test_skipped_batches_are_left_out_and_the_rest_is_the_same():
    whole = list(train_batches(DATASET.train, 32, seed=1, epoch=0))
    later = list(train_batches(DATASET.train, 32, seed=1, epoch=0, skip=3))
    assert len(later) == len(whole) - 3
    for left, right in zip(later, whole[3:]):
        for a, b in zip(left, right):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("together", [1, 30, 100, 10 ** 6])
def test_batches_do_not_depend_on_how_many_are_made_together(monkeypatch, together):
    expected = list(train_batches(DATASET.train, 30, seed=1, epoch=0))
    monkeypatch.setattr(batching, "GROUP", together)
    batches = list(train_batches(DATASET.train, 30, seed=1, epoch=0))
    assert len(batches) == len(expected)
    for left, right in zip(batches, expected):
        for a, b in zip(left, right):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("batch_size", [1, 7, 10 ** 6])
def test_the_test_set_comes_whole_and_in_order(batch_size):
    test = DATASET.test
    batches = list(batches_of_test(test, batch_size))
    assert [history for batch in batches for history in histories(batch)] == [
        history_of(test, row) for row in range(len(test.users))]
    np.testing.assert_array_equal(np.concatenate([batch.candidates for batch in batches]),
                                  np.stack([test.positives, test.negatives], axis=1))


@pytest.mark.parametrize("shares", [1, 2, 3, 8])
@pytest.mark.parametrize("users", [1, 2, 5, 60])
def test_shares_of_a_batch_put_together_are_the_batch(shares, users):
    batch = next(batches_of_test(DATASET.test, users))
    parts = split_batch(batch, shares)
    assert len(parts) == shares
    sizes = [len(part.lengths) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert [history for part in parts if len(part.lengths) for history in histories(part)] == histories(batch)
    np.testing.assert_array_equal(np.concatenate([part.candidates for part in parts]), batch.candidates)
    np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), batch.labels)
