"""What does not depend on the fed values that change is computed once."""
import numpy as np

from utils.graphs import once_for
from utils.session import Session
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
        start = once_for(session, fetch, source, [left, fed, right])
        for x in (1.0, 2.0):
            value = start(x)
            for y, f, z in ((3.0, 4.0, 5.0), (6.0, 7.0, 8.0)):
                np.testing.assert_allclose(value(y, f, z), np.exp(5 * x) + (5 * x + y) * x + f * z + 5 - 5 * y, rtol=1e-6)
    assert sorted(calls) == [-5.0, -5.0, 5.0, 10.0]


def test_a_source_that_is_read_beside_the_others_is_fed_as_it_is():
    with tf.Graph().as_default(), Session() as session:
        source, other = tf.placeholder(tf.float32, []), tf.placeholder(tf.float32, [])
        value = once_for(session, source - other, source, [other])(5.0)
        assert [value(2.0), value(9.0)] == [3.0, -4.0]
