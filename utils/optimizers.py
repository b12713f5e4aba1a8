"""The optimizers of the authors' scripts, and how their learning rates fall."""
from utils.tf1 import tf

OPTIMIZERS = {"sgd": tf.train.GradientDescentOptimizer, "adam": tf.train.AdamOptimizer}

DECAY_STEPS = 336000


def learning_rate_at(optimizer, initial, step):
    """The learning rate of step `step` (from 0), as the authors' scripts have it.

    sgd: a tenth from step 336,000. adam (deepFM): times 0.9 each time that 336,000 steps are done.
    """
    if optimizer == "sgd":
        return initial * 0.1 if step >= DECAY_STEPS else initial
    return initial * 0.9 ** (step // DECAY_STEPS)
