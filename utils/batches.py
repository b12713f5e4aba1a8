"""Padding-free batches.

A batch of B recommendations carries the N items of its B histories one after another, never padded to the longest:
on Amazon Electronics the longest of 1,024 histories is twenty times the mean.
"""
import time
import typing
from concurrent.futures import ThreadPoolExecutor

import numpy as np

GROUP = 8192  # recommendations, about, whose batches are made together


class Batch(typing.NamedTuple):
    """B users with C candidates each; C is 1 in training."""
    history: np.ndarray     # [N] int32, items of the B histories, one history after another
    segments: np.ndarray    # [N] int32, whose history each of them is in: 0 .. B - 1, ascending
    lengths: np.ndarray     # [B] int32, length of each history, at least 1
    candidates: np.ndarray  # [B, C] int32, items to score
    labels: np.ndarray      # [B, C] float32, 1.0 bought, 0.0 not


def flat_histories(examples, rows):
    """The history items [N] of `rows` of a TrainSet or TestSet, one history after another."""
    lengths = examples.lengths[rows]
    ends = np.cumsum(lengths, dtype=np.int64)
    index = np.repeat(examples.offsets[rows] - (ends - lengths), lengths)
    index += np.arange(len(index))
    return examples.history_items[index]


def _batches(examples, order, candidates, labels, batch_size):
    """Yields the rows `order` of a TrainSet or TestSet as batches of `batch_size`; the last may be partial.

    Many batches are made together and then sliced: for each alone it is 20 microseconds in a loop of its own, but 90
    between training steps of 32, which leave nothing of it in the processor's caches.

    Args:
      candidates, labels: from rows to their candidates and labels, [rows, C] each.
    """
    group = batch_size * max(1, GROUP // batch_size)
    for start in range(0, len(order), group):
        rows = order[start:start + group]
        lengths = examples.lengths[rows]
        segments = np.repeat(np.arange(len(rows), dtype=np.int32) % np.int32(batch_size), lengths)
        history, row_candidates, row_labels = flat_histories(examples, rows), candidates(rows), labels(rows)
        ends = np.append(0, np.cumsum(lengths, dtype=np.int64))
        for first in range(0, len(rows), batch_size):
            users = slice(first, first + batch_size)
            items = slice(ends[first], ends[min(users.stop, len(rows))])
            yield Batch(history[items], segments[items], lengths[users], row_candidates[users], row_labels[users])


def train_batches(train, batch_size, seed, epoch, skip=0, worker=0, num_workers=1):
    """Yields one epoch of the TrainSet `train` in an order that `seed` and `epoch` decide; the last may be partial.

    `skip` leaves out that many batches at the start: a resumed run goes on where it stopped. One of several workers is
    given its share of each batch; of a small last one that may be empty.
    """
    order = np.random.RandomState([seed, epoch]).permutation(len(train.items))[skip * batch_size:]
    whole, share_size = len(order) // batch_size * batch_size, batch_size // num_workers
    last = order[whole:]
    last = last[len(last) * worker // num_workers:len(last) * (worker + 1) // num_workers]
    share = np.append(order[:whole].reshape(-1, num_workers, share_size)[:, worker], last)
    yield from _batches(train, share, lambda rows: train.items[rows, np.newaxis],
                        lambda rows: train.labels[rows, np.newaxis].astype(np.float32), share_size)
    if whole < len(order) and not len(last):
        none = np.zeros(0, np.int32)
        yield Batch(none, none, none, none.reshape(0, 1), np.zeros((0, 1), np.float32))


def test_batches(test, batch_size, num_ads=2, draw=None):
    """Yields the TestSet `test` in order, each user with `num_ads` candidates; the last may be partial.

    They are [positive, negative, and what draw(rows) [rows, num_ads - 2] gives]; only the positive has label 1.
    """
    def candidates(rows):
        pair = np.stack([test.positives[rows], test.negatives[rows]], axis=1)
        return np.concatenate([pair, draw(rows)], axis=1) if draw else pair

    label = (np.arange(num_ads) == 0).astype(np.float32)
    return _batches(test, np.arange(len(test.users)), candidates, lambda rows: np.tile(label, (len(rows), 1)), batch_size)


def prefetch(batches, prepare=list):
    """Yields the same batches, as `prepare` makes them ready, a list at a time, in a thread beside the work on those before.

    A training step of 32 or of 1,024 takes 3.5% less with it (two cores of an Intel Xeon with AVX-512).
    """
    batches = iter(batches)

    def next_group():
        group, recommendations = [], 0
        for batch in batches:
            group.append(batch)
            recommendations += len(batch.lengths)
            if recommendations >= GROUP:
                break
            time.sleep(0)  # else this thread would keep the interpreter for milliseconds, and the training would wait
        return prepare(group) if group else []

    with ThreadPoolExecutor(1) as thread:
        ready = thread.submit(next_group)
        while ready.result():
            group, ready = ready.result(), thread.submit(next_group)
            yield from group


def draw_ads(rows, count, item_count, seed):
    """Draws `count` items for each of `rows`, [rows, count], uniform over 0 .. item_count - 1.

    What a row is given depends on the seed and on the row alone, whatever batch it is in, and is the start of what it is
    given with a larger `count`: each item is a hash of (seed, row, column), by the finalizer of SplitMix64 (Steele, Lea
    and Flood 2014, "Fast splittable pseudorandom number generators").
    """
    def mixed(x):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
    x = np.array([seed + 1], np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for index in (np.asarray(rows)[:, np.newaxis], np.arange(count)):
        x = mixed(x + index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return ((x >> np.uint64(32)) * np.uint64(item_count) >> np.uint64(32)).astype(np.int32)


def split_batch(batch, shares):
    """Splits `batch` by recommendation into `shares` batches, in order and as even as can be; some may be empty."""
    if shares == 1:
        return [batch]
    parts, item, user = [], 0, 0
    for share in range(1, shares + 1):
        users = slice(user, len(batch.lengths) * share // shares)
        items = slice(item, item + int(batch.lengths[users].sum()))
        parts.append(Batch(batch.history[items], batch.segments[items] - np.int32(user), batch.lengths[users],
                           batch.candidates[users], batch.labels[users]))
        item, user = items.stop, users.stop
    return parts
