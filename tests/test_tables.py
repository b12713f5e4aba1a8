"""Parts of a graph that do not depend on the values that change are computed once."""
import numpy as np
import pytest

from utils.engine import tables
from utils.engine.session import Session
from utils.engine.tables import Stages, Tables
from utils.tf1 import tf


def counting(x, name, calls):
    """`x`, but whenever it is computed `name` is added to the list `calls`."""
    def count(value):
        calls.append(name)
        return value
    return tf.py_func(count, [x], tf.float32, stateful=False)


def test_what_depends_on_one_group_alone_is_computed_for_that_group_and_of_variables_alone_once():
    calls = []
    with tf.Graph().as_default(), Session() as session:
        a, b, c = [tf.placeholder(tf.float32, []) for _ in range(3)]
        weight = tf.get_variable("weight", [], initializer=tf.constant_initializer(5.0))
        x, y = counting(a + b * weight, "a b", calls), counting(tf.exp(c), "c", calls)
        fetch = counting(x * y + a, "all", calls) * counting(-weight, "weight", calls) + weight
        session.run(weight.initializer)
        stages = Stages(session, fetch, [[a, b], [c]])
        first_ab, first_c = stages.first
        values_ab, values_c = first_ab(1.0, 2.0), [first_c(4.0), first_c(0.0)]
        assert sorted(calls) == ["a b", "c", "c", "weight"]
        for values, power in zip(values_c, (np.exp(4.0), 1.0)):
            assert stages.last(values_ab, values) == pytest.approx(-5 * ((1 + 2 * 5) * power + 1) + 5, rel=1e-6)
        session.run(weight.assign(7.0))  # too late for the values that were computed from it
        assert stages.last(values_ab, values_c[1]) == pytest.approx(-5 * ((1 + 2 * 5) * 1 + 1) + 7, rel=1e-6)
    assert sorted(calls) == ["a b", "all", "all", "all", "c", "c", "weight"]


def test_a_group_that_is_read_beside_the_others_is_fed_as_it_is():
    with tf.Graph().as_default(), Session() as session:
        source, other = tf.placeholder(tf.float32, []), tf.placeholder(tf.float32, [])
        stages = Stages(session, source - other, [[source], [other]])
        first_source, first_other = stages.first
        assert [stages.last(first_source(5.0), first_other(x)) for x in (2.0, 9.0)] == [3.0, -4.0]


