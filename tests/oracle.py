"""The models as their papers and the authors' code write them: padded, tiled, concatenated, in float64.

Slow on purpose, and written without the project's layers, batches or graphs; it shares only the variables.

Axes: B recommendations, T longest history, H = 128.
"""
import numpy as np

from utils.tf1 import tf


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
      model: "din", "din_dice", "pnn", "deepFM" or "wide_deep".
      variables: the model's variables by name, each float64.
      cate_list: category of each item.
      histories: B lists of items.
      candidates: B items.

    Returns:
      [B] float64 tensor.
    """
    items, lengths = padded(histories)
    cate_list = np.asarray(cate_list)

    def embed(ids):
        return tf.concat([tf.gather(variables["item_emb_w"], ids), tf.gather(variables["cate_emb_w"], cate_list[ids])], -1)

    def dense(x, name):
        return tf.tensordot(x, variables[name + "/kernel"], 1) + variables[name + "/bias"]

    def batch_norm(x, name):  # mean 0, variance 1, epsilon 0.001
        return (x - 0.0) / np.sqrt(1.0 + 0.001) * variables[name + "/gamma"] + variables[name + "/beta"]

    def activation(x, number):
        if model != "din_dice":
            return tf.sigmoid(x)
        alpha, beta = variables["alphadice_%d" % number], variables["betadice_%d" % number]
        p = tf.sigmoid(beta * x / np.sqrt(1.0 + 0.001))
        return p * x + (1.0 - p) * alpha * x

    i, h = embed(np.asarray(candidates)), embed(items)                          # [B, H], [B, T, H]
    mask = np.arange(items.shape[1]) < lengths[:, np.newaxis]                   # [B, T]
    if model in ("din", "din_dice"):
        q = tf.tile(i[:, tf.newaxis, :], [1, items.shape[1], 1])                # [B, T, H]
        a = tf.concat([q, h, q - h, q * h], axis=-1)                            # [B, T, 4 H]
        a = tf.sigmoid(dense(a, "f1_att"))
        a = tf.sigmoid(dense(a, "f2_att"))
        a = dense(a, "f3_att")[:, :, 0] / np.sqrt(128.0)                        # [B, T]
        a = tf.where(mask, a, tf.fill(tf.shape(a), tf.constant(-2.0 ** 32 + 1, tf.float64)))
        u = tf.reduce_sum(tf.nn.softmax(a)[:, :, tf.newaxis] * h, axis=1)       # [B, H]
        u = dense(batch_norm(u, "batch_normalization"), "hist_fcn")
    else:
        u = tf.reduce_sum(h * mask[:, :, np.newaxis], axis=1) / lengths[:, np.newaxis]
        u = dense(batch_norm(u, "batch_normalization"), "dense")

    x = [u, i] if model in ("deepFM", "wide_deep") else [u, i, u * i]
    x = batch_norm(tf.concat(x, axis=-1), "b1")
    x = activation(dense(x, "f1"), 1)
    x = activation(dense(x, "f2"), 2)
    logit = dense(x, "f3")[:, 0] + tf.gather(variables["item_b"], np.asarray(candidates))
    if model == "deepFM":
        fm = tf.stack([tf.reduce_sum(u * i, axis=1), u[:, 0] + i[:, 0]], axis=1)
        logit += dense(fm, "f_fm")[:, 0]
    if model == "wide_deep":
        wide = tf.stack([u[:, 0] * i[:, 0], u[:, 127] * i[:, 127], u[:, 64] * i[:, 64]], axis=1)
        logit += dense(wide, "f_wide")[:, 0]
    return logit
