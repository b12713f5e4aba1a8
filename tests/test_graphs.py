"""What does not depend on the fed values that change is computed once."""
import numpy as np
import pytest

from utils.engine import tables as graphs
from utils.engine.tables import Tables, in_stages
from utils.engine.session import Session
from utils.tf1 import tf


def test_what_depends_on_the_source_or_variables_alone_is_computed_by_the_first_call():
    calls = []

    def counted(x):
        def count(value):
            calls.append(value)
            return value
        return tf.py_func(count, [x], tf.float32, stateful=False)

    with tf.Graph().as_default(), Session() as session:
        source, left, right = [tf.placeholder(tf.float32, []) for _ in range(3)]
        weight = tf.get_variable("weight", [], initializer=tf.constant_initializer(5.0))
        of_source = counted(source * weight)
        # `fed` depends on the source, too, but is fed.
        fed = of_source * left
        of_variable = counted(-weight)
        fetch = tf.exp(of_source) + (of_source + left) * source + fed * right + weight + of_variable * left
        session.run(weight.initializer)
        (start,), value = in_stages(session, fetch, [[source]], [left, fed, right])
        for x in (1.0, 2.0):
            known = start(x)
            for y, f, z in ((3.0, 4.0, 5.0), (6.0, 7.0, 8.0)):
                result, = value([known + [y, f, z]])
                np.testing.assert_allclose(result, np.exp(5 * x) + (5 * x + y) * x + f * z + 5 - 5 * y, rtol=1e-6)
    assert sorted(calls) == [-5.0, 5.0, 10.0]


def test_a_source_that_is_read_beside_the_others_is_fed_as_it_is():
    with tf.Graph().as_default(), Session() as session:
        source, other = tf.placeholder(tf.float32, []), tf.placeholder(tf.float32, [])
        (start,), value = in_stages(session, source - other, [[source]], [other])
        assert [value([start(5.0) + [2.0]]), value([start(5.0) + [9.0]])] == [[3.0], [-4.0]]


def test_what_depends_on_one_group_alone_is_computed_for_that_group():
    calls = []

    def counted(x, name):
        def count(value):
            calls.append(name)
            return value
        return tf.py_func(count, [x], tf.float32, stateful=False)

    with tf.Graph().as_default(), Session() as session:
        a, b, c, d = [tf.placeholder(tf.float32, []) for _ in range(4)]
        fetch = counted(counted(a + b, "a b") * counted(c, "c") + d, "all") + counted(a * c, "a c")
        (of_ab, of_c), value = in_stages(session, fetch, [[a, b], [c]], [d])
        ab, cs = of_ab(1.0, 2.0), [of_c(4.0), of_c(5.0)]
        assert sorted(calls) == ["a b", "c", "c"]
        assert [value([ab + [x]], known)[0] for known in cs for x in (0.0, 1.0)] == [12 + 4, 13 + 4, 15 + 5, 16 + 5]
    assert sorted(calls) == ["a b"] + 4 * ["a c"] + 4 * ["all"] + ["c", "c"]


def test_pieces_are_computed_one_after_another_and_share_what_is_of_the_other_groups():
    calls = []

    def counted(x, name):
        def count(value):
            calls.append((name, value.tolist()))
            return value
        return tf.py_func(count, [x], tf.float32, stateful=False)

    with tf.Graph().as_default(), Session() as session:
        piece, other, fed = [tf.placeholder(tf.float32, [None]) for _ in range(3)]
        first = counted(counted(piece, "piece") * counted(other, "other") + fed, "first")
        (of_piece, of_other), value = in_stages(session, counted(tf.exp(first), "last"), [[piece], [other]], [fed], pieces=3)
        pieces = [of_piece([x]) + [[x]] for x in (1.0, 2.0, 3.0)]
        for count in (3, 1, 2):  # as many as there are
            del calls[:]
            for result, x in zip(value(pieces[:count], of_other([5.0])), (1.0, 2.0, 3.0)):
                np.testing.assert_allclose(result, np.exp(x * 5 + x), rtol=1e-6)
            assert [name for name, _ in calls] == ["other"] + count * ["first", "last"]
            assert [values for name, values in calls if name == "first"] == [[6.0], [12.0], [18.0]][:count]


