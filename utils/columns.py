"""What is of one user's candidates, in columns: the layers of a graph that scores the catalogue for one user at a time.

Axes: C candidates, N history items of the user, I and O units.
In columns is [1, I, C] what is [B, C, I] for several users, and [N, I, C] what is of each history item. What is the same for
all candidates is a single column, [1, I, 1], which is never repeated. A product with a kernel of [80, 40] takes a sixth less
than with candidates in rows: oneDNN takes 48 columns of a kernel at a time.
"""
import functools
import operator

from utils.tf1 import tf

OF_HISTORY, OF_CATEGORY = "of_history", "of_category"  # see pairs_in_columns


def in_columns(x):
    """Whether `x` lies in columns: as many as there are candidates, which is not known before, or a single one."""
    return x.shape.as_list()[-1] in (None, 1)


def axis_of_units(x):
    """The axis I of `x`, from the end."""
    return -2 if in_columns(x) else -1


def width_of(x):
    """The number of units of `x`, in columns or not, an int on TensorFlow 1.15 too."""
    return int(x.shape[axis_of_units(x)])


def unit(x, index):
    """One unit of `x`, without their axis: [B, C, I] -> [B, C]."""
    return x[..., index, :] if in_columns(x) else x[..., index]


def for_units_of(x, values):
    """`values` [I] in the shape that goes with the units of `x`: [I], or in columns [I, 1]."""
    return values[:, tf.newaxis] if in_columns(x) else values


def matmul_in_columns(x, kernel):
    """x [N, I, C] times kernel [I, O] -> [N, O, C]; or without N."""
    if x.shape.ndims == 2:
        return tf.matmul(tf.transpose(kernel), x)
    if x.shape.as_list()[0] == 1:  # as a product of two matrices 5% faster
        return tf.expand_dims(tf.matmul(tf.transpose(kernel), tf.squeeze(x, 0)), 0)
    return tf.matmul(tf.transpose(kernel)[tf.newaxis], x)


class Halves:
    """What the items of one user's candidates give, and what their categories do, if these are few.

    A layer reads less of them: a category's part of a product is the same for all of its candidates.

    Args:
      item: [1, I / 2, C], in columns.
      category: [1, I / 2, M], a column for each of the M categories; or `PooledByCategory`.
      which: [M, C] one where a candidate is of a category, and zero.
    """

    def __init__(self, item, category, which):
        self.item, self.category, self.which = item, category, which
        self.shape = item.shape


class Pooled:
    """The weighted sums of one user's rows, in columns: weights [N, C], rows [N, D] -> [1, D, C].

    A product with a kernel is taken of the rows first, which are fewer than the candidates.
    """

    def __init__(self, weights, rows):
        self.weights, self.rows = weights, rows
        self.value = tf.expand_dims(tf.matmul(rows, weights, transpose_a=True), 0)
        self.shape = self.value.shape

    def __mul__(self, x):
        if not isinstance(x, Halves):
            return self.value * x
        of_item = tf.split(self.rows, 2, axis=1)[0]                             # [N, D / 2]
        return Halves(Pooled(self.weights, of_item).value * x.item, PooledByCategory(x.category), x.which)


class PooledByCategory:
    """The second half of a product of `Pooled` with `Halves`, whose category is given; see `dense_in_columns`."""

    def __init__(self, category):
        self.category, self.shape = category, category.shape


def pieces_of(part):
    """The tensors, `Pooled` or `PooledByCategory` that make up a part of what a layer reads."""
    return [part.item, part.category] if isinstance(part, Halves) else [part]


