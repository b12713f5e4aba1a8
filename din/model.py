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
from utils.base_model import BaseModel
from utils.layers import dense, mlp, pair_mlp, soft_pooling, width_of
from utils.tf1 import tf


class Model(BaseModel):
    """DIN with sigmoid activations."""

    activation = None  # of the MLP's hidden layers, see layers.mlp: the sigmoid

    def logit(self, history, candidate):
        """The `History` of B users, their candidates [B, C] -> [B, C] logits."""
        with tf.name_scope("embedding"):
            k, q = self.embed(history), self.embed(candidate)                   # [N, H], [B, C, H]
        with tf.name_scope("attention"):
            self.attention = pair_mlp(q, k, history) / width_of(k) ** 0.5       # [N, C]
            u = soft_pooling(self.attention, k, history)                        # [B, C, H]
            u = dense(u, width_of(k), "hist_fcn", norm="batch_normalization")   # [B, C, H]
        with tf.name_scope("mlp"):
            return mlp([u, q, u * q], self.activation) + self.item_bias(candidate)
