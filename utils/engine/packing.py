"""Which rows of the embedding tables a batch looks up, and in which order their gradients are added: known before the step.

All of it follows from the ids of the batch, so NumPy finds it, for many batches at once, and it is fed. With tf.unique and
tf.argsort in the step they took 1.4 of its 23.6 ms of processor time at a batch of 1,024, and the first tower waited for
them (two cores of an Intel Xeon with AVX-512).

A batch is fed as one array of int32: each array that is fed costs a call 14 microseconds, of 1,200 at a batch of 32.
It has these parts, R = N + B C:

    header           number of parts + 2: the size of each, then C, then the bits of the learning rate
    items            [U] distinct items of the batch, in as many parts as there are towers to a device
    cates            [V] distinct categories of these
    biases           [W] distinct candidates
    item_sums        [R] which of the U items each row of gradients is of, once they are sorted; ascending
    cate_sums        [R] which of the V categories
    bias_sums        [B C] which of the W biases

and then each of these for all towers, one tower's share after another:

    history          [N, 2] which of the U + V rows are each history item's, and its category's
    candidates       [B, C, 3] the same of each candidate, and which of the W biases
    history_ranks    [2 N] which row of gradients each is, once they are sorted, those of items before those of categories
    candidate_ranks  [2 B C]
    bias_ranks       [B C]
    segments, lengths, labels    as in `Batch`; the labels by their bits
"""
import collections
import time

import numpy as np

from utils.tf1 import tf

Shared = collections.namedtuple("Shared", "items cates biases item_sums cate_sums bias_sums")
Own = collections.namedtuple("Own", "history candidates history_ranks candidate_ranks bias_ranks segments lengths labels")


def unpack(packed, towers, item_parts):
    """What `packed`, a tensor, has, in its shapes: (learning rate [], `Shared`, its items a list, [each tower's `Own`])."""
    shared = item_parts + len(Shared._fields) - 1
    count = 1 + shared + towers * len(Own._fields)
    header = packed[:count + 2]
    parts = tf.split(packed, header[:count], num=count)[1:]
    width = header[count]
    owns = []
    for index in range(towers):
        own = Own(*parts[shared + index::towers])
        owns.append(own._replace(history=tf.reshape(own.history, [-1, 2]),
                                 candidates=tf.reshape(own.candidates, tf.stack([-1, width, 3])),
                                 labels=tf.bitcast(tf.reshape(own.labels, tf.stack([-1, width])), tf.float32)))
    rate = tf.bitcast(header[count + 1], tf.float32)
    return rate, Shared(parts[:item_parts], *parts[item_parts:shared]), owns


def set_learning_rate(packed, rate):
    """Writes the learning rate, a number, into `packed`, an array."""
    end = packed[0]
    packed[end - 1:end].view(np.float32)[0] = rate


