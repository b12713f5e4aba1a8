"""How DIN ranks the catalogue: the scores of model.py's `logit`, by less work. Inference alone.

A history item k and a candidate q have halves, their item's and their category's: k = [k_i, k_c], q = [q_i, q_c]. The
first layer of attention, which reads [q, k, q - k, q * k], is for a given k a layer on q,

    z = A q + c      A = (W_q + W_d + diag(k) W_p)^T [80, 128]      c = (W_k - W_d)^T k + b [80]

1. The attention of a pair (k, q) is the same for every user who has k: it is computed once for each distinct k.
2. The catalogue is taken by category, in blocks of C candidates. A block has few categories, M: with their embeddings
   E [64, M], and o [M, C] which says whose category is which, q_c = E o and

       z = [A_i, c, A_c E] [q_i; 1; o]      64 + 1 + M columns

   Where M would be above 64, o is q_c and E the identity.

3. sigmoid(z) is 1/2 + 1/2 tanh(z / 2), which takes half of the time; the halves go into the kernels. A bias is a column
   of its kernel, for a unit whose tanh is 1. Attention is then three products:

       a = K_3 tanh(K_2 tanh(K_1 [q_i; 1; o]))      K_1 [81, 65 + M], K_2 [41, 81], K_3 [1, 41]

4. The weights w = softmax(a) [T, C] of a user with the history rows k [T, 128] add up to 1, so the affine layer after
   the pooling may come before it: u = w^T (k N + n). Of the MLP's first layer

       [u, q, u * q] V + v = w^T ((k N + n) V_u) + (q V_q + v) + (u * q) V_p

   the first product is of T rows instead of C, and the second is computed once for all users.
"""
import numpy as np

from utils.engine.embeddings import ScoredItems
from utils.engine.session import aligned
from utils.layers import dense_kernel, mlp_after_first, on_tanh, pair_kernels
from utils.tf1 import tf
from utils.towers import gpu_names

# Items of a block: tensors of [81, 2016] fit into the megabyte of cache that a core has for itself. oneDNN takes 48
# items at a time.
WIDTH, WIDTH_ON_GPU = 2016, 16384
HISTORY_ITEMS_ON_GPU = 16  # of a call: to start an operation takes longer there than most operations do
SPAN = 64                  # history items that are a thread's work until it takes more
ONE = 20.0                 # its tanh is 1


