"""The tables of embeddings: looked up for the items of a batch, and updated in these items' rows alone.

A gradient of a table is sparse and has each row once, however often the batch repeats an item: so the gradients' global
norm is a sum over its rows, and an update can overwrite rows instead of adding to them.
"""
import numpy as np

from utils.layers import matrix, sum_by_id, vector
from utils.tf1 import tf

EMBEDDING_WIDTH = 64  # of an item and of a category: H = 128 together
MOST_NORMS = 10000    # rows of a table whose norms are computed: enough to draw a histogram of

# Where the categories of items are looked up. The ids come from the host, and TensorFlow keeps int32 constants there,
# too: on a GPU the gather would have all of cate_list copied to it at each step.
HOST = "/cpu:0"


class Embeddings:
    """The variables item_emb_w, cate_emb_w and item_b, made at the first lookup.

    What is looked up is a leaf of the graph: its gradients, of all towers together, become those of the tables in
    `table_gradients`. That spares the gradients of the gathers, which have a row for each item of each history.

    Args:
      item_count, cate_count: number of items and of categories.
      cate_list: [item_count] category of each item.
    """

    def __init__(self, item_count, cate_count, cate_list):
        self._item_count, self._cate_count = item_count, cate_count
        with tf.device(HOST):
            self._cate_list = tf.constant(np.asarray(cate_list, np.int32), name="cate_list")
        self._tables = {}   # by name, as are
        self._lookups = {}  # what was looked up: [(ids, values)]

    def rows(self, items):
        """[item embedding, category embedding] of each item: ids [...] -> [..., H]."""
        item_emb_w = matrix("item_emb_w", [self._item_count, EMBEDDING_WIDTH])
        cate_emb_w = matrix("cate_emb_w", [self._cate_count, EMBEDDING_WIDTH])
        with tf.device(HOST):
            categories = tf.gather(self._cate_list, items)
        return tf.concat([self._lookup(item_emb_w, items), self._lookup(cate_emb_w, categories)], axis=-1)

    def biases(self, items):
        """The learned bias of each item: ids [...] -> [...]."""
        return self._lookup(vector("item_b", self._item_count), items)

    def _lookup(self, table, ids):
        with tf.device(table.device):  # the rows travel to the tower, not the table
            values = tf.gather(table, ids)
        self._tables[table.op.name] = table
        self._lookups.setdefault(table.op.name, []).append((ids, values))
        return values

    def norms(self):
        """The lengths of the rows of the tables of embeddings, {name: [rows]}; of a large table, evenly spaced rows."""
        def norms_of(table):
            count = int(table.shape[0])
            return tf.norm(tf.gather(table, tf.range(0, count, -(-count // MOST_NORMS))), axis=-1)
        with tf.name_scope("embedding_norms"):
            return {name: norms_of(table) for name, table in self._tables.items() if table.shape.ndims == 2}

    def leaves(self):
        """What was looked up in each table, by the table's name: lists of tensors, for tf.gradients."""
        return {name: [values for _, values in lookups] for name, lookups in self._lookups.items()}

    def gradient(self, table, gradients):
        """The sparse gradient of the variable `table`, made of those of its leaves."""
        ids = [tf.reshape(ids, [-1]) for ids, _ in self._lookups[table.op.name]]
        rows, sums = sum_by_id(ids, [tf.reshape(rows, [-1] + table.shape.as_list()[1:]) for rows in gradients])
        return tf.IndexedSlices(sums, rows, tf.constant(table.shape.as_list()))
