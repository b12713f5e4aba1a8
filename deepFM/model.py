"""DeepFM: a factorization machine and an MLP on the same embeddings.

Guo et al. 2017, "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", arXiv 1703.04247,
section 2.1; in the form that the authors of DIN compare with (the first elements of the vectors as first-order terms).

    history k_1 .. k_T     candidate i          each = [item embedding 64, category embedding 64]
         |                      |
        mean                    |
         |                      |
    affine norm, dense 128 = u  |
         |                      |
         +------- u, i ---------+               logit = MLP([u, i]) + FM(u, i) + item bias
         |                      |               FM(u, i) = dense_1([<u, i>, u_0 + i_0])
    affine norm,            FM: <u, i>,
    MLP 80-40-1             u_0 + i_0
         |                      |
         +------- logit --------+

Axes: B users in a batch, C candidates per user, N history items in the batch altogether, H = 128 behaviour width.
"""
from utils.base_model import BaseModel
from utils.layers import dense, mean_pooling, mlp, score, width_of
from utils.tf1 import tf


class Model(BaseModel):
    """DeepFM with sigmoid activations."""

    def logit(self, history, candidate):
        """The `History` of B users, their candidates [B, C] -> [B, C] logits."""
        with tf.name_scope("embedding"):
            k, i = self.embed(history), self.embed(candidate)                   # [N, H], [B, C, H]
        with tf.name_scope("pooling"):
            u = mean_pooling(k, history)                                        # [B, 1, H], for all candidates
            u = dense(u, width_of(u), "dense", norm="batch_normalization")      # [B, 1, H]
        with tf.name_scope("fm"):
            x = tf.stack([tf.reduce_sum(u * i, -1), u[..., 0] + i[..., 0]], -1)  # [B, C, 2]
            fm = score(x, "f_fm")                                               # [B, C]
        with tf.name_scope("mlp"):
            return mlp([u, i]) + fm + self.item_bias(candidate)
