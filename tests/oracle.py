"""The models in float64, padded, tiled and concatenated: benchmarks/padded.py with the variables of a graph.

It is written without the project's layers, batches or graphs. Axes: B recommendations, T longest history, H = 128.
"""
import numpy as np

from benchmarks.padded import Layers, logits_of
from utils.tf1 import tf


def sigmoid(x):
    """Of an array, in float64."""
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def padded(histories):
    """Lists of items -> ([B, T] items, 0 beyond the end; [B] lengths)."""
    lengths = np.array([len(history) for history in histories], np.int32)
    items = np.zeros((len(histories), lengths.max()), np.int32)
    for row, history in enumerate(histories):
        items[row, :len(history)] = history
    return items, lengths


def logits(model, variables, cate_list, histories, candidates):
    """The logit of each recommendation.

    Args:
      model: a key of padded.REFERENCES.
      variables: the model's variables by name, each float64.
      cate_list: category of each item.
      histories: B lists of items.
      candidates: B items.

    Returns:
      [B] float64 tensor.
    """
    layers = Layers(lambda name, *_: variables[name], tf.constant(cate_list, tf.int32), cate_count=None)
    score, = logits_of(model, layers, [tf.constant(candidates, tf.int32)], *map(tf.constant, padded(histories)))
    return score
