"""Small operations on `tf.get_variable`, shared by the models.

Axes: B users in a batch, C candidates per user, N history items in the batch; I inputs and O outputs of a layer.
A history is flat: [N, ...] rows, and its `segments` [N], ascending, say whose history (0 .. B - 1) each row is in.
The variables of a model are made in a scope with AUTO_REUSE: the second call with a name shares them.
"""
import math
import zlib

from utils.tf1 import tf
from utils.towers import gpu_names

# The original's batch normalization never trains its statistics: mean 0, variance 1, epsilon 0.001.
BATCH_NORM_SCALE = 1 / math.sqrt(1.001)


def matrix(name, shape):
    """The variable `name` of `shape`, at first uniform within sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010,
    equation 16).

    Its first value depends on the graph's seed and on `name` alone, so that models which share a variable, and runs on
    any number of devices, start from the same values.
    """
    limit = math.sqrt(6.0 / (shape[0] + shape[-1]))
    full_name = "/".join(filter(None, [tf.get_variable_scope().name, name]))

    def glorot_uniform(*_, **__):
        seed = [tf.get_default_graph().seed or 0, zlib.crc32(full_name.encode())]
        return tf.random.stateless_uniform(shape, seed=seed, minval=-limit, maxval=limit)
    return tf.get_variable(name, shape, initializer=glorot_uniform)


def vector(name, size, value=0.0):
    """The variable `name` [size], every element `value` at first."""
    return tf.get_variable(name, [size], initializer=tf.constant_initializer(value))


def width_of(x):
    """The length of the last axis of `x`, an int on TensorFlow 1.15 too."""
    return int(x.shape[-1])


def rows_of(x):
    """x [..., I] as a matrix [R, I]."""
    return x if x.shape.ndims == 2 else tf.reshape(x, [-1, width_of(x)])


def matmul(x, kernel):
    """x [..., I] times kernel [I, O] -> [..., O]."""
    if x.shape.ndims == 2:
        return tf.matmul(x, kernel)
    y = tf.reshape(tf.matmul(rows_of(x), kernel), tf.concat([tf.shape(x)[:-1], [width_of(kernel)]], axis=0))
    y.set_shape(x.shape[:-1].concatenate(kernel.shape[-1:]))
    return y


def dense(x, units, name, norm=None):
    """x kernel + bias: [..., I] -> [..., units]; variables name/kernel and name/bias.

    Args:
      x: a tensor; or a list of tensors that the layer reads side by side, [B, C, I_1], [B, C, I_2] and so on, I in all.
        A tensor with the same row for all candidates may be [B, 1, I_1].
      norm: the name of an affine norm that x passes first, gamma * x / sqrt(1.001) + beta: what the original's batch
        normalization computes; variables norm/gamma and norm/beta.
    """
    parts = x if isinstance(x, list) else [x]
    kernel, bias = dense_kernel(sum(map(width_of, parts)), units, name, norm)
    if len(parts) == 1:
        return tf.nn.bias_add(matmul(x, kernel), bias)
    products = {True: [], False: []}  # a product for each part: a row for all candidates is multiplied once
    for part, block in zip(parts, tf.split(kernel, list(map(width_of, parts)))):
        products[part.shape.as_list()[1] == 1].append(matmul(part, block))
    shared = tf.nn.bias_add(tf.add_n(products[True]), bias) if products[True] else bias
    return tf.add_n(products[False]) + shared if products[False] else shared


def dense_kernel(width, units, name, norm=None):
    """The kernel [width, units] and bias [units] of `dense`, with the norm folded in.

        (gamma x + beta) kernel + bias = x (gamma kernel) + (beta kernel + bias)

    spares four passes over x and its gradient for a few over the kernel.
    """
    with tf.variable_scope(name):
        kernel, bias = matrix("kernel", [width, units]), vector("bias", units)
    if norm:
        with tf.variable_scope(norm):
            gamma, beta = vector("gamma", width, 1.0), vector("beta", width)
        bias = bias + tf.linalg.matvec(kernel, beta, transpose_a=True)
        kernel = kernel * (BATCH_NORM_SCALE * gamma[:, tf.newaxis])
    return kernel, bias


def score(x, name):
    """dense(x, 1, name) without the axis of its one unit: [B, C, I] -> [B, C]."""
    return tf.squeeze(dense(x, 1, name), axis=-1)


def mlp(x, activation=None):
    """The MLP 80-40-1 that every model ends in, layers f1 to f3, after an affine norm b1: [B, C, I] -> [B, C].

    Args:
      x: a list, see `dense`.
      activation: a function of a hidden layer and a name for its variables; None: the sigmoid.
    """
    return mlp_after_first(dense(x, 80, "f1", norm="b1"), activation)


