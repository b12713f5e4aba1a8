"""Which rows of the embedding tables a batch looks up, and in which order their gradients are added.

All of it follows from the ids of the batch, so NumPy finds it before the step, for many batches at once, and it is fed.
With tf.unique and tf.argsort in the step they took 1.4 of its 23.6 ms of processor time at a batch of 1,024, and the
first tower waited for them (two cores of an Intel Xeon with AVX-512).

A batch is fed as one array of int32: each array that is fed costs a call 14 microseconds, of 1,200 at a batch of 32.
It begins with a header: its size, the size of each part, then C, then as bits of float32 the learning rate and the
number of recommendations. The parts of `Distinct` follow, its items in as many parts as there are towers to a device,
then each part of `Share`, one tower's after another's.
"""
import time
import typing

import numpy as np

from utils.batches import Batch
from utils.tf1 import tf


class Distinct(typing.NamedTuple):
    """What all towers share of a batch with R = N + B C items. Arrays or tensors, int32."""
    items: typing.Any      # [U] distinct items of the batch; in a graph a list of the parts
    cates: typing.Any      # [V] distinct categories of these
    biases: typing.Any     # [W] distinct candidates
    item_sums: typing.Any  # [R] which of the U items each row of gradients is of, once they are sorted; ascending
    cate_sums: typing.Any  # [R] which of the V categories
    bias_sums: typing.Any  # [B C] which of the W biases


class Share(typing.NamedTuple):
    """One tower's share of a batch. Arrays or tensors, int32 but for the labels."""
    history: typing.Any          # [N, 2] which of the U + V rows are each history item's, and its category's
    candidates: typing.Any       # [B, C, 3] the same of each candidate, and which of the W biases
    history_ranks: typing.Any    # [2 N] which row of gradients each is, once sorted, items' before categories'
    candidate_ranks: typing.Any  # [2 B C]
    bias_ranks: typing.Any       # [B C]
    segments: typing.Any         # [N] as in `Batch`
    lengths: typing.Any          # [B]
    labels: typing.Any           # [B, C] float32; in the array by their bits


class PackedBatch(typing.NamedTuple):
    """A batch, ready to be trained on."""
    batch: Batch
    packed: np.ndarray  # [S] int32


def unpack(packed, towers, item_parts):
    """What `packed`, a tensor, has, in its shapes.

    Returns:
      (learning rate [], number of recommendations [], `Distinct`, a list with the `Share` of each tower).
    """
    distinct_parts = item_parts + len(Distinct._fields) - 1
    count = 1 + distinct_parts + towers * len(Share._fields)
    header = packed[:count + 3]
    parts = tf.split(packed, header[:count], num=count)[1:]
    width = header[count]
    rate, recommendations = tf.unstack(tf.bitcast(header[count + 1:], tf.float32), 2)
    shares = []
    for tower in range(towers):
        share = Share(*parts[distinct_parts + tower::towers])
        shares.append(share._replace(history=tf.reshape(share.history, [-1, 2]),
                                     candidates=tf.reshape(share.candidates, tf.stack([-1, width, 3])),
                                     labels=tf.bitcast(tf.reshape(share.labels, tf.stack([-1, width])), tf.float32)))
    return rate, recommendations, Distinct(parts[:item_parts], *parts[item_parts:distinct_parts]), shares


def set_step(packed, rate, recommendations=None):
    """Writes the learning rate, and the number of recommendations if other workers have some too, into an array."""
    floats = packed[:packed[0]].view(np.float32)
    floats[-2] = rate
    if recommendations:
        floats[-1] = recommendations


