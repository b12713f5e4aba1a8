"""Product-based Neural Network: the MLP sees the product of user and candidate.

Qu et al. 2016, "Product-based Neural Networks for User Response Prediction", arXiv 1611.00144, section III; in the
form that the authors of DIN compare with (the element-wise product in place of the product layer).

    history k_1 .. k_T     candidate i          each = [item embedding 64, category embedding 64]
         |                      |
        mean                    |
         |                      |
    affine norm, dense 128 = u  |
         |                      |
         +---- [u, i, u*i] -----+               logit = MLP([u, i, u * i]) + item bias
                    |
         affine norm, MLP 80-40-1
                    |
                  logit

Axes: B users in a batch, C candidates per user, N history items in the batch altogether, H = 128 behaviour width.
"""
from utils.base_model import BaseModel
from utils.layers import dense, mean_pooling, mlp, width_of
from utils.tf1 import tf


class Model(BaseModel):
    """PNN with sigmoid activations."""

    def logit(self, history, candidate):
        """The `History` of B users, their candidates [B, C] -> [B, C] logits."""
        with tf.name_scope("embedding"):
            k, i = self.embed(history), self.embed(candidate)                   # [N, H], [B, C, H]
        with tf.name_scope("pooling"):
            u = mean_pooling(k, history)                                        # [B, 1, H], for all candidates
            u = dense(u, width_of(u), "dense", norm="batch_normalization")      # [B, 1, H]
        with tf.name_scope("mlp"):
            return mlp([u, i, u * i]) + self.item_bias(candidate)
