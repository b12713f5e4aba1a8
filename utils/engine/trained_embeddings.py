"""The embeddings in a graph that trains: a step reads each row that its batch needs once, and adds up its gradients once.

A gradient of a table is sparse and has each row once, however often the batch repeats an item: so the gradients' global
norm is a sum over its rows, and an update can overwrite rows instead of adding to them.

Which rows these are, and in which order their gradients are added, comes with the batch (packing.py). Rows of items and of
categories lie in one array, from which the towers take theirs, two for each item side by side: H numbers, with nothing to
concatenate. Their gradients, of all towers together, are sorted and added up as they come, with nothing to slice.
"""
from utils.engine.embeddings import EMBEDDING_WIDTH, HOST, EmbeddingTables, WholeItems, gather_rows
from utils.layers import segment_sum
from utils.tf1 import tf


class TrainedEmbeddings:
    """The tables of a `Catalogue`, and the items of a batch that is split over towers.

    Args:
      catalogue: a `Catalogue`.
      distinct: packing.Distinct, the rows that the batch needs.
      shares: packing.Share of each tower.

    Attributes:
      tables: the `EmbeddingTables`.
      histories, candidates: of each tower, `Items` [N] and [B, C].
      rows_read: {variable's name: [(ids, rows)]}, the distinct rows of each table, in parts, as they were read.
    """

    def __init__(self, catalogue, distinct, shares):
        self.tables, self.rows_read, self._joined = EmbeddingTables(catalogue), {}, {}
        self._ids = {"item": distinct.items, "category": [distinct.cates], "bias": [distinct.biases]}
        self._sums = {"item": distinct.item_sums, "category": distinct.cate_sums, "bias": distinct.bias_sums}
        self.histories = [_TrainedItems(self, share.history, share.history_ranks) for share in shares]
        self.candidates = [_TrainedItems(self, share.candidates, share.candidate_ranks, share.bias_ranks) for share in shares]

    def item_ids(self):
        """[U] the distinct items of the batch."""
        with tf.device(HOST):
            return tf.concat(self._ids["item"], axis=0)

    def rows_of(self, *tables):
        """The rows read of `tables`, of "item", "category" and "bias", one table's after another's."""
        if tables not in self._joined:
            self._joined[tables] = tf.concat([rows for what in tables for _, rows in self._read(what)], axis=0)
        return self._joined[tables]

    def _read(self, what):
        table = self.tables(what)
        if table.op.name not in self.rows_read:
            self.rows_read[table.op.name] = [(ids, gather_rows(table, ids)) for ids in self._ids[what]]
        return self.rows_read[table.op.name]

    def leaves(self):
        """All that the towers looked up, tensors: what the loss is to be differentiated by."""
        return [tensor for items in self.histories + self.candidates for tensor in items.leaves().values()]

    def gradients(self, of_leaves):
        """The sparse gradient of each table by its variable's name.

        Args:
          of_leaves: of each of `leaves`; None where the loss does not depend on it.
        """
        gradients = {leaf.name: gradient for leaf, gradient in zip(self.leaves(), of_leaves)}
        sorted_rows = {}
        if "item" in self.tables.made or "category" in self.tables.made:
            pairs = tf.dynamic_stitch([items.ranks for items in self.histories + self.candidates],
                                      [items.pair_gradient(gradients) for items in self.histories + self.candidates])
            sorted_rows["item"], sorted_rows["category"] = tf.split(pairs, 2)                           # [R, 64] each
        if "bias" in self.tables.made:
            sorted_rows["bias"] = tf.dynamic_stitch([items.bias_ranks for items in self.candidates],
                                                    [items.bias_gradient(gradients) for items in self.candidates])
        return {table.op.name: self._summed(what, table, sorted_rows[what]) for what, table in self.tables.made.items()}

    def _summed(self, what, table, rows):
        # Brought together first, then added up: 137 microseconds for 2,600 rows of 64, where tf.unsorted_segment_sum takes
        # 404 (one core of an AMD EPYC).
        ids = tf.concat(self._ids[what], axis=0)
        return tf.IndexedSlices(segment_sum(rows, self._sums[what], tf.size(ids)), ids, tf.constant(table.shape.as_list()))


class _TrainedItems(WholeItems):
    """A tower's histories or candidates.

    Args:
      embeddings: the `TrainedEmbeddings`.
      rows: [..., 2 or 3] which of the distinct rows are each item's, its category's, and its bias's.
      ranks: where each gradient of a looked-up pair of rows goes, once they are sorted, [2 n] for n items.
      bias_ranks: [n] the same of the biases; None where there are none.
    """

    def __init__(self, embeddings, rows, ranks, bias_ranks=None):
        super().__init__()
        self._embeddings, self._rows, self.ranks, self.bias_ranks = embeddings, rows, ranks, bias_ranks

    def _ids(self):
        with tf.device(HOST):
            return tf.gather(self._embeddings.item_ids(), self._rows[..., 0])

    def _embedding(self):
        pair = self.look_up("pair")                                                                     # [..., 2, 64]
        if pair.shape.ndims == 3:
            return tf.reshape(pair, [-1, 2 * EMBEDDING_WIDTH])
        embedding = tf.reshape(pair, tf.concat([tf.shape(pair)[:-2], [2 * EMBEDDING_WIDTH]], axis=0))
        embedding.set_shape(pair.shape[:-2].concatenate(2 * EMBEDDING_WIDTH))
        return embedding

    def _pair(self):
        rows = self._rows if self.bias_ranks is None else self._rows[..., :2]
        return gather_rows(self._embeddings.rows_of("item", "category"), rows)

    def _item(self):
        return gather_rows(self._embeddings.rows_of("item"), self._rows[..., 0])

    def _category(self):
        with tf.device(HOST):  # a batch's categories come after its items
            rows = self._rows[..., 1] - tf.size(self._embeddings.item_ids())
        return gather_rows(self._embeddings.rows_of("category"), rows)

    def _bias(self):
        return gather_rows(self._embeddings.rows_of("bias"), self._rows[..., 2])

    def leaves(self):
        """{what: tensor} of what was looked up of the tables."""
        return {what: self.made[what] for what in ("pair", "item", "category", "bias") if what in self.made}

    def _gradient(self, what, gradients, shape):
        """The gradient by what was looked up, in rows of `shape`; None where there is none."""
        gradient = gradients.get(self.made[what].name) if what in self.made else None
        return None if gradient is None else tf.reshape(gradient, [-1] + shape)

    def pair_gradient(self, gradients):
        """The loss's gradient by each embedding, an item's and its category's in turn, whichever way it was looked up: [2 n, 64].

        Args:
          gradients: {name of a leaf: the gradient, or None}.
        """
        pair = self._gradient("pair", gradients, [EMBEDDING_WIDTH])
        halves = [self._gradient(what, gradients, [EMBEDDING_WIDTH]) for what in ("item", "category")]
        present = [half for half in halves if half is not None]
        terms = [] if pair is None else [pair]
        if present:
            halves = [tf.zeros_like(present[0]) if half is None else half for half in halves]
            terms.append(tf.reshape(tf.stack(halves, axis=1), [-1, EMBEDDING_WIDTH]))
        return tf.add_n(terms) if terms else tf.zeros([tf.size(self.ranks), EMBEDDING_WIDTH])

    def bias_gradient(self, gradients):
        """The loss's gradient by each bias: [n]."""
        gradient = self._gradient("bias", gradients, [])
        return tf.zeros([tf.size(self.bias_ranks)]) if gradient is None else gradient
