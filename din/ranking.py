"""Scores the whole catalogue as model.py's `logit` does, with less work; for inference alone.

A history item k and a candidate q are columns of 128 here, with two parts, their item's and their category's:
k = [k_i; k_c], q = [q_i; q_c]. The first layer of attention reads [q; k; q - k; q * k]. Its kernel has the blocks W_q,
W_k, W_d, W_p [128, 80], its bias is b. For a given k it is an affine function of q:

    z = A q + c      A = (W_q + W_d + diag(k) W_p)^T [80, 128]      c = (W_k - W_d)^T k + b [80]

1. The attention of a pair (k, q) is the same for every user who has k: it is computed once for each distinct k.
2. A = [A_i, A_c], 64 columns each. The catalogue is taken by category, in blocks of C candidates. Most blocks have few
   categories, M: with their embeddings E [64, M], and one-hot columns o [M, C] for each candidate's, q_c = E o and

       z = [A_i, c, A_c E] [q_i; 1; o]      64 + 1 + M columns

   A_c depends on k_c alone, so A_c E is computed once for each category of the histories. Where M would be above 64, o
   is q_c and E the identity.

3. sigmoid(z) = 1/2 + 1/2 tanh(z / 2), and a tanh takes less time; the factors go into the kernels. Each hidden layer
   has one unit more, whose tanh is 1: the next layer's bias is the column of that unit. Attention is three products:

       a = K_3 tanh(K_2 tanh(K_1 [q_i; 1; o]))      K_1 [81, 65 + M], K_2 [41, 81], K_3 [1, 41] with the 1 / sqrt(128)

4. From here on items are rows, k [T, 128] of a user's history and q [C, 128]. The weights w = softmax(a) [T, C] of a
   candidate add up to 1, so the affine layer F, f after the pooling may come before it: u = w^T (k F + f). The MLP's
   first layer is V = [V_u; V_q; V_p] [384, 80], v, norms included:

       [u, q, u * q] V + v = w^T ((k F + f) V_u) + (q V_q + v) + (u * q) V_p

   (k F + f) V_u is computed once for a user, and q V_q + v once for a block.
"""
import numpy as np

from utils.engine.embeddings import ScoredItems
from utils.engine.session import aligned
from utils.layers import dense_kernel, mlp_after_first, on_tanh, pair_kernels
from utils.tf1 import tf
from utils.towers import gpu_names

# Candidates of a block. Tensors of [81, 2016] fit into the megabyte of cache that a core has for itself: with 4,032 it
# takes a tenth longer (two cores of an AMD EPYC, Zen 5).
BLOCK, BLOCK_ON_GPU = 2016, 16384
HISTORY_ITEMS_ON_GPU = 16  # of a call: there it takes longer to start an operation than to run it
SPAN = 64                  # history items of one task of a thread
SATURATED = 20.0           # its tanh is 1 in float32


