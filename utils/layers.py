"""Small operations on `tf.get_variable`, shared by the models.

Axes: B users in a batch, C candidates per user, N history items in the batch altogether.
The variables of a model are made in a scope with AUTO_REUSE (see base_model.py): the second call with a name shares them.
A history is flat: [N, ...] rows, and `segments` [N], ascending, says whose history (0 .. B - 1) each row is in.

A graph for one user has no segments, and his candidates lie in columns (columns.py): [1, I, C] in place of [B, C, I], and of
each history item [N, I, C] in place of [N, C, I]. The functions here take either.
"""
import math
import zlib

from utils.columns import (
    Pooled, axis_of_units, dense_in_columns, for_units_of, in_columns, matmul_in_columns, pairs_in_columns, pieces_of, width_of)
from utils.tf1 import tf
from utils.towers import gpu_names

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


def matmul(x, kernel):
    """x [..., I] times kernel [I, O] -> [..., O]; in columns [..., I, C] -> [..., O, C]."""
    if in_columns(x):
        return matmul_in_columns(x, kernel)
    if x.shape.ndims == 2:
        return tf.matmul(x, kernel)
    rows = tf.matmul(tf.reshape(x, [-1, width_of(x)]), kernel)
    y = tf.reshape(rows, tf.concat([tf.shape(x)[:-1], [int(kernel.shape[1])]], axis=0))
    y.set_shape(x.shape[:-1].concatenate(kernel.shape[-1:]))
    return y


def dense(x, units, name, norm=None, before_tanh=False):
    """x kernel + bias: [..., I] -> [..., units]; variables name/kernel and name/bias.

    In columns it is [..., I, C] -> [..., units, C]. `x` may be a list of what the layer reads side by side, [..., I_1],
    [..., I_2] and so on, I in all.

    `norm` names an affine norm that x passes first: gamma * x / sqrt(1.001) + beta, what the seed's batch normalization
    computes; variables norm/gamma and norm/beta. It is folded into the layer,

        (gamma x + beta) kernel + bias = x (gamma kernel) + (beta kernel + bias)

    which spares four passes over x and its gradient for a few over the kernel.

    `before_tanh`: half of it, and one unit more, whose tanh is 1, as dense_of_sigmoid wants it.
    """
    parts = x if isinstance(x, list) else [x]
    width = sum(width_of(piece) for part in parts for piece in pieces_of(part))
    with tf.variable_scope(name):
        kernel, bias = matrix("kernel", [width, units]), vector("bias", units)
    if norm:
        with tf.variable_scope(norm):
            gamma, beta = vector("gamma", width, 1.0), vector("beta", width)
        bias = bias + tf.linalg.matvec(kernel, beta, transpose_a=True)
        kernel = kernel * (BATCH_NORM_SCALE * gamma[:, tf.newaxis])
    if before_tanh:
        kernel, bias = with_one(kernel / 2, bias / 2)
    if in_columns(parts[-1]):
        return dense_in_columns(parts, kernel, bias)
    return tf.nn.bias_add(matmul(tf.concat(parts, axis=-1) if len(parts) > 1 else x, kernel), bias)


def score(x, name):
    """dense(x, 1, name) without the axis of its one unit: [B, C, I], or in columns [B, I, C], -> [B, C]."""
    return tf.squeeze(dense(x, 1, name), axis=axis_of_units(x))


def sigmoid(x, name):
    """The sigmoid of `x`, as an activation in `mlp`: it needs no `name`."""
    return tf.sigmoid(x)


def mlp(x, activation=sigmoid):
    """The MLP 80-40-1 that every model ends in, layers f1 to f3, with an affine norm b1 before it: [B, C, I] -> [B, C].

    Args:
      x: a list, see `dense`.
      activation: a function of a hidden layer and a name for its variables.
    """
    if in_columns(x[-1]) and activation is sigmoid:  # as tanh, which takes 8% less for one user of DIN and 4,080 candidates
        x = dense(x, 80, "f1", norm="b1", before_tanh=True)
        x = dense_of_sigmoid(x, 40, "f2", scale=1 / 2, has_one=True)
        return tf.squeeze(dense_of_sigmoid(x, 1, "f3", scale=1), axis=axis_of_units(x))
    x = activation(dense(x, 80, "f1", norm="b1"), "dice_1")                     # [B, C, 80]
    return score(activation(dense(x, 40, "f2"), "dice_2"), "f3")


