"""The embeddings in a graph that trains: a step reads each row of its batch once, and adds up its gradient once.

A gradient of a table is sparse and has each row once, however often the batch repeats an item: so the gradients' global
norm is a sum over its rows, and an update can overwrite rows instead of adding to them.

Which rows these are, and in which order their gradients are added, comes with the batch (packing.py). Rows of items and
of categories lie in one array, from which the towers take theirs, two for each item side by side: H numbers, with
nothing to concatenate. Their gradients, of all towers together, are sorted and added up with nothing to slice.
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
      rows_read: {variable's name: [(ids, rows)]}, the distinct rows of each table as they were read, in parts.
    """

    def __init__(self, catalogue, distinct, shares):
        self.tables, self.rows_read, self._joined = EmbeddingTables(catalogue), {}, {}
        self._ids = {"item": distinct.items, "category": [distinct.cates], "bias": [distinct.biases]}
        self._sums = {"item": distinct.item_sums, "category": distinct.cate_sums, "bias": distinct.bias_sums}
        self.histories = [_TrainedItems(self, share.history, share.history_ranks) for share in shares]
        self.candidates = [_TrainedItems(self, share.candidates, share.candidate_ranks, share.bias_ranks)
                           for share in shares]

    def item_ids(self):
        """[U] the distinct items of the batch."""
        with tf.device(HOST):
            return tf.concat(self._ids["item"], axis=0)

    def rows_of(self, *tables):
        """The rows read of `tables`, of "item", "category" and "bias", one table's after another's."""
        if tables not in self._joined:
            rows = []
            for what in tables:
                table = self.tables(what)
                if table.op.name not in self.rows_read:
                    self.rows_read[table.op.name] = [(ids, gather_rows(table, ids)) for ids in self._ids[what]]
                rows += [part for _, part in self.rows_read[table.op.name]]
            self._joined[tables] = tf.concat(rows, axis=0)
        return self._joined[tables]

    def leaves(self):
        """All that the towers looked up, tensors: what the loss is to be differentiated by."""
        return [tensor for items in self.histories + self.candidates for tensor in items.leaves()]

    def gradients(self, of_leaves):
        """The sparse gradient of each table by its variable's name.

        Args:
          of_leaves: of each of `leaves`.
        """
        gradients = dict(zip([leaf.name for leaf in self.leaves()], of_leaves))
        of_rows, everything = {}, self.histories + self.candidates
        if "item" in self.tables.made or "category" in self.tables.made:
            pairs = tf.dynamic_stitch([items.ranks for items in everything],
                                      [items.pair_gradient(gradients) for items in everything])
            of_rows["item"], of_rows["category"] = tf.split(pairs, 2)           # [R, 64] each
        if "bias" in self.tables.made:
            of_rows["bias"] = tf.dynamic_stitch([items.bias_ranks for items in self.candidates],
                                                [items.bias_gradient(gradients) for items in self.candidates])

        def summed(what, table):
            # Brought together first, then added up: 137 microseconds for 2,600 rows of 64, where
            # tf.unsorted_segment_sum takes 404 (one core of an AMD EPYC).
            ids = tf.concat(self._ids[what], axis=0)
            sums = segment_sum(of_rows[what], self._sums[what], tf.size(ids))
            return tf.IndexedSlices(sums, ids, tf.constant(table.shape.as_list()))
        return {table.op.name: summed(what, table) for what, table in self.tables.made.items()}


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
        pair = self.look_up("pair")                                             # [..., 2, 64]
        embedding = tf.reshape(pair, [-1, 2 * EMBEDDING_WIDTH] if pair.shape.ndims == 3 else
                               tf.concat([tf.shape(pair)[:-2], [2 * EMBEDDING_WIDTH]], axis=0))
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
        """What was looked up of the tables, tensors."""
        return [self.made[what] for what in ("pair", "item", "category", "bias") if what in self.made]

    def pair_gradient(self, gradients):
        """The loss's gradient by each embedding, an item's and its category's in turn, however it was looked up.

        Args:
          gradients: {name of a leaf: the gradient}.

        Returns:
          [2 n, 64].
        """
        of = {what: gradients[leaf.name] for what, leaf in self.made.items() if leaf.name in gradients}
        terms = [tf.reshape(of["pair"], [-1, EMBEDDING_WIDTH])] if "pair" in of else []
        if "item" in of or "category" in of:
            halves = [of[what] if what in of else tf.zeros_like(of[other])
                      for what, other in (("item", "category"), ("category", "item"))]
            terms.append(tf.reshape(tf.stack(halves, axis=-2), [-1, EMBEDDING_WIDTH]))
        return tf.add_n(terms) if terms else tf.zeros([tf.size(self.ranks), EMBEDDING_WIDTH])

    def bias_gradient(self, gradients):
        """The loss's gradient by each bias: [n]."""
        return (tf.reshape(gradients[self.made["bias"].name], [-1]) if "bias" in self.made else
                tf.zeros([tf.size(self.bias_ranks)]))