class Packer:
    """Packs batches.

    Their ids are of `catalogue`, a `Catalogue`. Each is split over `towers`, its distinct items into `item_parts`.
    """

    def __init__(self, catalogue, towers, item_parts):
        self._catalogue, self._towers, self._item_parts = catalogue, towers, item_parts
        self._cate_list = np.asarray(catalogue.cate_list, np.int32)

    def pack_for_training(self, batches):
        """The `PackedBatch` of each of `batches`, a list."""
        candidates = [batch.candidates.reshape(-1) for batch in batches]
        ids = np.concatenate([part for batch, flat in zip(batches, candidates) for part in (batch.history, flat)])
        users, items, pairs = (np.array([len(part) for part in parts], np.int32) for parts in (
            [batch.lengths for batch in batches], [batch.history for batch in batches], candidates))
        rows = items + pairs
        groups = (_Groups(ids, rows, self._catalogue.item_count),
                  _Groups(self._cate_list[ids], rows, self._catalogue.cate_count),
                  _Groups(np.concatenate(candidates), pairs, self._catalogue.item_count))
        of_items, of_cates, of_biases = groups
        # An item's row, and after all items' its category's, are side by side.
        distinct = np.diff(of_items.starts).astype(np.int32)
        index = np.stack([of_items.index, of_cates.index + np.repeat(distinct, rows)], axis=1)
        ranks = np.stack([of_items.ranks, of_cates.ranks + np.repeat(rows, rows)], axis=1).reshape(-1)
        tower_users, tower_items, segments = self._shares(batches, users)
        headers = self._headers(distinct, np.diff(of_cates.starts), np.diff(of_biases.starts), rows, pairs, tower_users,
                                tower_items, np.array([batch.candidates.shape[1] for batch in batches]))
        packed = []
        starts = zip(*[_starts(sizes).tolist() for sizes in (rows, items, pairs)])
        item, cate, bias = (group.starts.tolist() for group in groups)
        row, history, pair = next(starts)
        for number, (batch, (next_row, next_history, next_pair)) in enumerate(zip(batches, starts)):
            middle, after = row + len(batch.history), number + 1  # its candidates begin in the middle
            candidate_rows = np.column_stack([index[middle:next_row], of_biases.index[pair:next_pair]])
            packed.append(PackedBatch(batch, np.concatenate([
                headers[number], of_items.distinct[item[number]:item[after]],
                of_cates.distinct[cate[number]:cate[after]], of_biases.distinct[bias[number]:bias[after]],
                of_items.sums[row:next_row], of_cates.sums[row:next_row], of_biases.sums[pair:next_pair],
                index[row:middle].reshape(-1), candidate_rows.reshape(-1), ranks[2 * row:2 * middle],
                ranks[2 * middle:2 * next_row], of_biases.ranks[pair:next_pair], segments[history:next_history],
                batch.lengths, batch.labels.reshape(-1).view(np.int32)])))
            row, history, pair = next_row, next_history, next_pair
            time.sleep(0)  # another thread trains meanwhile, and has the interpreter when this one sleeps
        return packed

    def _shares(self, batches, users):
        """How batches of so many `users` are split: (towers' users, and history items, [batches, towers]; segments)."""
        lengths = np.concatenate([batch.lengths for batch in batches])
        segments = np.concatenate([batch.segments for batch in batches])
        bounds = users[:, np.newaxis] * np.arange(self._towers + 1) // self._towers
        items = np.diff(_starts(lengths)[bounds + _starts(users)[:-1, np.newaxis]])
        if self._towers > 1:  # each counts its users from 0
            segments -= np.repeat(bounds[:, :-1].reshape(-1).astype(np.int32), items.reshape(-1))
        return np.diff(bounds), items, segments

    def _headers(self, items, cates, biases, rows, pairs, tower_users, tower_items, widths):
        """The headers of batches, [batches, size], given how many of what each has, altogether and in each tower."""
        widths = widths[:, np.newaxis]
        sizes = [np.diff(items[:, np.newaxis] * np.arange(self._item_parts + 1) // self._item_parts)]
        sizes += [size[:, np.newaxis] for size in (cates, biases, rows, rows, pairs)]
        sizes += [2 * tower_items, 3 * widths * tower_users, 2 * tower_items, 2 * widths * tower_users,
                  widths * tower_users, tower_items, tower_users, widths * tower_users]
        first = np.full([len(rows), 1], sum(size.shape[1] for size in sizes) + 4)
        recommendations = pairs[:, np.newaxis].astype(np.float32).view(np.int32)
        return np.concatenate([first] + sizes + [widths, np.zeros_like(widths), recommendations], 1).astype(np.int32)


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
        # The batch, the id and the position as one number: NumPy sorts numbers in a fraction of the time that it takes
        # for the order of numbers.
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
