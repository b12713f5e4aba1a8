"""The tables of embeddings: looked up for the items of a batch, and updated in these items' rows alone.

A gradient of a table is sparse and has each row once, however often the batch repeats an item: so the gradients' global
norm is a sum over its rows, and an update can overwrite rows instead of adding to them.
"""
import numpy as np

from utils.layers import matrix, sum_by_id, vector
from utils.tf1 import tf

EMBEDDING_WIDTH = 64  # of an item and of a category: H = 128 together


class Embeddings:
    """The variables item_emb_w, cate_emb_w and item_b, made at the first lookup; `tables` are those made, by name.

    What is looked up is a leaf of the graph: its gradients, of all towers, are turned into the tables' by
    `table_gradients`. That spares the gradients of the gathers, which have a row for each item of each history.

    Args:
      item_count, cate_count: number of items and of categories.
      cate_list: [item_count] category of each item.
    """

    def __init__(self, item_count, cate_count, cate_list):
        self._item_count, self._cate_count = item_count, cate_count
        self._cate_list = tf.constant(np.asarray(cate_list, np.int32), name="cate_list")
        self.tables = {}
        self._rows, self._biases = [], []  # (ids, what was looked up) of each lookup

    def rows(self, items):
        """[item embedding, category embedding] of each item: ids [R] -> [R, H]."""
        self.tables["item_emb_w"] = matrix("item_emb_w", [self._item_count, EMBEDDING_WIDTH])
        self.tables["cate_emb_w"] = matrix("cate_emb_w", [self._cate_count, EMBEDDING_WIDTH])
        rows = tf.concat([tf.gather(self.tables["item_emb_w"], items),
                          tf.gather(self.tables["cate_emb_w"], tf.gather(self._cate_list, items))], axis=-1)
        self._rows.append((items, rows))
        return rows

    def biases(self, items):
        """The learned bias of each item: ids [R] -> [R]."""
        self.tables["item_b"] = vector("item_b", self._item_count)
        biases = tf.gather(self.tables["item_b"], items)
        self._biases.append((items, biases))
        return biases

    @property
    def leaves(self):
        """What was looked up, for tf.gradients."""
        return [values for _, values in self._rows + self._biases]

    def table_gradients(self, gradients):
        """The sparse gradient of each table by the variable's name, made of the gradients of `leaves`."""
        ids, d_rows = self._joined(self._rows, gradients[:len(self._rows)])
        items, d_rows = sum_by_id(ids, d_rows)                                  # [U], [U, H]
        d_items, d_cates = tf.split(d_rows, 2, axis=-1)                         # [U, 64] each
        cates, d_cates = sum_by_id(tf.gather(self._cate_list, items), d_cates)
        biased, d_biases = sum_by_id(*self._joined(self._biases, gradients[len(self._rows):]))
        found = {"item_emb_w": (d_items, items), "cate_emb_w": (d_cates, cates), "item_b": (d_biases, biased)}
        return {name: tf.IndexedSlices(values, rows, tf.constant(self.tables[name].shape.as_list()))
                for name, (values, rows) in found.items()}

    @staticmethod
    def _joined(lookups, gradients):
        """The ids and gradients of several lookups, one after another."""
        return tf.concat([ids for ids, _ in lookups], axis=0), tf.concat(gradients, axis=0)
