"""Dice, the data-adaptive activation of the DIN paper (arXiv 1706.06978, section 5.3).

    p(x) = sigmoid((x - E[x]) / sqrt(Var[x] + epsilon))        the paper
    p(x) = sigmoid(beta * x / sqrt(1.001))                     the authors' published code, and here
    dice(x) = p(x) * x + (1 - p(x)) * alpha * x

Where the paper standardizes x over the batch, the authors' code has moving statistics that are never updated (mean 0,
variance 1, epsilon 0.001). It learns beta, a factor. alpha and beta have one value per unit and start at 0.
"""
from utils.layers import BATCH_NORM_SCALE, vector, width_of
from utils.tf1 import tf


def dice(x, name):
    """dice(x): [..., D] -> [..., D]; variables alpha<name> and beta<name> [D]."""
    alpha, beta = vector("alpha" + name, width_of(x)), vector("beta" + name, width_of(x))
    p = tf.sigmoid(beta * BATCH_NORM_SCALE * x)
    return x * (p + (1 - p) * alpha)
