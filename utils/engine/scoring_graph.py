"""A model's graph that scores, for variables that come from a checkpoint."""
import typing

import numpy as np

from utils.engine.embeddings import EmbeddingTables, History, ScoredItems
from utils.files import UserError
from utils.tf1 import tf
from utils.towers import device_names

# (history item, candidate) and (user, candidate) pairs scored at once: DIN builds rows of H for each, some 200 MB here.
# With a quarter as many or four times as many, 100 candidates for each of 1,024 users take up to a half longer.
PAIRS_AT_ONCE = 1 << 18
NO_LOGITS = "logit of %s gives %s; let it give a float32 logit for each candidate, [B, C]"


class Inputs(typing.NamedTuple):
    """What is fed to score, the first fields of a `Batch`: placeholders, int32."""
    history: tf.Tensor     # [N]
    segments: tf.Tensor    # [N]
    lengths: tf.Tensor     # [B]
    candidates: tf.Tensor  # [B, C]


class ScoringGraph:
    """A model's graph that scores, in the default graph.

    `model_class` is a subclass of BaseModel, `catalogue` a `Catalogue` or a data set.

    Attributes:
      inputs: `Inputs`.
      tables: the `EmbeddingTables`.
      logits: [B, C].
      attention: [N, C], what the model sets; None where it has no attention.
      variables: the trainable variables.
    """

    def __init__(self, model_class, catalogue):
        self.global_step = tf.train.get_or_create_global_step()
        with tf.device(device_names(1)[0]):
            self.inputs = Inputs(*[tf.placeholder(tf.int32, shape, name) for name, shape in zip(
                Inputs._fields, ([None], [None], [None], [None, None]))])
            self.tables = EmbeddingTables(catalogue)
            self.logits, self.attention = logit_of_ids(model_class, self.tables, *self.inputs)
        self.variables = tf.trainable_variables()

    def start(self, session):
        """Binds the graph to `session`, a `session.Session`; called once, before `score`."""
        self._score = session.make_callable(self.logits, list(self.inputs))
        if self.attention is not None:
            self._attend = session.make_callable(self.attention, list(self.inputs))

    def score(self, batch):
        """Returns the logits [B, C] of `batch`; many candidates are scored in several calls."""
        return in_blocks(batch, lambda block: self._score(*block[:4]))

    def attention_weights(self, batch):
        """How much each history item counts for each candidate, [N, C]; None where the model has no attention."""
        return None if self.attention is None else softmax_of_histories(self._attend(*batch[:4]), batch.lengths)


def logit_of(model_class, history, candidate):
    """(logits [B, C], attention [N, C] or None) of a model, given a `History` and the candidates, `Items`."""
    model = model_class()
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):  # towers share the variables
        logits = model.logit(history, candidate)
    # A width that is known beforehand is not the number of candidates.
    if not (isinstance(logits, tf.Tensor) and logits.dtype == tf.float32 and (
            logits.shape.ndims is None or logits.shape.as_list()[1:] == [None])):
        raise UserError(NO_LOGITS % (model_class.__module__, logits))
    return logits, model.attention


def logit_of_ids(model_class, tables, items, segments, lengths, candidates):
    """As `logit_of`, given tensors as `Inputs` has them; the embeddings are in `tables`, `EmbeddingTables`."""
    history = History(ScoredItems(tables, items), segments, lengths)
    return logit_of(model_class, history, ScoredItems(tables, candidates))


def in_blocks(batch, score):
    """The logits [B, C] of `batch`, by the function `score` of batches of fewer candidates, to bound the memory."""
    width = max(1, PAIRS_AT_ONCE // (len(batch.history) + len(batch.lengths)))
    blocks = [score(batch._replace(candidates=batch.candidates[:, first:first + width]))
              for first in range(0, batch.candidates.shape[1], width)]
    if sum(block.size for block in blocks) != batch.candidates.size or len(blocks[0]) != len(batch.candidates):
        raise UserError(NO_LOGITS % ("the model", "%s for %s" % (list(blocks[0].shape), list(batch.candidates.shape))))
    return np.concatenate(blocks, axis=1)


def softmax_of_histories(scores, lengths):
    """The softmax of `scores` [N, C] over each history; their `lengths` [B] are all above 0."""
    starts = np.cumsum(lengths) - lengths
    powers = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts), lengths, axis=0))
    return powers / np.repeat(np.add.reduceat(powers, starts), lengths, axis=0)