def with_one(kernel, bias):
    """The kernel [I, O + 1] and bias [O + 1] that give one unit more, whose tanh is 1; see dense_of_sigmoid."""
    return tf.pad(kernel, [[0, 0], [0, 1]]), tf.pad(bias, [[0, 1]], constant_values=20.0)


def dense_of_sigmoid(x, units, name, scale, has_one=False):
    """scale * dense(sigmoid(2 x), units, name): [..., I] -> [..., units], or in columns [..., I, C] -> [..., units, C].

    It is computed as

        scale (sigmoid(2 x) kernel + bias) = tanh(x) (scale / 2 kernel) + (scale bias + sum of the rows of scale / 2 kernel)

    as TensorFlow's tanh takes half of the time of its sigmoid (52 and 98 microseconds for [4096, 80] on a core of an AMD EPYC).

    `has_one`: `x` has one unit more, whose tanh is 1: it stands for the bias, whose addition would be a pass of its own.
    """
    with tf.variable_scope(name):
        kernel = matrix("kernel", [width_of(x) - has_one, units]) * (scale / 2)
        bias = vector("bias", units) * scale + tf.reduce_sum(kernel, axis=0)
    if has_one:
        return matmul(tf.tanh(x), tf.concat([kernel, bias[tf.newaxis]], axis=0))
    y = matmul(tf.tanh(x), kernel)
    return y + for_units_of(x, bias) if in_columns(x) else tf.nn.bias_add(y, bias)


@tf.custom_gradient
def spread(x, segments):
    """Gives each history row the row of its user: x [B, ...] -> x[segments] [N, ...].

    As tf.gather, whose own gradient does not know that `segments` ascends and adds row by row: 476 microseconds for
    2,300 rows of 128, where this takes 69 (one core of an AMD EPYC).
    """
    def gradient(dy):
        return segment_sum(dy, segments, tf.shape(x)[0]), None
    return tf.gather(x, segments), gradient


def pairs(q, k, segments, w_q, w_k, w_p, bias):
    """q w_q + k w_k + (q * k) w_p + bias for each history item with each candidate of its user.

    Args:
      q: [B, C, I] candidates.
      k: [N, I] history items.
      segments: [N] whose history each item is in, ascending; or None.
      w_q, w_k, w_p, bias: [I, O] and [O].

    Returns:
      [N, C, O]; in columns, q being [1, I, C], [N, O, C].
    """
    if segments is None:
        return pairs_in_columns(q, k, w_q, w_k, w_p, bias)

    @tf.custom_gradient
    def layer(q, k, w_q, w_k, w_p, bias):
        q_part = matmul(q, w_q) + bias                                          # [B, C, O]
        # tf.expand_dims: the gradient of k[:, tf.newaxis] copies, which is 5% of a training step of 256.
        k_rows = tf.expand_dims(k, 1)                                           # [N, 1, I]
        q_rows = tf.gather(q, segments)                                         # [N, C, I]
        qk = q_rows * k_rows
        y = matmul(qk, w_p) + tf.expand_dims(matmul(k, w_k), 1) + tf.gather(q_part, segments)

        def gradient(dy):                                                       # [N, C, O]
            # The sums know that `segments` ascends: 69 microseconds for 2,300 rows of 128, where the gradient of tf.gather,
            # which adds row by row, takes 476 (one core of an AMD EPYC).
            users = tf.shape(q)[0]
            of_k = tf.reduce_sum(dy, axis=1)                                    # [N, O]
            of_q = segment_sum(dy, segments, users)                             # [B, C, O]
            d_qk = matmul(dy, tf.transpose(w_p))                                # [N, C, I]
            dk = matmul(of_k, tf.transpose(w_k)) + tf.reduce_sum(d_qk * q_rows, axis=1)
            dq = matmul(of_q, tf.transpose(w_q)) + segment_sum(d_qk * k_rows, segments, users)
            # What the embeddings wait for comes first, so that a core adds up their gradients while the other computes the
            # kernel's: 3% of a step of 1,024 (two cores of an Intel Xeon with AVX-512).
            with tf.control_dependencies([dk, dq]):
                return (dq, dk, kernel_gradient(q, of_q), kernel_gradient(k, of_k), kernel_gradient(qk, dy),
                        tf.reduce_sum(of_q, axis=[0, 1]))
        return y, gradient
    return layer(q, k, w_q, w_k, w_p, bias)


