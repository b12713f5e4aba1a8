"""A Session's callables give what tf.Session's give."""
import threading

import numpy as np
import pytest

from utils.engine.session import Session
from utils.tf1 import tf


@pytest.fixture
def graph():
    """(x [None] int32, y = 2 x, an update that adds y's sum to `total`, `total`)."""
    with tf.Graph().as_default():
        x = tf.placeholder(tf.int32, [None])
        y = 2 * x
        total = tf.get_variable("total", [], tf.int32, initializer=tf.zeros_initializer())
        yield x, y, tf.assign_add(total, tf.reduce_sum(y)).op, total


@pytest.mark.parametrize("session_class", [tf.Session, Session])
def test_a_callable_computes_tensors_and_runs_operations_in_the_order_asked_for(graph, session_class):
    x, y, update, total = graph
    with session_class() as session:
        session.run(total.initializer)
        values = session.make_callable([update, y, x + 1, y], [x])([3, 4])
        assert values[0] is None
        np.testing.assert_array_equal(values[1:], [[6, 8], [4, 5], [6, 8]])
        np.testing.assert_array_equal(session.make_callable(y, [x])(np.array([5], np.int64)), [10])
        assert session.make_callable(update, [x])([1]) is None
        assert session.make_callable(total)() == session.run(total) == 16
        np.testing.assert_array_equal(session.make_callable([x, y], [x])([1, 2]), [[1, 2], [2, 4]])
        assert session.make_callable([], [x])([1]) == []
        nested = session.make_callable([[y], (x + 1, update)], [x])([0])
        assert nested[0] == [[0]] and nested[1][1] is None


def test_it_calls_tensorflow_without_session_run(graph, monkeypatch):
    x, y, update, total = graph
    with Session() as session:
        session.run(total.initializer)
        call = session.make_callable([y, update], [x])
        monkeypatch.setattr(tf.Session, "run", None)
        assert call([7])[0] == [14]


def test_what_an_operation_refuses_is_raised(graph):
    x, _, _, _ = graph
    with Session() as session:
        with pytest.raises(tf.errors.InvalidArgumentError, match="indices"):
            session.make_callable(tf.gather(tf.constant([1, 2, 3]), x), [x])([7])


def test_a_callable_may_compute_in_the_thread_that_calls():
    threads = []

    def note(value):
        threads.append(threading.get_ident())
        return value

    with tf.Graph().as_default(), Session() as session:
        x = tf.placeholder(tf.float32, [])
        y = tf.py_func(note, [x], tf.float32, stateful=False)
        assert session.make_callable(y, [x], in_caller=True)(2.0) == 2.0
    assert threads == [threading.get_ident()]