class Ranking:
    """Scores the catalogue for users, block by block; see utils/serving/ranking.py.

    Args:
      session: an engine.session.Session, with the variables of a DIN in its graph.
      tables: its `EmbeddingTables`.
      cate_list: [item_count] category of each item.
      activation: of the MLP's hidden layers, see utils/layers.py.
      threads: a ThreadPoolExecutor, to compute in.

    Attributes:
      blocks: the catalogue in the order in which it is scored, a list of arrays of item ids.
    """

    def __init__(self, session, tables, cate_list, activation, threads):
        self._cate_list, self._threads = np.asarray(cate_list), threads
        size, self._items_of_call = (BLOCK_ON_GPU, HISTORY_ITEMS_ON_GPU) if gpu_names() else (BLOCK, 1)
        sizes = np.bincount(self._cate_list)
        order = np.lexsort((self._cate_list, -sizes[self._cate_list])).astype(np.int32)  # the largest categories first
        self.blocks = [order[first:first + size] for first in range(0, len(order), size)]
        with tf.name_scope("ranking"), tf.variable_scope(tf.get_variable_scope(), reuse=True):
            self._ids = tf.placeholder(tf.int32, [None])
            items = ScoredItems(tables, self._ids)
            self._embedding, self._bias = items.look_up("embedding"), items.look_up("bias")  # [n, H], [n]
            self._build_attention(session, int(self._embedding.shape[1]))
            self._build_logits(session, int(self._embedding.shape[1]), activation)

    def _build_attention(self, session, width):
        half = width // 2
        # W_q + W_d, W_k - W_d, W_p and b, halved for tanh(z / 2); a row is added for the unit of 1.
        on_q, on_k, on_qk, bias = (part / 2 for part in pair_kernels(width, 80, "f1_att"))
        on_q, on_qk = (tf.pad(tf.transpose(kernel), [[0, 1], [0, 0]]) for kernel in (on_q, on_qk))  # [81, H]
        a = on_q + tf.expand_dims(self._embedding, 1) * on_qk                   # [n, 81, H]
        c = tf.pad(tf.matmul(self._embedding, on_k) + bias, [[0, 0], [0, 1]], constant_values=SATURATED)  # [n, 81]
        item_kernels = tf.concat([a[:, :, :half], tf.expand_dims(c, 2)], axis=2)  # [n, 81, 65]
        self._item_kernels = session.make_callable(item_kernels, [self._ids], in_caller=True)
        basis = tf.placeholder(tf.float32, [half, None])                        # E
        self._category_kernels = session.make_callable(tf.matmul(a[:, :, half:], basis), [self._ids, basis],
                                                       in_caller=True)          # [n, 81, M]

        k_2, k_3 = (_transposed(*on_tanh(*dense_kernel(*layer))) for layer in ((80, 40, "f2_att"), (40, 1, "f3_att")))
        k_2 = tf.concat([k_2 / 2, SATURATED * tf.one_hot([80], 81)], axis=0)
        k_2, k_3 = map(tf.constant, session.run([k_2, k_3 / width ** 0.5]))     # [41, 81], [1, 41]
        batch = [] if self._items_of_call == 1 else [None]                      # an axis of history items
        k_1 = [tf.placeholder(tf.float32, batch + [81, columns]) for columns in (half + 1, None)]
        columns = tf.placeholder(tf.float32, [None, None])                      # [65 + M, C]
        units = tf.tanh(tf.matmul(k_2, tf.tanh(tf.matmul(tf.concat(k_1, axis=-1), columns))))  # [..., 41, C]
        self._attention = session.make_callable(tf.squeeze(tf.matmul(k_3, units), axis=-2), k_1 + [columns],
                                                in_caller=True)                 # [..., C]

    def _build_logits(self, session, width, activation):
        f_kernel, f_bias = dense_kernel(width, width, "hist_fcn", norm="batch_normalization")
        kernel, bias = dense_kernel(3 * width, 80, "f1", norm="b1")
        v_u, v_q, v_p = tf.split(kernel, 3)                                     # [H, 80] each
        rows = tf.matmul(self._embedding, f_kernel) + f_bias                    # [T, H]
        self._user = session.make_callable([rows, tf.matmul(rows, v_u)], [self._ids], in_caller=True)
        of_q = tf.matmul(self._embedding, v_q) + bias                           # [C, 80]
        self._candidates = session.make_callable([self._embedding, of_q, self._bias], [self._ids], in_caller=True)

        shapes = [None, width], [None, 80], [None, None], [None, width], [None, 80], [None]
        inputs = [tf.placeholder(tf.float32, shape) for shape in shapes]
        user_rows, user_part, attention, q, q_part, item_bias = inputs
        powers = tf.exp(attention - tf.reduce_max(attention, axis=0))           # [T, C]; tf.nn.softmax would transpose
        weights = powers / tf.reduce_sum(powers, axis=0)
        u, u_part = (tf.matmul(weights, rows, transpose_a=True) for rows in (user_rows, user_part))  # [C, H], [C, 80]
        x = u_part + q_part + tf.matmul(u * q, tf.constant(session.run(v_p)))
        self._logits = session.make_callable(mlp_after_first(x, activation) + item_bias, inputs, in_caller=True)  # [C]

    def begin(self, histories):
        """Prepares to score for users, given the history of each, a list of arrays of item ids."""
        self._items, places = np.unique(np.concatenate(histories), return_inverse=True)
        _, first, self._category_of = np.unique(self._cate_list[self._items], return_index=True, return_inverse=True)
        self._one_of_each_category = self._items[first]
        self._places = np.split(places.reshape(-1), np.cumsum([len(history) for history in histories])[:-1])
        self._users = [self._user(history) for history in histories]
        self._buffer = np.empty((len(self._items), len(self.blocks[0])), np.float32)

    def block(self, number):
        """Returns the function of a user's index that gives the logits of block `number`, until the next call."""
        ids = self.blocks[number]
        candidates = self._candidates(ids)
        attention = self._buffer[:, :len(ids)]
        self._fill(attention, *self._columns(ids, candidates[0]))
        return lambda user: self._logits(*self._users[user], attention.take(self._places[user], axis=0), *candidates)

    def _columns(self, ids, q):
        """([q_i; 1; o] [65 + M, C], E [64, M]) of the candidates `ids`, whose embeddings are `q` [C, H]."""
        q_i, q_c = np.split(q.T, 2)
        _, first, category = np.unique(self._cate_list[ids], return_index=True, return_inverse=True)
        if len(first) <= len(q_c):
            basis, o = q_c[:, first], np.eye(len(first), dtype=np.float32)[:, category.reshape(-1)]
        else:
            basis, o = np.eye(len(q_c), dtype=np.float32), q_c
        return aligned(np.concatenate([q_i, np.ones_like(q_i[:1]), o])), basis

    def _fill(self, attention, columns, basis):
        """Fills `attention`, of each history item [n] to each candidate [C] of a block, by the block's `_columns`."""
        category_kernels = self._category_kernels(self._one_of_each_category, basis)

        def fill_span(first):
            items, categories, rows = (
                array[first:first + SPAN] for array in (self._items, self._category_of, attention))
            item_kernels = self._item_kernels(items)
            for index in range(0, len(items), self._items_of_call):
                which = slice(index, index + self._items_of_call) if self._items_of_call > 1 else index
                rows[which] = self._attention(item_kernels[which], category_kernels[categories[which]], columns)
        for _ in self._threads.map(fill_span, range(0, len(self._items), SPAN)):
            pass  # an error in a thread is raised here


def _transposed(kernel, bias):
    """A layer's kernel and bias as a matrix [O, I + 1], for a unit of 1 behind the others."""
    return tf.transpose(tf.concat([kernel, [bias]], axis=0))
