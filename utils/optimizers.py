"""The optimizers of the authors' scripts, and how their learning rates fall."""
from utils.tf1 import tf


class GradientDescent(tf.train.GradientDescentOptimizer):
    """Gradient descent for sparse gradients that have each row once."""

    def _resource_apply_sparse_duplicate_indices(self, grad, handle, indices):
        # As rows are distinct, they can be read, lowered and written back: 150 microseconds for 2,260 rows of 64, where
        # the scatter-add of TensorFlow's own class takes 470 (one core of an AMD EPYC).
        rows = tf.gather(handle, indices) - self._learning_rate_tensor * grad
        return tf.raw_ops.ResourceScatterUpdate(resource=handle.handle, indices=indices, updates=rows)


OPTIMIZERS = {"sgd": GradientDescent, "adam": tf.train.AdamOptimizer}

CLIP_NORM = 5.0  # of the gradients' global norm
DECAY_STEPS = 336000


def learning_rate_at(optimizer, initial, step):
    """The learning rate of step `step` (from 0), as the authors' scripts have it.

    sgd: a tenth from step 336,000. adam (deepFM): times 0.9 each time that 336,000 steps are done.
    """
    if optimizer == "sgd":
        return initial * 0.1 if step >= DECAY_STEPS else initial
    return initial * 0.9 ** (step // DECAY_STEPS)


def clipped_update(optimizer, learning_rate, gradients, variables, global_step):
    """The operation that updates `variables` once, with the gradients clipped to a global norm of 5.

    Args:
      optimizer: a key of OPTIMIZERS.
      learning_rate: [] tensor.
      gradients: of the variables; sparse ones have each row once.
      global_step: the counter to add 1 to.
    """
    shrink = CLIP_NORM / tf.maximum(tf.linalg.global_norm(gradients), CLIP_NORM)
    if optimizer == "sgd":  # a shrunk learning rate does what shrunk gradients do, and saves a pass over them
        return GradientDescent(learning_rate * shrink).apply_gradients(zip(gradients, variables), global_step)
    shrunk = [tf.IndexedSlices(gradient.values * shrink, gradient.indices, gradient.dense_shape)
              if isinstance(gradient, tf.IndexedSlices) else gradient * shrink for gradient in gradients]
    return OPTIMIZERS[optimizer](learning_rate).apply_gradients(zip(shrunk, variables), global_step)
