"""Items as a model sees them: their ids, embeddings and biases.

A graph that scores looks them up in the tables; a graph that trains has a way of its own, trained_embeddings.py.
"""
import typing

import numpy as np

from utils.layers import matrix, vector
from utils.tf1 import tf

EMBEDDING_WIDTH = 64  # of an item and of a category: H = 128 together
MAX_NORMS = 10000     # rows of a table whose norms are computed: enough to draw a histogram of

# Where the categories of items are looked up. The ids come from the host, and TensorFlow keeps int32 constants there,
# too: on a GPU the gather would have all of cate_list copied to it at each step.
HOST = "/cpu:0"


class Catalogue(typing.NamedTuple):
    """The items that a model knows. A `Dataset` has the same attributes and will do."""
    item_count: int
    cate_count: int
    cate_list: np.ndarray  # [item_count] category of each item


class Items:
    """Items that a model looks up: ids int32 [...]; abstract."""

    __iter__ = None  # their number is known when the graph runs

    def look_up(self, what):
        """Each item's "ids" or "bias" [...], "embedding" [..., H], or its halves "item", "category" [..., H / 2]."""
        raise NotImplementedError

    @property
    def ids(self):
        return self.look_up("ids")

    def __getitem__(self, index):
        """A part of these items, by an index that a tensor of their ids takes."""
        return _Part(self, index if isinstance(index, tuple) else (index,))


class _Part(Items):
    def __init__(self, whole, index):
        self._whole, self._index = whole, index

    def look_up(self, what):
        index = self._index
        if what not in ("ids", "bias") and any(part is Ellipsis for part in index):
            index += (slice(None),)  # the ellipsis stands for axes of the items, not for that of an embedding's units
        return self._whole.look_up(what)[index]


class WholeItems(Items):
    """Items that are looked up together: a tensor is made at its first use and shared by all uses; abstract.

    Attributes:
      made: {what: tensor}, what was looked up so far.
    """

    def __init__(self):
        self.made = {}

    def look_up(self, what):
        if what not in self.made:
            with tf.control_dependencies(None):  # outside of the loop or branch that may be the first to use it
                self.made[what] = getattr(self, "_" + what)()
        return self.made[what]


class History(Items):
    """The histories of B users, one after another.

    Args:
      items: `Items` [N].
      segments: [N] whose history each of them is in, 0 .. B - 1, ascending.
      lengths: [B] of each history, at least 1.
    """

    def __init__(self, items, segments, lengths):
        self._items, self.segments, self.lengths = items, segments, lengths

    def look_up(self, what):
        if what == "bias":
            raise NotImplementedError("item_bias is of candidates; see BaseModel")
        return self._items.look_up(what)


class ScoredItems(WholeItems):
    """Items [...] in a graph that scores, by their `ids`, a tensor; looked up in `tables`, an `EmbeddingTables`."""

    def __init__(self, tables, ids):
        self._tables, self.made = tables, {"ids": ids}

    def _embedding(self):
        return tf.concat([self.look_up("item"), self.look_up("category")], axis=-1)

    def _item(self):
        return gather_rows(self._tables("item"), self.ids)

    def _category(self):
        return gather_rows(self._tables("category"), self._tables.categories_of(self.ids))

    def _bias(self):
        return gather_rows(self._tables("bias"), self.ids)


class EmbeddingTables:
    """The variables item_emb_w, cate_emb_w and item_b of a `Catalogue`, each made when it is first asked for.

    Attributes:
      item_count: the catalogue's.
      made: {what: variable}, those that were asked for.
    """

    def __init__(self, catalogue):
        self.item_count = catalogue.item_count
        self._shapes = {"item": ("item_emb_w", [catalogue.item_count, EMBEDDING_WIDTH]),
                        "category": ("cate_emb_w", [catalogue.cate_count, EMBEDDING_WIDTH]),
                        "bias": ("item_b", catalogue.item_count)}
        self._scope, self.made = tf.get_variable_scope(), {}
        with tf.device(HOST):
            self._cate_list = tf.constant(np.asarray(catalogue.cate_list, np.int32), name="cate_list")

    def __call__(self, what):
        """The variable that has `what`: "item" [item_count, 64], "category" [cate_count, 64] or "bias" [item_count]."""
        if what not in self.made:
            reuse = tf.get_variable_scope().reuse or tf.AUTO_REUSE  # where no variable is to be made, none is
            with tf.variable_scope(self._scope, reuse=reuse, auxiliary_name_scope=False), tf.control_dependencies(None):
                self.made[what] = (vector if what == "bias" else matrix)(*self._shapes[what])
        return self.made[what]

    def categories_of(self, ids):
        """The category of each item: ids [...] -> [...]."""
        with tf.device(HOST):
            return tf.gather(self._cate_list, ids)

    def norms(self):
        """The lengths of the embeddings, {variable's name: [rows]}; of a large table, of evenly spaced rows."""
        with tf.name_scope("embedding_norms"):
            return {table.op.name: tf.norm(table[::-(-int(table.shape[0]) // MAX_NORMS)], axis=-1)
                    for what, table in self.made.items() if what != "bias"}


def gather_rows(table, ids):
    """table[ids], computed where the table is: the rows travel to the tower, not the table."""
    with tf.device(table.device):
        return tf.gather(table, ids)