class Lookups:
    """Packs batches.

    Args:
      item_count, cate_count: number of items and of categories.
      cate_list: [item_count] category of each item.
      towers: to split each batch over.
      item_parts: to split each batch's distinct items into.
    """

    def __init__(self, item_count, cate_count, cate_list, towers, item_parts):
        self._item_count, self._cate_count = item_count, cate_count
        self._towers, self._item_parts = towers, item_parts
        self._cate_list = np.asarray(cate_list, np.int32)

    def to_train(self, batches):
        """What to feed for each of `batches`, a list."""
        return self._pack(batches, _Groups)

    def to_score(self, batch):
        """What to feed to score `batch` alone: its rows are looked up as they come, and no gradients are added."""
        return self._pack([batch], _Apart)[0]

    def _pack(self, batches, grouped):
        candidates = [batch.candidates.reshape(-1) for batch in batches]
        ids = np.concatenate([part for batch, own in zip(batches, candidates) for part in (batch.history, own)])
        users, items, pairs = (np.array([len(part) for part in parts], np.int32) for parts in (
            [batch.lengths for batch in batches], [batch.history for batch in batches], candidates))
        rows = items + pairs
        groups = (grouped(ids, rows, self._item_count), grouped(self._cate_list[ids], rows, self._cate_count),
                  grouped(np.concatenate(candidates), pairs, self._item_count))
        of_items, of_cates, of_biases = groups
        # An item's row, and after all items' its category's, are side by side.
        distinct = np.diff(of_items.starts).astype(np.int32)
        index = np.stack([of_items.index, of_cates.index + np.repeat(distinct, rows)], axis=1)
        ranks = np.stack([of_items.ranks, of_cates.ranks + np.repeat(rows, rows)], axis=1).reshape(-1)
        own_users, own_items, segments = self._shares(batches, users)
        headers = self._headers(distinct, np.diff(of_cates.starts), np.diff(of_biases.starts), rows, pairs, own_users,
                                own_items, np.array([batch.candidates.shape[1] for batch in batches]))
        packed = []
        starts = zip(*[_starts(sizes).tolist() for sizes in (rows, items, pairs)])
        item, cate, bias = (group.starts.tolist() for group in groups)
        row, history, pair = next(starts)
        for number, (batch, (next_row, next_history, next_pair)) in enumerate(zip(batches, starts)):
            middle, after = row + len(batch.history), number + 1  # its candidates begin in the middle
            candidate_rows = np.column_stack([index[middle:next_row], of_biases.index[pair:next_pair]])
            packed.append(np.concatenate([
                headers[number], of_items.distinct[item[number]:item[after]], of_cates.distinct[cate[number]:cate[after]],
                of_biases.distinct[bias[number]:bias[after]], of_items.sums[row:next_row], of_cates.sums[row:next_row],
                of_biases.sums[pair:next_pair], index[row:middle].reshape(-1), candidate_rows.reshape(-1),
                ranks[2 * row:2 * middle], ranks[2 * middle:2 * next_row], of_biases.ranks[pair:next_pair],
                segments[history:next_history], batch.lengths, batch.labels.reshape(-1).view(np.int32)]))
            row, history, pair = next_row, next_history, next_pair
            time.sleep(0)  # another thread trains meanwhile, and has the interpreter when this one sleeps
        return packed

    def _shares(self, batches, users):
        """How batches of so many `users` are split: (users and history items of each tower [batches, towers], segments)."""
        lengths = np.concatenate([batch.lengths for batch in batches])
        segments = np.concatenate([batch.segments for batch in batches])
        bounds = users[:, np.newaxis] * np.arange(self._towers + 1) // self._towers
        own_items = np.diff(_starts(lengths)[bounds + _starts(users)[:-1, np.newaxis]])
        if self._towers > 1:  # each counts its users from 0
            segments -= np.repeat(bounds[:, :-1].reshape(-1).astype(np.int32), own_items.reshape(-1))
        return np.diff(bounds), own_items, segments

    def _headers(self, items, cates, biases, rows, pairs, own_users, own_items, widths):
        """The headers of batches, [batches, size], of how much each has of what; of `own_users` and `own_items` each tower."""
        widths = widths[:, np.newaxis]
        sizes = [np.diff(items[:, np.newaxis] * np.arange(self._item_parts + 1) // self._item_parts)]
        sizes += [size[:, np.newaxis] for size in (cates, biases, rows, rows, pairs)]
        sizes += [2 * own_items, 3 * widths * own_users, 2 * own_items, 2 * widths * own_users, widths * own_users, own_items,
                  own_users, widths * own_users]
        first = np.full([len(rows), 1], sum(size.shape[1] for size in sizes) + 3)
        return np.concatenate([first] + sizes + [widths, np.zeros_like(widths)], axis=1).astype(np.int32)


def _starts(sizes):
    """Where each part of these sizes starts, and where the last one ends."""
    return np.append(0, np.cumsum(sizes, dtype=np.int64))


class _Groups:
    """The equal ids within each of several batches, brought together.

    Args:
      ids: [R] one batch's after another's.
      sizes: how many of them each batch has.
      count: ids are 0 .. count - 1.

    Attributes:
      distinct: each batch's distinct ids, ascending; where they start, and where the last end, are `starts`.
      index: [R] which of its batch's distinct ids each is.
      ranks: [R] where each is among its batch's ids, once these are sorted.
      sums: [R] `index`, once these are sorted.
    """

    def __init__(self, ids, sizes, count):
        batch, first = np.repeat(np.arange(len(sizes)), sizes), _starts(sizes)[:-1]
        # The batch, the id and the position as one number: NumPy sorts numbers in a fraction of the time that it takes for
        # the order of numbers.
        bits = int(len(ids)).bit_length()
        keys = ((batch * count + ids) << bits) + np.arange(len(ids))
        keys.sort()
        order = keys & ((1 << bits) - 1)
        keys >>= bits
        new = np.ones(len(ids), np.int32)
        new[1:] = keys[1:] != keys[:-1]
        self.distinct = ids[order[np.flatnonzero(new)]]
        number = np.cumsum(new, dtype=np.int32) - np.int32(1)
        self.starts = np.append(0, number + 1)[_starts(sizes)]
        self.sums = number - np.repeat(self.starts[:-1].astype(np.int32), sizes)
        self.index, self.ranks = np.empty_like(number), np.empty_like(number)
        self.index[order] = self.sums
        self.ranks[order] = np.arange(len(ids), dtype=np.int32) - np.repeat(first.astype(np.int32), sizes)


class _Apart:
    """As `_Groups`, of one batch, equal ids left apart."""

    def __init__(self, ids, sizes, count):
        self.distinct, self.starts = ids, _starts(sizes)
        self.index = self.ranks = self.sums = np.arange(len(ids), dtype=np.int32)
