"""Padding-free batches.

A batch of B recommendations carries the N items of its B histories one after another, never padded to the longest:
on Amazon Electronics the longest of 1,024 histories is twenty times the mean.
"""
import collections

import numpy as np

Batch = collections.namedtuple("Batch", "history segments lengths candidates labels")
Batch.__doc__ = """B users with C candidates each; C is 1 in training. All int32, labels float32.

history    [N]     items of the B histories, one history after another
segments   [N]     whose history each of them is in: 0 .. B - 1, ascending
lengths    [B]     length of each history, at least 1
candidates [B, C]  items to score
labels     [B, C]  1.0 bought, 0.0 not
"""


MADE_TOGETHER = 8192  # recommendations, about


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
    together = batch_size * max(1, MADE_TOGETHER // batch_size)
    for start in range(0, len(order), together):
        rows = order[start:start + together]
        lengths = examples.lengths[rows]
        segments = np.repeat(np.arange(len(rows), dtype=np.int32) % np.int32(batch_size), lengths)
        history, own_candidates, own_labels = flat_histories(examples, rows), candidates(rows), labels(rows)
        ends = np.append(0, np.cumsum(lengths, dtype=np.int64))
        for first in range(0, len(rows), batch_size):
            users = slice(first, first + batch_size)
            items = slice(ends[first], ends[min(users.stop, len(rows))])
            yield Batch(history[items], segments[items], lengths[users], own_candidates[users], own_labels[users])


def train_batches(train, batch_size, seed, epoch, skip=0, worker=0, num_workers=1):
    """Yields one epoch of the TrainSet `train` in an order that `seed` and `epoch` decide; the last may be partial.

    `skip` leaves out that many batches at the start: a resumed run goes on where it stopped. One of several workers is
    given its share of each batch; of a small last one that may be empty.
    """
    order = np.random.RandomState([seed, epoch]).permutation(len(train.items))[skip * batch_size:]
    whole, own_size = len(order) // batch_size * batch_size, batch_size // num_workers
    rest = order[whole:]
    rest = rest[len(rest) * worker // num_workers:len(rest) * (worker + 1) // num_workers]
    own = np.append(order[:whole].reshape(-1, num_workers, own_size)[:, worker], rest)
    yield from _batches(train, own, lambda rows: train.items[rows, np.newaxis],
                        lambda rows: train.labels[rows, np.newaxis].astype(np.float32), own_size)
    if whole < len(order) and not len(rest):
        none = np.zeros(0, np.int32)
        yield Batch(none, none, none, none.reshape(0, 1), np.zeros((0, 1), np.float32))


def test_batches(test, batch_size, num_ads=2, draw=None):
    """Yields the TestSet `test` in order, each user with `num_ads` candidates; the last may be partial.

    They are [positive, negative, and what draw(rows) [rows, num_ads - 2] gives]; only the positive has label 1.
    """
    def candidates(rows):
        own = np.stack([test.positives[rows], test.negatives[rows]], axis=1)
        return np.concatenate([own, draw(rows)], axis=1) if draw else own

    label = (np.arange(num_ads) == 0).astype(np.float32)
    return _batches(test, np.arange(len(test.users)), candidates, lambda rows: np.tile(label, (len(rows), 1)), batch_size)


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