@pytest.fixture
def rows():
    """(a session, a table [5, 3], kernel [3, 2], ids [N], pairs [B, C], a number) to build a graph on."""
    with tf.Graph().as_default(), Session() as session:
        table = tf.get_variable("table", initializer=tf.constant(np.arange(15, dtype=np.float32).reshape(5, 3)))
        kernel = tf.get_variable("kernel", initializer=tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        session.run(tf.global_variables_initializer())
        yield session, table, kernel, tf.placeholder(tf.int32, [None]), tf.placeholder(tf.int32, [None, None]), tf.placeholder(
            tf.float32, [])


def copied(session, fetch, ids, others):
    """(a function of values of ids + others, what a copy of `fetch` gives; the operations that it takes)."""
    inputs = [tf.placeholder(placeholder.dtype, placeholder.shape) for placeholder in ids + others]
    copy = Tables(session, fetch, ids, others, 5).copy(inputs, "/cpu:0")
    ops, waiting = set(), [copy.op]
    while waiting:
        op = waiting.pop()
        if op not in ops:
            ops.add(op)
            waiting += [tensor.op for tensor in op.inputs]
    return session.make_callable(copy, inputs), [op.type for op in ops]


def test_what_an_id_alone_needs_is_looked_up(rows):
    session, table, kernel, ids, pairs, number = rows
    product = tf.matmul(tf.gather(table, ids), kernel)                          # [N, 2]
    of_pairs = tf.exp(tf.gather(table, pairs) / 10)                             # [B, C, 3]
    fetch = number * tf.reduce_sum(product[:, tf.newaxis]) + tf.reduce_sum(of_pairs) * tf.reduce_max(kernel)
    values = [4, 0, 4], [[1, 2], [3, 3]], 7.0
    expected = session.run(fetch, dict(zip((ids, pairs, number), values)))
    call, ops = copied(session, fetch, [ids, pairs], [number])
    assert call(*values) == pytest.approx(expected, rel=1e-6)
    assert not {"MatMul", "Exp", "Max"}.intersection(ops)
    session.run([kernel.initializer, table.assign(0 * table)])  # too late
    assert call(*values) == pytest.approx(expected, rel=1e-6)


def test_what_several_ids_need_together_is_computed(rows):
    session, table, _, ids, _, number = rows
    fetch = number + tf.reduce_sum(tf.cumsum(tf.gather(table, ids))[-1] * tf.cast(tf.size(ids), tf.float32))
    call, ops = copied(session, fetch, [ids], [number])
    assert "Cumsum" in ops
    for some in ([1], [4, 0, 4, 2], [0, 1, 2, 3, 4]):
        assert call(some, 1.0) == session.run(fetch, {ids: some, number: 1.0})


def test_tables_with_the_same_values_are_one_and_their_memory_is_bounded(rows, monkeypatch):
    session, table, _, ids, pairs, number = rows
    fetch = number + tf.reduce_sum(tf.gather(table, ids) * 2) * number + tf.reduce_sum(tf.gather(table, pairs) * 2)
    values = [4, 0], [[1, 2]], 3.0
    expected = session.run(fetch, dict(zip((ids, pairs, number), values)))
    for most_bytes, tables, products in ((5 * 3 * 4 * 2, 1, 1), (5 * 3 * 4, 1, 2), (5 * 3 * 4 - 1, 0, 3)):
        monkeypatch.setattr(graphs, "MOST_BYTES", most_bytes)
        before = len(tf.local_variables())
        call, ops = copied(session, fetch, [ids, pairs], [number])
        assert call(*values) == pytest.approx(expected, rel=1e-6)
        assert (len(tf.local_variables()) - before, ops.count("Mul")) == (tables, products)
