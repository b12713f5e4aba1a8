"""The optimizers on sparse gradients, against their formulas written plainly."""
import numpy as np
import pytest

from utils.engine.optimizers import clipped_update
from utils.tf1 import tf

START = np.random.RandomState(0).normal(size=(6, 3)).astype(np.float32)
STEPS = [([4, 1], 2.0), ([1, 0], -1.0), ([4, 5, 1], 3.0), ([0], 0.5)]  # (rows with a gradient, its size) of each step
RATE = 0.1


def gradient(step):
    rows, size = STEPS[step]
    return rows, size * np.random.RandomState(step).normal(size=(len(rows), 3)).astype(np.float32)


def tables_of(optimizer):
    """The table after each of STEPS."""
    with tf.Graph().as_default():
        table = tf.get_variable("table", initializer=START)
        rows, values = tf.placeholder(tf.int32, [None]), tf.placeholder(tf.float32, [None, 3])
        update = clipped_update(optimizer, tf.constant(RATE), [tf.IndexedSlices(values, rows, tf.constant([6, 3]))],
                                [table], tf.train.get_or_create_global_step())
        tables = []
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            for step in range(len(STEPS)):
                session.run(update, dict(zip((rows, values), gradient(step))))
                tables.append(session.run(table))
        return tables


def clip(values):
    return values * min(1, 5 / np.sqrt((values.astype(np.float64) ** 2).sum()))


def test_gradient_descent_moves_the_rows_of_the_clipped_gradient():
    expected = START.astype(np.float64)
    for step, table in enumerate(tables_of("sgd")):
        rows, values = gradient(step)
        expected[rows] -= RATE * clip(values)
        np.testing.assert_allclose(table, expected, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "lazy_adam"])
def test_adam_decays_every_rows_moments_and_lazy_adam_those_of_the_rows_it_touches(optimizer):
    expected, m, v = START.astype(np.float64), np.zeros((6, 3)), np.zeros((6, 3))
    for step, table in enumerate(tables_of(optimizer)):
        rows, values = gradient(step)
        dense = np.zeros((6, 3))
        dense[rows] = clip(values)
        touched = rows if optimizer == "lazy_adam" else np.arange(6)
        m[touched] = 0.9 * m[touched] + 0.1 * dense[touched]
        v[touched] = 0.999 * v[touched] + 0.001 * dense[touched] ** 2
        rate = RATE * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        expected[touched] -= rate * m[touched] / (np.sqrt(v[touched]) + 1e-8)
        np.testing.assert_allclose(table, expected, atol=1e-5)


def test_lazy_adam_leaves_untouched_rows_as_they_are():
    tables = tables_of("lazy_adam")
    for before, after, (rows, _) in zip([START] + tables, tables, STEPS):
        untouched = np.setdiff1d(np.arange(6), rows)
        np.testing.assert_array_equal(after[untouched], before[untouched])
        assert np.abs(after[rows] - before[rows]).min() > 0
