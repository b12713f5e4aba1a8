"""What a batch looks up is found right, for many batches at once and beside the training, and trains as it does alone."""
import numpy as np
import pytest

from tests.helpers import Graph, flat_batch, random_dataset
from utils.batches import Batch, train_batches
from utils.engine.packing import Lookups, unpack
from utils.tf1 import tf

DATASET = random_dataset(users=80)
SIZES = DATASET.item_count, DATASET.cate_count, DATASET.cate_list


def some_batches(candidates):
    """Batches of 1 to 7 users with so many candidates each, in which items repeat."""
    random = np.random.RandomState(3)
    return [flat_batch([random.randint(0, 12, random.randint(1, 9)) for _ in range(users)],
                       random.randint(0, 12, [users, candidates]), random.randint(0, 2, [users, candidates]))
            for users in (1, 7, 2, 5)]


def unpacked(packed, towers, item_parts):
    """(learning rate, Shared, [Own]) of an array, as arrays."""
    with tf.Graph().as_default(), tf.Session() as session:
        placeholder = tf.placeholder(tf.int32, [None])
        return session.run(unpack(placeholder, towers, item_parts), {placeholder: packed})


@pytest.mark.parametrize("towers, item_parts, candidates", [(1, 1, 1), (3, 1, 1), (2, 2, 3)])
def test_each_tower_finds_its_rows_and_each_gradient_its_sum(towers, item_parts, candidates):
    batches = some_batches(candidates)
    for batch, packed in zip(batches, Lookups(*SIZES, towers=towers, item_parts=item_parts).to_train(batches)):
        _, shared, owns = unpacked(packed, towers, item_parts)
        items = np.concatenate(shared.items)
        assert len(shared.items) == item_parts and np.ptp([len(part) for part in shared.items]) <= 1
        everything = np.append(batch.history, batch.candidates)
        for distinct, expected in ((items, everything), (shared.cates, DATASET.cate_list[everything]),
                                   (shared.biases, batch.candidates)):
            assert distinct.tolist() == sorted(set(expected.ravel().tolist()))
        rows = np.append(items, shared.cates)  # what each row of U + V is of

        def concatenated(name):
            return np.concatenate([getattr(own, name) for own in owns])
        history, own_candidates = concatenated("history"), concatenated("candidates")
        for found, ids in ((history, batch.history), (own_candidates, batch.candidates)):
            np.testing.assert_array_equal(rows[found[..., 0]], ids)
            np.testing.assert_array_equal(rows[found[..., 1]], DATASET.cate_list[ids])
            assert (found[..., 1] >= len(items)).all()
        np.testing.assert_array_equal(shared.biases[own_candidates[..., 2]], batch.candidates)
        for name in ("lengths", "labels"):
            np.testing.assert_array_equal(concatenated(name), getattr(batch, name))
        for own in owns:
            np.testing.assert_array_equal(own.segments, np.repeat(np.arange(len(own.lengths)), own.lengths))

        # Each row of gradients comes where the sums, which ascend, have the row that it is of.
        ranks = np.concatenate([concatenated("history_ranks"), concatenated("candidate_ranks")])
        sums = np.append(shared.item_sums, shared.cate_sums + len(items))
        np.testing.assert_array_equal(sums[ranks], np.append(history.ravel(), own_candidates[..., :2].ravel()))
        np.testing.assert_array_equal(shared.bias_sums[concatenated("bias_ranks")], own_candidates[..., 2].ravel())
        assert sorted(ranks) == list(range(2 * len(everything))) and (np.diff(sums) >= 0).all()


def test_several_batches_together_are_packed_as_each_alone():
    batches, lookups = some_batches(2), Lookups(*SIZES, towers=2, item_parts=2)
    for together, batch in zip(lookups.to_train(batches), batches):
        np.testing.assert_array_equal(together, lookups.to_train([batch])[0])


def test_prepared_batches_are_the_same_in_the_same_order_and_train_alike(monkeypatch):
    monkeypatch.setattr("utils.base_model.MADE_TOGETHER", 50)  # several times in the epoch
    batches = list(train_batches(DATASET.train, 24, seed=1, epoch=0))
    values = []
    for prepare in (True, False):
        with Graph("din", *SIZES, shards=2) as own:
            prepared = list(own.model.prepared(batches)) if prepare else batches
            for batch, expected in zip(prepared, batches):
                assert all((array == other).all() for array, other in zip(batch, expected))
            losses = [own.model.train(batch, 0.3) for batch in prepared]
            values.append([losses] + own.session.run(own.model.variables))
    assert len(prepared) == len(batches) == len(losses)
    for one, other in zip(*values):
        np.testing.assert_array_equal(one, other)


def test_preparing_can_stop_before_the_end_and_passes_errors_on():
    def failing():
        yield from batches
        raise ValueError("no more")
    batches = list(train_batches(DATASET.train, 24, seed=1, epoch=0))[:2]
    with Graph("pnn", *SIZES) as own:
        some = own.model.prepared(iter(batches * 3))
        assert next(some).history.tolist() == batches[0].history.tolist()
        some.close()
        assert list(own.model.prepared([])) == []
        with pytest.raises(ValueError, match="no more"):
            list(own.model.prepared(failing()))


def test_the_learning_rate_of_a_step_is_that_which_train_is_given():
    batch = next(train_batches(DATASET.train, 24, seed=1, epoch=0))
    moved = []
    for rate in (0.1, 0.2):
        with Graph("pnn", *SIZES) as own:
            bias, = [variable for variable in own.model.variables if variable.op.name == "f3/bias"]
            batch, = own.model.prepared([batch])
            own.model.train(batch, 5.0)  # what is written for one step does not stay for the next
            before = own.session.run(own.initialize) or own.session.run(bias)
            own.model.train(batch, rate)
            moved.append(own.session.run(bias) - before)
    np.testing.assert_allclose(moved[1], 2 * moved[0], rtol=1e-5)


@pytest.mark.parametrize("towers", [1, 2])
def test_a_workers_empty_share_is_packed_among_others_and_alone(towers):
    first, second = some_batches(1)[:2]
    none = np.zeros(0, np.int32)
    empty = Batch(none, none, none, none.reshape(0, 1), np.zeros((0, 1), np.float32))
    lookups = Lookups(*SIZES, towers=towers, item_parts=towers)
    together = lookups.to_train([empty, first, empty, second, empty])
    for packed, batch in zip(together, (empty, first, empty, second, empty)):
        np.testing.assert_array_equal(packed, lookups.to_train([batch])[0])
    _, shared, owns = unpacked(together[0], towers, towers)
    assert [len(own.lengths) for own in owns] == [0] * towers and not len(shared.cates)
