"""Packing finds the rows of each batch, for many batches at once and beside the training, which stays the same."""
import numpy as np
import pytest

from tests.helpers import Graph, flat_batch, random_dataset
from utils.batches import Batch, prefetch, train_batches
from utils.engine.packing import Packer, unpack
from utils.tf1 import tf

DATASET = random_dataset(users=80)


def small_batches(candidates):
    """Batches of 1 to 7 users with so many `candidates` each, in which items repeat."""
    random = np.random.RandomState(3)
    return [flat_batch([random.randint(0, 12, random.randint(1, 9)) for _ in range(users)],
                       random.randint(0, 12, [users, candidates]), random.randint(0, 2, [users, candidates]))
            for users in (1, 7, 2, 5)]


def packed_arrays(batches, **sizes):
    """The array to feed for training on each of `batches`, packed together; `sizes` are Packer's."""
    return [packed for _, packed in Packer(DATASET, **sizes).pack_for_training(batches)]


def concatenated(shares, name):
    """The field `name` of all `shares`, one share's after another's."""
    return np.concatenate([getattr(share, name) for share in shares])


def unpack_array(packed, towers, item_parts):
    """(learning rate, Distinct, [Share]) of an array, as arrays."""
    with tf.Graph().as_default(), tf.Session() as session:
        placeholder = tf.placeholder(tf.int32, [None])
        return session.run(unpack(placeholder, towers, item_parts), {placeholder: packed})


@pytest.mark.parametrize("towers, item_parts, candidates", [(1, 1, 1), (3, 1, 1), (2, 2, 3)])
def test_each_tower_finds_its_rows_and_each_gradient_its_sum(towers, item_parts, candidates):
    batches = small_batches(candidates)
    for batch, packed in zip(batches, packed_arrays(batches, towers=towers, item_parts=item_parts)):
        _, recommendations, distinct, shares = unpack_array(packed, towers, item_parts)
        items = np.concatenate(distinct.items)
        assert recommendations == batch.labels.size
        assert len(distinct.items) == item_parts and np.ptp([len(part) for part in distinct.items]) <= 1
        everything = np.append(batch.history, batch.candidates)
        for ids, expected in ((items, everything), (distinct.cates, DATASET.cate_list[everything]),
                              (distinct.biases, batch.candidates)):
            assert ids.tolist() == sorted(set(expected.ravel().tolist()))
        ids_of_rows = np.append(items, distinct.cates)  # of the U + V rows
        history, candidate_rows = concatenated(shares, "history"), concatenated(shares, "candidates")
        for places, ids in ((history, batch.history), (candidate_rows, batch.candidates)):
            np.testing.assert_array_equal(ids_of_rows[places[..., 0]], ids)
            np.testing.assert_array_equal(ids_of_rows[places[..., 1]], DATASET.cate_list[ids])
            assert (places[..., 1] >= len(items)).all()
        np.testing.assert_array_equal(distinct.biases[candidate_rows[..., 2]], batch.candidates)
        for name in ("lengths", "labels"):
            np.testing.assert_array_equal(concatenated(shares, name), getattr(batch, name))
        for share in shares:
            np.testing.assert_array_equal(share.segments, np.repeat(np.arange(len(share.lengths)), share.lengths))

        # A gradient's rank is its place in the sums, which ascend and say which row the gradient is of.
        ranks = np.concatenate([concatenated(shares, "history_ranks"), concatenated(shares, "candidate_ranks")])
        sums = np.append(distinct.item_sums, distinct.cate_sums + len(items))
        np.testing.assert_array_equal(sums[ranks], np.append(history.ravel(), candidate_rows[..., :2].ravel()))
        bias_ranks = concatenated(shares, "bias_ranks")
        np.testing.assert_array_equal(distinct.bias_sums[bias_ranks], candidate_rows[..., 2].ravel())
        assert sorted(ranks) == list(range(2 * len(everything))) and (np.diff(sums) >= 0).all()


def test_several_batches_together_are_packed_as_each_alone():
    batches = small_batches(2)
    for together, batch in zip(packed_arrays(batches, towers=2, item_parts=2), batches):
        alone, = packed_arrays([batch], towers=2, item_parts=2)
        np.testing.assert_array_equal(together, alone)


def test_prefetched_batches_are_the_same_in_the_same_order_and_train_alike(monkeypatch):
    monkeypatch.setattr("utils.batches.GROUP", 50)  # several times in the epoch
    batches = list(train_batches(DATASET.train, 24, seed=1, epoch=0))
    with Graph("din", DATASET, shards=2) as graph:
        alone = [graph.train(batch, 0.3) for batch in batches], graph.values()
    with Graph("din", DATASET, shards=2) as graph:
        prefetched = list(prefetch(batches, graph.pack_for_training))
        for (batch, _), expected in zip(prefetched, batches):
            assert all(map(np.array_equal, batch, expected))
        together = [graph.built.train(batch, 0.3) for batch in prefetched], graph.values()
    assert len(prefetched) == len(batches)
    assert together[0] == alone[0]
    for name, values in together[1].items():
        np.testing.assert_array_equal(values, alone[1][name], err_msg=name)


def test_prefetching_can_stop_before_the_end_and_passes_errors_on():
    def failing():
        yield from batches
        raise ValueError("no more")
    batches = list(train_batches(DATASET.train, 24, seed=1, epoch=0))[:2]
    prefetched = prefetch(iter(batches * 3))
    assert next(prefetched).history.tolist() == batches[0].history.tolist()
    prefetched.close()
    assert list(prefetch([])) == []
    with pytest.raises(ValueError, match="no more"):
        list(prefetch(failing()))


def test_the_learning_rate_of_a_step_is_that_which_train_is_given():
    batch = next(train_batches(DATASET.train, 24, seed=1, epoch=0))
    moves = []
    for rate in (0.1, 0.2):
        with Graph("pnn", DATASET) as graph:
            packed, = graph.pack_for_training([batch])
            graph.built.train(packed, 5.0)  # the rate of one step does not stay for the next
            graph.session.run(graph.initialize)
            before = graph.values()["f3/bias"]
            graph.built.train(packed, rate)
            moves.append(graph.values()["f3/bias"] - before)
    np.testing.assert_allclose(moves[1], 2 * moves[0], rtol=1e-5)


@pytest.mark.parametrize("towers", [1, 2])
def test_a_workers_empty_share_is_packed_among_others_and_alone(towers):
    first, second = small_batches(1)[:2]
    none = np.zeros(0, np.int32)
    empty = Batch(none, none, none, none.reshape(0, 1), np.zeros((0, 1), np.float32))
    batches = [empty, first, empty, second, empty]
    together = packed_arrays(batches, towers=towers, item_parts=towers)
    for packed, batch in zip(together, batches):
        alone, = packed_arrays([batch], towers=towers, item_parts=towers)
        np.testing.assert_array_equal(packed, alone)
    _, recommendations, distinct, shares = unpack_array(together[0], towers, towers)
    assert recommendations == 0 and [len(share.lengths) for share in shares] == [0] * towers and not len(distinct.cates)