class Ranking:
    """Scores the catalogue for users, block by block; see serving/ranking.py.

    Args:
      session: a session.Session, with the variables of a DIN in its graph.
      tables: the `EmbeddingTables` of these.
      cate_list: [item_count] category of each item.
      activation: of the MLP's hidden layers, see layers.mlp.
      threads: a ThreadPoolExecutor, to compute in.

    Attributes:
      blocks: the catalogue in the order in which it is scored, a list of arrays of item ids.

    Raises:
      ValueError: a variable is missing, or of another shape.
    """

    def __init__(self, session, tables, cate_list, activation, threads):
        self._cate_list, self._threads = np.asarray(cate_list), threads
        width, self._history_items = (WIDTH_ON_GPU, HISTORY_ITEMS_ON_GPU) if gpu_names() else (WIDTH, 1)
        sizes = np.bincount(self._cate_list)
        order = np.lexsort((self._cate_list, -sizes[self._cate_list])).astype(np.int32)  # the largest categories first
        self.blocks = [order[first:first + width] for first in range(0, len(order), width)]
        with tf.name_scope("ranking"), tf.variable_scope(tf.get_variable_scope(), reuse=True):
            self._ids = tf.placeholder(tf.int32, [None])
            items = ScoredItems(tables, self._ids)
            self._embedding, self._bias = items.look_up("embedding"), items.look_up("bias")  # [n, H], [n]
            self._build_attention(session, int(self._embedding.shape[1]))
            self._build_logits(session, int(self._embedding.shape[1]), activation)

    # ---- the graph ---------------------------------------------------------------------------------------------------

    def _build_attention(self, session, width):
        half = width // 2
        # K_1 in parts, of each history item and of its category; the last row is for the unit of 1.
        w_q, w_k, w_p, b = (tensor / 2 for tensor in pair_kernels(width, 80, "f1_att"))
        w_q, w_p = (tf.pad(tf.transpose(kernel), [[0, 1], [0, 0]]) for kernel in (w_q, w_p))  # [81, H]
        a = w_q + tf.expand_dims(self._embedding, 1) * w_p                      # [n, 81, H]
        c = tf.pad(tf.matmul(self._embedding, w_k) + b, [[0, 0], [0, 1]], constant_values=ONE)  # [n, 81]
        of_items = tf.concat([a[:, :, :half], tf.expand_dims(c, 2)], axis=2)    # [n, 81, 65]
        self._item_kernels = session.make_callable(of_items, [self._ids], in_caller=True)
        basis = tf.placeholder(tf.float32, [half, None])
        self._category_kernels = session.make_callable(tf.matmul(a[:, :, half:], basis), [self._ids, basis],
                                                       in_caller=True)          # [n, 81, M]

        k_2, k_3 = (_transposed(*on_tanh(*dense_kernel(*layer))) for layer in ((80, 40, "f2_att"), (40, 1, "f3_att")))
        k_2 = tf.concat([k_2 / 2, ONE * tf.one_hot([80], 81)], axis=0)
        k_2, k_3 = map(tf.constant, session.run([k_2, k_3 / width ** 0.5]))     # [41, 81], [1, 41]
        several = [] if self._history_items == 1 else [None]
        of_item, of_category = (tf.placeholder(tf.float32, several + [81, columns]) for columns in (half + 1, None))
        x = tf.placeholder(tf.float32, [None, None])                            # [65 + M, C]
        y = tf.tanh(tf.matmul(k_2, tf.tanh(tf.matmul(tf.concat([of_item, of_category], axis=-1), x))))  # [41, C]
        self._attention = session.make_callable(tf.squeeze(tf.matmul(k_3, y), axis=-2), [of_item, of_category, x],
                                                in_caller=True)                 # [C]

    def _build_logits(self, session, width, activation):
        layer, layer_bias = dense_kernel(width, width, "hist_fcn", norm="batch_normalization")
        kernel, bias = dense_kernel(3 * width, 80, "f1", norm="b1")
        v_u, v_q, v_p = tf.split(kernel, 3)                                     # [H, 80] each
        rows = tf.matmul(self._embedding, layer) + layer_bias                   # [T, H]
        self._user = session.make_callable([rows, tf.matmul(rows, v_u)], [self._ids], in_caller=True)
        of_q = tf.matmul(self._embedding, v_q) + bias                           # [C, 80]
        self._candidates = session.make_callable([self._embedding, of_q, self._bias], [self._ids], in_caller=True)

        u_rows, u_part, scores, q, q_part, item_bias = inputs = [tf.placeholder(tf.float32, shape) for shape in (
            [None, width], [None, 80], [None, None], [None, width], [None, 80], [None])]
        powers = tf.exp(scores - tf.reduce_max(scores, axis=0))                 # [T, C]; tf.nn.softmax would transpose
        weights = powers / tf.reduce_sum(powers, axis=0)
        u, of_u = (tf.matmul(weights, rows, transpose_a=True) for rows in (u_rows, u_part))  # [C, H], [C, 80]
        x = tf.matmul(u * q, tf.constant(session.run(v_p))) + of_u + q_part
        self._logits = session.make_callable(mlp_after_first(x, activation) + item_bias, inputs, in_caller=True)  # [C]

    # ---- the work ----------------------------------------------------------------------------------------------------

    def begin(self, histories):
        """Takes the users whose `histories`, a list of arrays of item ids, the blocks are to be scored for."""
        self._items, places = np.unique(np.concatenate(histories), return_inverse=True)
        _, first, self._category_of = np.unique(self._cate_list[self._items], return_index=True, return_inverse=True)
        self._one_of_each_category = self._items[first]
        self._rows = np.split(places.reshape(-1), np.cumsum([len(history) for history in histories])[:-1])
        self._users = [self._user(history) for history in histories]
        self._scores = np.empty((len(self._items), len(self.blocks[0])), np.float32)

    def block(self, number):
        """Returns the function of a user's number that gives his scores of block `number`."""
        items = self.blocks[number]
        candidates = q, _, _ = self._candidates(items)
        scores = self._scores[:, :len(items)]
        self._score_pairs(scores, *self._columns(items, q))
        return lambda user: self._logits(*self._users[user], scores.take(self._rows[user], axis=0), *candidates)

    def _columns(self, items, q):
        """([q_i; 1; o] [65 + M, C], E [64, M]) of a block of the catalogue whose embeddings are `q` [C, H]."""
        of_items, of_categories = np.split(q.T, 2)
        _, first, which = np.unique(self._cate_list[items], return_index=True, return_inverse=True)
        if len(first) <= len(of_categories):
            basis, columns = of_categories[:, first], np.eye(len(first), dtype=np.float32)[:, which.reshape(-1)]
        else:
            basis, columns = np.eye(len(of_categories), dtype=np.float32), of_categories
        return aligned(np.concatenate([of_items, np.ones_like(of_items[:1]), columns])), basis

    def _score_pairs(self, scores, columns, basis):
        """Fills `scores` with the attention of each history item to each candidate of a block, by its `_columns`."""
        of_categories = self._category_kernels(self._one_of_each_category, basis)

        def score(first):
            items, categories, span_scores = (
                rows[first:first + SPAN] for rows in (self._items, self._category_of, scores))
            of_items = self._item_kernels(items)
            for index in range(0, len(items), self._history_items):
                which = slice(index, index + self._history_items) if self._history_items > 1 else index
                span_scores[which] = self._attention(of_items[which], of_categories[categories[which]], columns)
        for _ in self._threads.map(score, range(0, len(self._items), SPAN)):
            pass  # an error in a thread is raised here


def _transposed(kernel, bias):
    """A layer's kernel and bias as a matrix [O, I + 1], for a unit of 1 behind the others."""
    return tf.transpose(tf.concat([kernel, [bias]], axis=0))
