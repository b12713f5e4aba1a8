"""Wide&Deep: a linear model of crossed features beside an MLP.

Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems", arXiv 1606.07792, section 3; in the form that the
authors of DIN compare with (products of three elements of the vectors as the crossed features).

    history k_1 .. k_T     candidate i          each = [item embedding 64, category embedding 64]
         |                      |
        mean                    |
         |                      |
    affine norm, dense 128 = u  |
         |                      |
         +------- u, i ---------+               logit = MLP([u, i]) + wide(u, i) + item bias
         |                      |               wide(u, i) = dense_1([u_0 i_0, u_127 i_127, u_64 i_64])
    affine norm,           wide: three
    MLP 80-40-1            products
         |                      |
         +------- logit --------+

Axes: B users in a batch, C candidates per user, N history items in the batch altogether, H = 128 behaviour width.
"""
from utils.base_model import BaseModel
from utils.layers import dense, mean_pooling, mlp, score, width_of
from utils.tf1 import tf


class Model(BaseModel):
    """Wide&Deep with sigmoid activations."""

    def logit(self, history, candidate):
        """The `History` of B users, their candidates [B, C] -> [B, C] logits."""
        with tf.name_scope("embedding"):
            k, i = self.embed(history), self.embed(candidate)                   # [N, H], [B, C, H]
        with tf.name_scope("pooling"):
            u = mean_pooling(k, history)                                        # [B, 1, H], for all candidates
            u = dense(u, width_of(u), "dense", norm="batch_normalization")      # [B, 1, H]
        with tf.name_scope("wide"):
            x = u * i                                                           # [B, C, H]
            x = tf.stack([x[..., 0], x[..., -1], x[..., 64]], axis=-1)          # [B, C, 3]
            wide = score(x, "f_wide")                                           # [B, C]
        with tf.name_scope("mlp"):
            return mlp([u, i]) + wide + self.item_bias(candidate)
