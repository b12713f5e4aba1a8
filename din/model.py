"""Deep Interest Network: the user is seen from the candidate's side.

Zhou et al. 2017, "Deep Interest Network for Click-Through Rate Prediction", arXiv 1706.06978, section 4.3.

    history k_1 .. k_T     candidate q          each = [item embedding 64, category embedding 64]
         |    |              |    |
         |    +-- attention -+    |             a_t = MLP_80_40_1([q, k_t, q - k_t, q * k_t]) / sqrt(128)
         |           |            |             w = softmax(a) over the history
         +-- weighted sum         |             u = sum_t w_t k_t
                  |               |
         affine norm, dense 128   |
                  |               |
                  +- [u, q, u*q] -+
                         |
              affine norm, MLP 80-40-1          logit = MLP([u, q, u * q]) + item bias
                         |
                       logit

Axes: B users in a batch, C candidates per user, N history items in the batch altogether, H = 128 behaviour width.
"""
from utils.base_model import BaseModel, OneUserTower
from utils.columns import axis_of_units, in_columns, width_of
from utils.layers import dense, dense_of_sigmoid, matrix, mlp, pairs, sigmoid, soft_pooling, vector, with_one
from utils.tf1 import tf


class Model(BaseModel):
    """DIN with sigmoid activations."""

    one_user_towers = [OneUserTower(by_category, history) for history in (None, 1) for by_category in (False, True)]
    activation = staticmethod(sigmoid)  # of the MLP's hidden layers; see layers.mlp

    def logit(self, history, candidate):
        """The score of each candidate, before the sigmoid.

        Args:
          history: `History` of B users.
          candidate: [B, C] item ids.

        Returns:
          [B, C] logits.
        """
        with tf.name_scope("embedding"):
            k, q = self.embed(history.items, candidate)                         # [N, H], [B, C, H]
        with tf.name_scope("attention"):
            self.attention = attention(q, k, history.segments)                  # [N, C]
            u = soft_pooling(self.attention, k, history.segments, history.lengths, layer=lambda rows: dense(
                rows, width_of(rows), "hist_fcn", norm="batch_normalization"))  # [B, C, H]
        with tf.name_scope("mlp"):
            return mlp([u, q, u * q], self.activation) + self.item_bias(candidate)


def attention(q, k, segments):
    """How much each history item matters to each candidate (the a of the paper's equation 3, before the softmax).

    The first layer reads [q, k, q - k, q * k]. Its kernel has four blocks of H rows, and

        [q, k, q - k, q * k] W = q (W_q + W_d) + k (W_k - W_d) + (q * k) W_p

    so the q part is computed once per recommendation instead of once per history item, and nothing of width 4 H is
    ever built.

    Args:
      q: [B, C, H] candidates; or in columns, see columns.py.
      k: [N, H] history items.
      segments: [N] whose history each item is in, ascending; or None.

    Returns:
      [N, C].
    """
    width = width_of(k)
    # What a sigmoid reads is made half as large as it is by halving kernels and biases; see dense_of_sigmoid.
    with tf.variable_scope("f1_att"):
        kernel, bias = matrix("kernel", [4 * width, 80]) / 2, vector("bias", 80) / 2
    one = in_columns(q)
    if one:
        kernel, bias = with_one(kernel, bias)
    w_q, w_k, w_d, w_p = tf.split(kernel, 4)                                    # [H, 80] each
    x = pairs(q, k, segments, w_q + w_d, w_k - w_d, w_p, bias)                  # [N, C, 80]
    x = dense_of_sigmoid(x, 40, "f2_att", scale=1 / 2, has_one=one)             # [N, C, 40]
    scores = dense_of_sigmoid(x, 1, "f3_att", scale=1 / width ** 0.5)           # [N, C, 1]
    # In columns, of one history item, it is [1, C] already.
    return scores if x.shape.ndims == 2 else tf.squeeze(scores, axis=axis_of_units(x))
