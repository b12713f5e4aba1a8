"""What is of one user's candidates, in columns: the layers of a graph that scores the catalogue for one user at a time.

Axes: C candidates, N history items of the user, I and O units.
In columns is [1, I, C] what is [B, C, I] for several users, and [N, I, C] what is of each history item. What is the same for
all candidates is a single column, [1, I, 1], which is never repeated. A product with a kernel of [80, 40] takes a sixth less
than with candidates in rows: oneDNN takes 48 columns of a kernel at a time.
"""
import functools
import operator

from utils.tf1 import tf

OF_CATEGORY = "of_category"  # see pairs_in_columns


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
    """x [N, I, C] times kernel [I, O] -> [N, O, C]."""
    if x.shape.as_list()[0] == 1:  # as a product of two matrices 2% faster
        return tf.expand_dims(tf.matmul(kernel, tf.squeeze(x, 0), transpose_a=True), 0)
    return tf.matmul(tf.transpose(kernel)[tf.newaxis], x)


class Halves:
    """What the items of one user's candidates give, and what their categories do, if these are few.

    A layer reads less of them: a category's part of a product is the same for all of its candidates.

    Args:
      item: [1, I / 2, C], in columns.
      category: [1, I / 2, M], a column for each of the M categories; or `Pooled`.
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
        of_item, of_category = tf.split(self.rows, 2, axis=1)                   # [N, D / 2] each
        # A row and a weight for each category and history item: of those of another category the weight is zero.
        rows = tf.transpose(x.category, [2, 0, 1]) * of_category                # [M, N, D / 2]
        weights = x.which[:, tf.newaxis] * self.weights                         # [M, N, C]
        return Halves(Pooled(self.weights, of_item).value * x.item, Pooled(
            tf.reshape(weights, [-1, tf.shape(weights)[2]]), tf.reshape(rows, [-1, width_of(x.item)])), x.which)


def pieces_of(part):
    """The tensors, or `Pooled`, that make up a part of what a layer reads."""
    return [part.item, part.category] if isinstance(part, Halves) else [part]


def dense_in_columns(parts, kernel, bias):
    """parts kernel + bias: a list of [1, I_1, C] and so on -> [1, units, C].

    Of several parts the second is the candidates' alone: what it gives may be kept for other users.
    """
    blocks = iter(tf.split(kernel, [width_of(piece) for part in parts for piece in pieces_of(part)]))
    kept, products, pooled = [], [], []
    for index, part in enumerate(parts):
        for piece in pieces_of(part):
            block = next(blocks)
            if isinstance(piece, Pooled):
                pooled.append((piece.weights, tf.matmul(piece.rows, block)))
                continue
            product = matmul_in_columns(piece, block)
            if isinstance(part, Halves) and piece is part.category:
                product = tf.matmul(product, part.which[tf.newaxis])
            (kept if index == min(1, len(parts) - 1) else products).append(product)
    if pooled:
        weights = pooled[-1][0]  # for each category, or for all of them, as those before it
        products.append(Pooled(weights, sum_of([
            tf.tile(rows, [tf.shape(weights)[0] // tf.shape(rows)[0], 1]) for _, rows in pooled])).value)
    return sum_of(products + [sum_of(kept + [bias[:, tf.newaxis]])])


def sum_of(tensors):
    """Their sum; that of Python would start with a pass that adds 0."""
    return functools.reduce(operator.add, tensors)


def pairs_in_columns(q, k, w_q, w_k, w_p, bias):
    """As layers.pairs, in columns: the same candidates go with each k, so it is the kernel that is scaled, q (w_q + k w_p).

    The second half of an embedding is its category's. What is of this half, [N, O, C], or of `Halves` [N, O, M], is in the
    collection OF_CATEGORY: for history items of one category it may be fed, as [1, O, C], which spares half of the products.
    """
    def kernel_for_half(k, w_q, w_k, w_p):
        scaled = tf.transpose(w_q) + k[:, tf.newaxis, :] * tf.transpose(w_p)    # [N, O, I / 2]
        constant = tf.expand_dims(tf.matmul(k, w_k) + bias / 2, 2)              # [N, O, 1]
        return tf.concat([scaled, constant], axis=2)

    def times(kernel, q):  # a one in q for the constant spares a pass over [N, O, C]
        return tf.matmul(kernel, tf.concat([q, tf.ones_like(q[:, :1])], axis=1))

    of_item, of_category = (kernel_for_half(*half) for half in zip(*[
        tf.split(x, 2, axis) for x, axis in ((k, 1), (w_q, 0), (w_k, 0), (w_p, 0))]))
    q_item, q_category = (q.item, q.category) if isinstance(q, Halves) else tf.split(q, 2, axis=1)
    of_category = times(of_category, q_category)
    tf.add_to_collection(OF_CATEGORY, of_category)
    if isinstance(q, Halves):  # what is of a category, and the constant, is multiplied by the ones in q.which
        of_item, constant = tf.split(of_item, [width_of(q_item), 1], axis=2)
        return tf.matmul(tf.concat([of_item, constant + of_category], axis=2), tf.concat([q_item, q.which[tf.newaxis]], axis=1))
    return times(of_item, q_item) + of_category