def mlp_after_first(x, activation=None):
    """What `mlp` makes of the result of its first layer: [B, C, 80] -> [B, C]."""
    def activated(rows, name):
        return activation(rows, name) if activation else tf.sigmoid(rows)
    rows = activated(rows_of(x), "dice_1")                                      # [B C, 80]
    rows = activated(dense(rows, 40, "f2"), "dice_2")                           # [B C, 40]
    return tf.reshape(dense(rows, 1, "f3"), tf.shape(x)[:-1])


def on_tanh(kernel, bias):
    """The kernel and bias of a layer on tanh(x / 2) that computes sigmoid(x) kernel + bias.

    A tanh takes half of a sigmoid's time: 52 and 98 microseconds for [4096, 80] (a core of an AMD EPYC).
    """
    return kernel / 2, bias + tf.reduce_sum(kernel / 2, axis=0)


def pair_mlp(q, k, history):
    """An MLP 80-40-1 of [q, k, q - k, q * k], for each history item k with each candidate q of its user.

    Its layers are dense layers f1_att to f3_att, with sigmoids between them.

    Args:
      q: [B, C, I] candidates.
      k: [N, I] rows of the history.
      history: the `History` of B users.

    Returns:
      [N, C].
    """
    w_q, w_k, w_p, bias = (part / 2 for part in pair_kernels(width_of(k), 80, "f1_att"))
    # tf.expand_dims: the gradient of k[:, tf.newaxis] copies, which is 5% of a training step of 256.
    qk = of_items(q, history.segments) * tf.expand_dims(k, 1)                           # [N, C, I]
    q_part = of_items(matmul(q, w_q) + bias, history.segments)                  # [N, C, 80], once per candidate
    x = matmul(qk, w_p) + tf.expand_dims(matmul(k, w_k), 1) + q_part
    kernel, bias = on_tanh(*dense_kernel(80, 40, "f2_att"))
    rows = tf.nn.bias_add(tf.matmul(tf.tanh(rows_of(x)), kernel / 2), bias / 2)  # [N C, 40], halved for the next tanh
    kernel, bias = on_tanh(*dense_kernel(40, 1, "f3_att"))
    return tf.reshape(tf.nn.bias_add(tf.matmul(tf.tanh(rows), kernel), bias), tf.shape(x)[:-1])


def pair_kernels(width, units, name):
    """A layer of [q, k, q - k, q * k] as its kernels of q, k and q * k, [width, units] each, and its bias [units].

        [q, k, q - k, q * k] W = q (W_q + W_d) + k (W_k - W_d) + (q * k) W_p
    """
    kernel, bias = dense_kernel(4 * width, units, name)
    w_q, w_k, w_d, w_p = tf.split(kernel, 4)
    return w_q + w_d, w_k - w_d, w_p, bias


def of_items(rows, segments):
    """The row of each history item's user: [B, ...] -> [N, ...]."""
    users = tf.shape(rows)[0]

    @tf.custom_gradient
    def gather(rows):
        return tf.gather(rows, segments), lambda dy: segment_sum(dy, segments, users)
    return gather(rows)


def segment_sum(rows, segments, count):
    """Sums the rows of each history, or other segment: [N, ...] -> [count, ...]; none is empty.

    On a GPU tf.math.segment_sum has the host wait for the device, to read how many segments there are: a training step
    of 1,024 takes 3.5 ms with it and 3.0 without (NVIDIA H200).
    """
    if not gpu_names():
        return tf.math.segment_sum(rows, segments)

    @tf.custom_gradient
    def add_up(rows):  # TensorFlow's own gradient would look for negative segments, too
        return tf.math.unsorted_segment_sum(rows, segments, count), lambda dy: tf.gather(dy, segments)
    return add_up(rows)


def soft_pooling(scores, k, history):
    """Each history's weighted sum for each candidate, the weights being the softmax of its scores.

        u_b = sum_t exp(s_t) k_t / sum_t exp(s_t), t over history b        (arXiv 1706.06978, equation 3)

    Args:
      scores: [N, C].
      k: [N, I] rows of the history.
      history: the `History` of B users.

    Returns:
      [B, C, I].
    """
    segments, users = history.segments, tf.size(history.lengths)
    # As segment_sum, by what does not wait for a GPU.
    highest = (tf.math.unsorted_segment_max(scores, segments, users) if gpu_names() else
               tf.math.segment_max(scores, segments))                           # [B, C]
    powers = tf.exp(scores - tf.gather(tf.stop_gradient(highest), segments))[..., tf.newaxis]  # [N, C, 1]
    total = segment_sum(powers, segments, users)                                # [B, C, 1]
    return segment_sum(powers * tf.expand_dims(k, 1), segments, users) / total  # [B, C, I]


def mean_pooling(k, history):
    """Each history's mean, the same for all candidates: [N, I] rows -> [B, 1, I]."""
    total = segment_sum(k, history.segments, tf.size(history.lengths))          # [B, I]
    return tf.expand_dims(total / tf.cast(history.lengths, k.dtype)[:, tf.newaxis], 1)