def kernel_gradient(x, dy):
    """The gradient of kernel in y = x kernel: x [..., I], dy [..., O] -> [I, O]."""
    return tf.matmul(tf.reshape(x, [-1, width_of(x)]), tf.reshape(dy, [-1, width_of(dy)]), transpose_a=True)


def segment_sum(rows, segments, count):
    """Sums the rows of each history, or other segment: [N, ...] -> [count, ...]; none is empty.

    On a GPU tf.math.segment_sum has the host wait for the device, to read how many segments there are: a training step of
    1,024 takes 3.5 ms with it and 3.0 without (NVIDIA H200).
    """
    if segments is None:
        return tf.reduce_sum(rows, axis=0, keepdims=True)
    if not gpu_names():
        return tf.math.segment_sum(rows, segments)

    @tf.custom_gradient
    def add_up(rows):  # TensorFlow's own gradient would look for negative segments, too
        return tf.math.unsorted_segment_sum(rows, segments, count), lambda dy: tf.gather(dy, segments)
    return add_up(rows)


def segment_max(rows, segments, count):
    """The highest of the rows of each history, without a gradient; as `segment_sum`."""
    if gpu_names():
        return tf.math.unsorted_segment_max(rows, segments, count)
    return tf.math.segment_max(rows, segments)


def soft_pooling(scores, rows, segments, lengths, layer):
    """layer(each history's weighted sum), the weights being the softmax of its scores.

        u_b = sum_t exp(s_t) k_t / sum_t exp(s_t), t over history b        (arXiv 1706.06978, equation 3)

    Args:
      scores: [N, C].
      rows: [N, D], k.
      segments: [N] whose history each row is in, ascending; or None.
      lengths: [B] of each history.
      layer: a dense layer without activation, a function of rows.

    Returns:
      [B, C, O]; without segments, in columns, `Pooled`.
    """
    @tf.custom_gradient
    def pool(scores, rows):
        users = tf.size(lengths)
        highest = segment_max(scores, segments, users)                          # [B, C]
        powers = tf.exp(scores - tf.gather(highest, segments))[..., tf.newaxis]  # [N, C, 1]
        total = segment_sum(powers, segments, users)                            # [B, C, 1]
        rows = rows[:, tf.newaxis, :]                                           # [N, 1, D]
        u = segment_sum(powers * rows, segments, users) / total                 # [B, C, D]

        def gradient(du):  # with w = powers / total: dk = w du and ds = w (k du - u du)
            du /= total                                                         # [B, C, D]
            mean = tf.reduce_sum(u * du, axis=-1)                               # [B, C]
            w_du = powers * tf.gather(du, segments)                             # [N, C, D]
            d_scores = tf.reduce_sum(rows * w_du, axis=-1) - tf.squeeze(powers, -1) * tf.gather(mean, segments)
            return d_scores, tf.reduce_sum(w_du, axis=1)
        return u, gradient

    if segments is None:  # a matrix product; and as the weights sum to 1, the layer may come first, on rows that are fewer
        powers = tf.exp(scores - tf.reduce_max(scores, axis=0))                 # [N, C]; tf.nn.softmax would transpose
        return Pooled(powers / tf.reduce_sum(powers, axis=0), layer(rows))
    return layer(pool(scores, rows))


def mean_pooling(rows, segments, lengths):
    """Mean of each history: [N, D] -> [B, D]."""
    return segment_sum(rows, segments, tf.size(lengths)) / tf.cast(lengths, rows.dtype)[:, tf.newaxis]


def beside_each(u, candidates):
    """Repeats each user's row for each of his candidates: u [B, D], candidates [B, C, D] -> [B, C, D].

    In columns it stays a single one: u [1, D], candidates [1, D, C] -> [1, D, 1].
    """
    if in_columns(candidates):
        return u[:, :, tf.newaxis]
    y = tf.broadcast_to(u[:, tf.newaxis, :], tf.concat([tf.shape(candidates)[:-1], [width_of(u)]], axis=0))
    y.set_shape(candidates.shape[:-1].concatenate(u.shape[-1:]))
    return y