def dense_in_columns(parts, kernel, bias):
    """parts kernel + bias: a list of [1, I_1, C] and so on -> [1, units, C].

    Of several parts the second is the candidates' alone: what it gives may be kept for other users.
    """
    units = int(kernel.shape[1])
    blocks = iter(tf.split(kernel, [width_of(piece) for part in parts for piece in pieces_of(part)]))
    kept, products, pooled = [], [], None
    for index, part in enumerate(parts):
        for piece in pieces_of(part):
            block = next(blocks)
            if isinstance(piece, Pooled):
                pooled, of_rows, which = piece, block[:, tf.newaxis], None      # [D, 1, O]
            elif isinstance(piece, PooledByCategory):  # of the second half of the rows that were pooled before
                of_half = tf.transpose(piece.category, [1, 2, 0]) * block[:, tf.newaxis]  # [D / 2, M, O]
                of_rows, which = of_rows + tf.pad(of_half, [[width_of(piece), 0], [0, 0], [0, 0]]), part.which
            else:
                product = matmul_in_columns(piece, block)
                if isinstance(part, Halves) and piece is part.category:
                    product = tf.matmul(product, part.which[tf.newaxis])
                (kept if index == min(1, len(parts) - 1) else products).append(product)
    if pooled:
        weights, rows = pooled.weights, tf.matmul(pooled.rows, tf.reshape(of_rows, [width_of(pooled), -1]))
        if which is not None:  # a row and a weight for each category: of those of another category the weight is zero
            weights = tf.reshape(tf.expand_dims(weights, 1) * which, [-1, tf.shape(which)[1]])  # [N M, C]
            rows = tf.reshape(rows, [-1, units])                                # [N M, O]
        products.append(Pooled(weights, rows).value)
    return sum_of(products + [sum_of(kept + [bias[:, tf.newaxis]])])


def sum_of(tensors):
    """Their sum; that of Python would start with a pass that adds 0."""
    return functools.reduce(operator.add, tensors)


def pairs_in_columns(q, k, w_q, w_k, w_p, bias):
    """As layers.pairs, in columns: the same candidates go with each k, so it is the kernel that is scaled, q (w_q + k w_p).

    What is in these collections, one of each tower, may be computed once for several and fed:

        OF_HISTORY     [N, O, I / 2 + 1] the scaled kernel's half for items, with a column for what does not depend on q
        OF_CATEGORY    what is of the second half of an embedding, its category's, [N, O, C], or of `Halves` [N, O, M]: of history
                       items of one category it is the same, [1, O, C], which spares half of the products

    Of a history of one item all are matrices, without the first axis, and so is what is returned, [O, C]: products of matrices
    take 5% less than those of batches of one.
    """
    one = k.shape.as_list()[0] == 1

    def matrix_of(x):
        return tf.squeeze(x, 0) if one else x

    def kernel_for_half(k, w_q, w_k, w_p):
        scaled = tf.transpose(w_q) + k[:, tf.newaxis, :] * tf.transpose(w_p)    # [N, O, I / 2]
        constant = tf.expand_dims(tf.matmul(k, w_k) + bias / 2, 2)              # [N, O, 1]
        return matrix_of(tf.concat([scaled, constant], axis=2))

    of_item, of_category = (kernel_for_half(*half) for half in zip(*[
        tf.split(x, 2, axis) for x, axis in ((k, 1), (w_q, 0), (w_k, 0), (w_p, 0))]))
    q_item, q_category = (q.item, q.category) if isinstance(q, Halves) else tf.split(q, 2, axis=1)
    q_item, q_category = (tf.concat([half, tf.ones_like(half[:, :1])], axis=1) for half in (q_item, q_category))
    of_category = tf.matmul(of_category, matrix_of(q_category))
    tf.add_to_collection(OF_HISTORY, of_item)
    tf.add_to_collection(OF_CATEGORY, of_category)
    if isinstance(q, Halves):  # what is of a category is multiplied by the ones in q.which
        if not one:  # it may be fed for one, and go with them all
            of_category += tf.zeros_like(of_item[..., :1])
        return tf.matmul(tf.concat([of_item, of_category], axis=-1), matrix_of(tf.concat([q_item, q.which[tf.newaxis]], axis=1)))
    return tf.matmul(of_item, matrix_of(q_item)) + of_category
