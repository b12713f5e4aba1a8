"""Deep Interest Network: the user is seen from the candidate's side.

Zhou et al. 2017, "Deep Interest Network for Click-Through Rate Prediction", arXiv 1706.06978, section 4.3, in the form
of the authors' published code: its softmax, scale, norms, u * q and item bias are not in the paper.

    history k_1 .. k_T     candidate q          each = [item embedding 64, category embedding 64]
         |    |              |    |
         |    +-- attention -+    |             a_t = MLP_80_40_1([q, k_t, q - k_t, q * k_t]) / sqrt(128)
         |           |            |             w = softmax(a) over the history
         +-- weighted sum         |             p = sum_t w_t k_t
                  |               |
         affine norm, dense 128   |             u = dense(norm(p))
                  |               |
                  +- [u, q, u*q] -+
                         |
              affine norm, MLP 80-40-1          logit = MLP(norm([u, q, u * q])) + item bias
                         |
                       logit

An affine norm is batch normalization whose statistics stay at mean 0 and variance 1: a scale and an offset per unit.

Axes: B users in a batch, C candidates per user; N history items in the batch, the sum of its users' T; H = 128 wide.
"""
from utils.base_model import BaseModel
from utils.layers import dense, mlp, pair_mlp, soft_pooling, width_of
from utils.tf1 import tf


class Model(BaseModel):
    """DIN with sigmoid activations."""

    activation = None  # a function of a hidden layer of the last MLP and a name, see layers.mlp; None: the sigmoid

    def logit(self, history, candidate):
        """The `History` of B users, their candidates [B, C] -> [B, C] logits."""
        with tf.name_scope("embedding"):
            k, q = self.embed(history), self.embed(candidate)                   # [N, H], [B, C, H]
        with tf.name_scope("attention"):
            self.attention = pair_mlp(q, k, history) / width_of(k) ** 0.5       # [N, C], each k with its user's q
            p = soft_pooling(self.attention, k, history)                        # [B, C, H]
            u = dense(p, width_of(p), "hist_fcn", norm="batch_normalization")   # [B, C, H]
        with tf.name_scope("mlp"):
            return mlp([u, q, u * q], self.activation) + self.item_bias(candidate)
