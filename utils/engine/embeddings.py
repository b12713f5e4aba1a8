"""The tables of embeddings: looked up for the items of a batch, and updated in these items' rows alone.

A gradient of a table is sparse and has each row once, however often the batch repeats an item: so the gradients' global
norm is a sum over its rows, and an update can overwrite rows instead of adding to them.
"""
import numpy as np

from utils.columns import Halves
from utils.layers import matrix, segment_sum, vector
from utils.tf1 import tf

EMBEDDING_WIDTH = 64  # of an item and of a category: H = 128 together
MOST_NORMS = 10000    # rows of a table whose norms are computed: enough to draw a histogram of

# Where the categories of items are looked up. The ids come from the host, and TensorFlow keeps int32 constants there,
# too: on a GPU the gather would have all of cate_list copied to it at each step.
HOST = "/cpu:0"


class Embeddings:
    """The variables item_emb_w, cate_emb_w and item_b, made at the first lookup.

    Args:
      item_count, cate_count: number of items and of categories.
      cate_list: [item_count] category of each item.
    """

    def __init__(self, item_count, cate_count, cate_list):
        self._item_count, self._cate_count = item_count, cate_count
        with tf.device(HOST):
            self._cate_list = tf.constant(np.asarray(cate_list, np.int32), name="cate_list")

    def rows(self, items):
        """[item embedding, category embedding] of each item: ids [...] -> [..., H]."""
        with tf.device(HOST):
            categories = tf.gather(self._cate_list, items)
        return tf.concat([look_up(table, ids) for table, ids in zip(self._matrices(), (items, categories))], axis=-1)

    def columns(self, items, by_category):
        """As `rows`, of one user's candidates, in columns (columns.py): ids [1, C] -> [1, H, C]; `by_category`, `Halves`."""
        if not by_category:
            return tf.transpose(self.rows(items), [0, 2, 1])
        of_items, of_categories = self._matrices()
        with tf.device(HOST):
            categories, places = tf.unique(tf.gather(self._cate_list, items[0]))
        return Halves(tf.transpose(look_up(of_items, items), [0, 2, 1]),
                      tf.transpose(look_up(of_categories, categories))[tf.newaxis],
                      tf.one_hot(places, tf.size(categories), axis=0))

    def biases(self, items):
        """The learned bias of each item: ids [...] -> [...]."""
        return look_up(self._vector(), items)

    def _matrices(self):
        return [matrix(name, [count, EMBEDDING_WIDTH]) for name, count in (
            ("item_emb_w", self._item_count), ("cate_emb_w", self._cate_count))]

    def _vector(self):
        return vector("item_b", self._item_count)


class TrainedEmbeddings(Embeddings):
    """The same variables in a graph that trains: a step reads each row that its batch needs once (see lookups.py).

    Rows of items and of categories lie in one array, from which the towers take theirs, two for each item side by side: H
    numbers, with nothing to concatenate. Their gradients, of all towers together, are sorted and added up as they come,
    with nothing to slice, and an update starts from the rows that were read.

    Args:
      shared: lookups.Shared.
      owns: each tower's lookups.Own.

    Attributes:
      read: what was read of each table, by its name: a list of (ids, rows) that make up its distinct rows.
    """

    def __init__(self, item_count, cate_count, cate_list, shared, owns):
        super().__init__(item_count, cate_count, cate_list)
        self._shared, self.read = shared, {}
        self._tables, self._joined = [], None
        # The ranks of the gradients by what is looked up, which is in the place of ids.
        self._ranks = {ids.name: ranks for own in owns for ids, ranks in (
            (own.history, own.history_ranks), (own.candidates, own.candidate_ranks))}
        self._bias_ranks = {own.candidates.name: own.bias_ranks for own in owns}
        self._rows, self._biases = [], []  # what the towers took: [(values, ranks of their gradients)]

    def _read(self, table, parts):
        """The rows of `table` whose ids are in `parts`, tensors: a list of tensors."""
        self._tables.append(table)
        self.read[table.op.name] = [(ids, look_up(table, ids)) for ids in parts]
        return [rows for _, rows in self.read[table.op.name]]

    def rows(self, items):
        """As that of `Embeddings`, of a tower's `history` or `candidates` in lookups.Own."""
        if self._joined is None:
            item_emb_w, cate_emb_w = self._matrices()
            self._joined = tf.concat(self._read(item_emb_w, self._shared.items)
                                     + self._read(cate_emb_w, [self._shared.cates]), axis=0)
        values = look_up(self._joined, items[..., :2] if items.shape[-1] != 2 else items)   # [..., 2, 64]
        self._rows.append((values, self._ranks[items.name]))
        if items.shape.ndims == 2:
            return tf.reshape(values, [-1, 2 * EMBEDDING_WIDTH])
        rows = tf.reshape(values, tf.concat([tf.shape(items)[:-1], [2 * EMBEDDING_WIDTH]], axis=0))
        rows.set_shape([None] * (items.shape.ndims - 1) + [2 * EMBEDDING_WIDTH])
        return rows

    def biases(self, items):
        """As that of `Embeddings`, of a tower's `candidates`."""
        if not self._biases:
            self._distinct_biases, = self._read(self._vector(), [self._shared.biases])
        values = look_up(self._distinct_biases, items[..., 2])
        self._biases.append((values, self._bias_ranks[items.name]))
        return values

    def norms(self):
        """The lengths of the rows of the tables of embeddings, {name: [rows]}; of a large table, evenly spaced rows."""
        def norms_of(table):
            count = int(table.shape[0])
            return tf.norm(tf.gather(table, tf.range(0, count, -(-count // MOST_NORMS))), axis=-1)
        with tf.name_scope("embedding_norms"):
            return {table.op.name: norms_of(table) for table in self._tables if table.shape.ndims == 2}

    def leaves(self):
        """What the towers took: tensors, for tf.gradients."""
        return [values for values, _ in self._rows + self._biases]

    def gradients(self, of_leaves):
        """The sparse gradient of each table by its name, made of those of `leaves`."""
        def sorted_rows(gradients, taken, shape):
            rows = [tf.reshape(gradient, [-1] + shape) for gradient in gradients]
            return tf.dynamic_stitch([ranks for _, ranks in taken], rows)
        shared, count = self._shared, len(self._rows)
        # Brought together first, then added up: 137 microseconds for 2,600 rows of 64, where tf.unsorted_segment_sum takes
        # 404 (one core of an AMD EPYC).
        of_items, of_cates = tf.split(sorted_rows(of_leaves[:count], self._rows, [EMBEDDING_WIDTH]), 2)
        of_biases = sorted_rows(of_leaves[count:], self._biases, [])
        sums = {}
        for table, rows, segments in zip(self._tables, (of_items, of_cates, of_biases),
                                         (shared.item_sums, shared.cate_sums, shared.bias_sums)):
            ids = tf.concat([ids for ids, _ in self.read[table.op.name]], axis=0)
            sums[table.op.name] = tf.IndexedSlices(segment_sum(rows, segments, tf.size(ids)), ids,
                                                   tf.constant(table.shape.as_list()))
        return sums


def look_up(table, ids):
    """table[ids], computed where the table is: the rows travel to the tower, not the table."""
    with tf.device(table.device):
        return tf.gather(table, ids)
