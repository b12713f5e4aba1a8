"""Small operations on `tf.get_variable`, shared by the models.

Axes: B users in a batch, C candidates per user, N history items in the batch altogether.
The variables of a model are made in a scope with AUTO_REUSE (see base_model.py): the second call with a name shares them.
A history is flat: [N, ...] rows, and `segments` [N], ascending, says whose history (0 .. B - 1) each row is in.
"""
import math
import zlib

from utils.tf1 import tf

# The seed's batch normalization never trains its statistics: mean 0, variance 1, epsilon 0.001.
BATCH_NORM_SCALE = 1 / math.sqrt(1.001)


def glorot_uniform(name, shape):
    """An initial value for `name`: uniform within sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, equation 16).

    It depends on the graph's seed and on `name` alone, so that models which share a variable, and runs on any number
    of devices, start from the same values.
    """
    limit = math.sqrt(6.0 / (shape[0] + shape[-1]))
    seed = [tf.get_default_graph().seed or 0, zlib.crc32(name.encode())]
    return tf.random.stateless_uniform(shape, seed=seed, minval=-limit, maxval=limit)


def matrix(name, shape):
    """The variable `name` of `shape`, Glorot-uniform at first."""
    full_name = "/".join(filter(None, [tf.get_variable_scope().name, name]))
    return tf.get_variable(name, shape, initializer=lambda *_, **__: glorot_uniform(full_name, shape))


def vector(name, size, value=0.0):
    """The variable `name` [size], every element `value` at first."""
    return tf.get_variable(name, [size], initializer=tf.constant_initializer(value))


def width_of(x):
    """The size of the last axis of `x`, an int on TensorFlow 1.15 too."""
    return int(x.shape[-1])


def matmul(x, kernel):
    """x [..., I] times kernel [I, O] -> [..., O]."""
    if x.shape.ndims == 2:
        return tf.matmul(x, kernel)
    rows = tf.matmul(tf.reshape(x, [-1, width_of(x)]), kernel)
    y = tf.reshape(rows, tf.concat([tf.shape(x)[:-1], [width_of(kernel)]], axis=0))
    y.set_shape(x.shape[:-1].concatenate(kernel.shape[-1:]))
    return y


def dense(x, units, name, activation=None):
    """activation(x kernel + bias): [..., I] -> [..., units]; variables name/kernel and name/bias."""
    with tf.variable_scope(name):
        y = matmul(x, matrix("kernel", [width_of(x), units])) + vector("bias", units)
    return activation(y) if activation else y


def affine_norm(x, name):
    """gamma * x / sqrt(1.001) + beta, what the seed's batch normalization computes; [..., D] -> [..., D]."""
    with tf.variable_scope(name):
        gamma, beta = vector("gamma", width_of(x), 1.0), vector("beta", width_of(x))
    return gamma * BATCH_NORM_SCALE * x + beta


@tf.custom_gradient
def spread(x, segments):
    """Gives each history row the row of its user: x [B, ...] -> x[segments] [N, ...].

    As tf.gather, whose own gradient does not know that `segments` ascends and scatters row by row.
    """
    def gradient(dy):
        return segment_sum(dy, segments, tf.shape(x)[0]), None
    return tf.gather(x, segments), gradient


def segment_sum(rows, segments, count):
    """Sums the rows of each history: [N, ...] -> [count, ...]; 0 for a user without rows."""
    return tf.math.unsorted_segment_sum(rows, segments, count)


def segment_softmax(scores, segments, count):
    """Softmax over each history: [N, C] -> [N, C], the weights of one user and candidate add up to 1."""
    highest = tf.stop_gradient(tf.math.unsorted_segment_max(scores, segments, count))
    weights = tf.exp(scores - tf.gather(highest, segments))
    return weights / spread(segment_sum(weights, segments, count), segments)


def mean_pooling(rows, segments, lengths):
    """Mean of each history: [N, D] -> [B, D]."""
    return segment_sum(rows, segments, tf.size(lengths)) / tf.cast(lengths, rows.dtype)[:, tf.newaxis]


def beside_each(u, candidates):
    """Repeats each user's row for each of his candidates: u [B, D], candidates [B, C, D] -> [B, C, D]."""
    y = tf.broadcast_to(u[:, tf.newaxis, :], tf.concat([tf.shape(candidates)[:-1], [width_of(u)]], axis=0))
    y.set_shape(candidates.shape[:-1].concatenate(u.shape[-1:]))
    return y