@pytest.fixture
def rows():
    """(a session, a table [5, 3], kernel [3, 2], ids [N], pairs [B, C], a number) to build a graph on."""
    with tf.Graph().as_default(), Session() as session:
        table = tf.get_variable("table", initializer=tf.constant(np.arange(15, dtype=np.float32).reshape(5, 3)))
        kernel = tf.get_variable("kernel", initializer=tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        session.run(tf.global_variables_initializer())
        yield (session, table, kernel, tf.placeholder(tf.int32, [None]), tf.placeholder(tf.int32, [None, None]),
               tf.placeholder(tf.float32, []))


def copy_of(session, fetch, ids, others, count=5):
    """(a copy of `fetch`, as a function of the values of ids + others; the types of the operations that it takes)."""
    inputs = [tf.placeholder(placeholder.dtype, placeholder.shape) for placeholder in ids + others]
    copy = Tables(session, fetch, ids, others, count).copy(inputs, "/cpu:0")
    ops, stack = set(), [copy.op]
    while stack:
        op = stack.pop()
        if op not in ops:
            ops.add(op)
            stack += [tensor.op for tensor in op.inputs]
    return session.make_callable(copy, inputs), [op.type for op in ops]


def test_what_an_id_alone_needs_is_looked_up(rows):
    session, table, kernel, ids, pairs, number = rows
    product = tf.matmul(tf.gather(table, ids), kernel)                          # [N, 2]
    powers = tf.exp(tf.gather(table, pairs) / 10)                               # [B, C, 3]
    fetch = number * tf.reduce_sum(product[:, tf.newaxis]) + tf.reduce_sum(powers) * tf.reduce_max(kernel)
    values = [4, 0, 4], [[1, 2], [3, 3]], 7.0
    expected = session.run(fetch, dict(zip((ids, pairs, number), values)))
    call, ops = copy_of(session, fetch, [ids, pairs], [number])
    assert call(*values) == pytest.approx(expected, rel=1e-6)
    assert not {"MatMul", "Exp", "Max"}.intersection(ops)
    session.run([kernel.initializer, table.assign(0 * table)])  # too late
    assert call(*values) == pytest.approx(expected, rel=1e-6)


def test_what_several_ids_need_together_is_computed(rows):
    session, table, _, ids, _, number = rows
    fetch = number + tf.reduce_sum(tf.cumsum(tf.gather(table, ids))[-1] * tf.cast(tf.size(ids), tf.float32))
    call, ops = copy_of(session, fetch, [ids], [number])
    assert "Cumsum" in ops
    for few in ([1], [4, 0, 4, 2], [0, 1, 2, 3, 4]):
        assert call(few, 1.0) == session.run(fetch, {ids: few, number: 1.0})


@pytest.mark.parametrize("of_batch", [
    lambda rows, ids: rows[::-1], lambda rows, ids: rows + tf.roll(rows, 1, 0),
    lambda rows, ids: rows - tf.reduce_mean(rows, 0),
    lambda rows, ids: rows * tf.cast(ids / tf.reduce_max(ids), tf.float32)[:, tf.newaxis]],
    ids=["the reverse", "neighbours", "the mean", "the highest id"])
def test_a_row_for_each_id_that_depends_on_the_other_ids_is_computed(of_batch):
    with tf.Graph().as_default(), Session() as session:
        table = tf.get_variable("table", [500, 3])
        session.run(tf.global_variables_initializer())
        ids = tf.placeholder(tf.int32, [None])
        fetch = tf.tanh(of_batch(tf.gather(table, ids), ids))
        call, _ = copy_of(session, fetch, [ids], [], 500)
        for few in ([7, 3, 3], list(range(400, 300, -3))):
            np.testing.assert_allclose(call(few), session.run(fetch, {ids: few}), rtol=1e-6)


def test_tables_with_the_same_values_are_one_and_their_memory_is_bounded(rows, monkeypatch):
    session, table, _, ids, pairs, number = rows
    fetch = number + tf.reduce_sum(tf.gather(table, ids) * 2) * number + tf.reduce_sum(tf.gather(table, pairs) * 2)
    values = [4, 0], [[1, 2]], 3.0
    expected = session.run(fetch, dict(zip((ids, pairs, number), values)))
    for max_bytes, count, products in ((5 * 3 * 4 * 2, 1, 1), (5 * 3 * 4, 1, 2), (5 * 3 * 4 - 1, 0, 3)):
        monkeypatch.setattr(tables, "MAX_BYTES", max_bytes)
        before = len(tf.local_variables())
        call, ops = copy_of(session, fetch, [ids, pairs], [number])
        assert call(*values) == pytest.approx(expected, rel=1e-6)
        assert (len(tf.local_variables()) - before, ops.count("Mul")) == (count, products)


@pytest.mark.parametrize("shape, at_once", [([None], 1000), ([None, None], 600)], ids=["a table", "rows of pairs"])
def test_a_table_is_computed_in_parts_and_rows_that_are_none_for_a_few_ids_alone(monkeypatch, shape, at_once):
    monkeypatch.setattr(tables, "IDS_AT_ONCE", 1000)
    counts = []

    def count(rows):
        counts.append(len(rows))
        return rows
    with tf.Graph().as_default(), Session() as session:
        table = tf.get_variable("table", [5000, 3])
        session.run(tf.global_variables_initializer())
        ids = tf.placeholder(tf.int32, shape)
        rows = tf.py_func(count, [tf.reshape(tf.gather(table, ids), [-1, 3])], tf.float32, stateful=False)
        rows.set_shape([None, 3])
        fetch, few = tf.tanh(rows), np.array([7, 4999]).reshape([-1] + [1] * (len(shape) - 1))
        expected = session.run(fetch, {ids: few})
        call, _ = copy_of(session, fetch, [ids], [], 5000)
        np.testing.assert_allclose(call(few), expected, rtol=1e-6)
    assert max(counts) == at_once
