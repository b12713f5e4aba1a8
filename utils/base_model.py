"""What every model has: placeholders, embeddings, loss, gradients and update, training and scoring, one Saver.

A model is a subclass with one method, `logit(history, candidate)`.

    placeholder   shape    meaning (utils/batches.py makes them; one set for each tower)
    history       [N]      item ids of the batch's histories, one history after another
    segments      [N]      whose history each of them is in, 0 .. B - 1, ascending
    lengths       [B]      length of each history
    candidates    [B, C]   item ids to score
    labels        [B, C]   1 bought, 0 not
    learning_rate []       of this step
"""
import collections
import itertools

import numpy as np

from utils.batches import Batch, split_batch
from utils.cluster import Alone
from utils.embeddings import Embeddings
from utils.optimizers import clipped_update
from utils.towers import device_names
from utils.tf1 import tf

# (history item, candidate) and (user, candidate) pairs scored at once: DIN builds rows of H for each, some 200 MB together
# here. With a quarter as many or four times as many, 100 candidates for each of 1,024 users take up to a half longer.
PAIRS_AT_ONCE = 1 << 18

History = collections.namedtuple("History", "items segments lengths")
History.__doc__ = """The histories of B users: items [N], segments [N], lengths [B]; see utils/batches.py. Of one user alone,
segments may be None (layers.py)."""


class BaseModel:
    """The graph around a model's `logit`, in the default graph.

    Args:
      item_count, cate_count: number of items and of categories.
      cate_list: [item_count] category of each item.
      num_accelerators: devices to split each batch over.
      shards: towers on each device; 0 for a model whose `logit` is called by others, who make the saver.
      optimizer: a key of optimizers.OPTIMIZERS; None for a graph that only scores.
      one_user: build a graph that scores one user at a time, [1, C]: nothing of his is repeated for each candidate.
      cluster: the workers that train the model together, a `Cluster`; this one by default.

    Attributes:
      inputs: for each tower, the placeholders, a `Batch`; `logits` [B, C] are each tower's.
      loss: [] mean sigmoid cross-entropy over the recommendations of a batch, of all workers' shares of it.
      variables: the trainable variables; `gradients` are the loss's, before clipping, and `update` applies them.
      global_step: [] number of updates done.
      attention_scores: [N, C] how much each history item matters to each candidate, whoever the user is, before the softmax
        over a history; a model with attention sets it in `logit`, and it is the latest tower's.
    """

    attention_scores = None

    def __init__(self, item_count, cate_count, cate_list, num_accelerators=1, optimizer=None, shards=1,
                 one_user=False, cluster=Alone()):
        self._embeddings = Embeddings(item_count, cate_count, cate_list)
        self.global_step = tf.train.get_or_create_global_step()
        self.learning_rate = tf.placeholder(tf.float32, [], "learning_rate")
        self._several_workers = cluster.count > 1
        self.inputs, self.logits, self._attention_scores = [], [], []  # of each tower
        devices = device_names(num_accelerators)
        users = 1 if one_user else None
        with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
            for index, device in enumerate(np.repeat(devices, shards)):  # the first tower makes the variables, there
                with tf.device(device), tf.name_scope("tower_%d" % index):
                    inputs = Batch(tf.placeholder(tf.int32, [None], "history"),
                                   tf.placeholder(tf.int32, [None], "segments"),
                                   tf.placeholder(tf.int32, [users], "lengths"),
                                   tf.placeholder(tf.int32, [users, None], "candidates"),
                                   tf.placeholder(tf.float32, [users, None], "labels"))
                    self.inputs.append(inputs)
                    segments = None if one_user else inputs.segments
                    self.logits.append(self.logit(History(inputs.history, segments, inputs.lengths),
                                                   inputs.candidates))
                    if self.attention_scores is not None:
                        self._attention_scores.append(self.attention_scores)
        self.variables = tf.trainable_variables()
        if optimizer:
            with tf.device(devices[0]):  # but each tower's loss and gradients are computed where the tower is
                self._build_update(optimizer, cluster)
                self._norms = self._embeddings.norms()
        if self.inputs:
            self.saver = tf.train.Saver(max_to_keep=None)

    def logit(self, history, candidate):
        """[B, C] logits of `candidate` [B, C], given the `History` of B users: the model itself."""
        raise NotImplementedError

    def embed(self, history, candidate):
        """[item embedding, category embedding] of each item: ids [N] and [B, C] -> [N, H] and [B, C, H]."""
        return self._embeddings.rows(history), self._embeddings.rows(candidate)

    def item_bias(self, items):
        """The learned bias of each item: ids [B, C] -> [B, C]."""
        return self._embeddings.biases(items)

    def _build_update(self, optimizer, cluster):
        with tf.name_scope("loss"):
            counts, losses = [], []
            for inputs, logits in zip(self.inputs, self.logits):
                with tf.device(logits.device):
                    counts.append(tf.size(inputs.labels))
                    # log(1 + exp(x)) - x y: the cross-entropy of sigmoid(x) with y, stable for any x
                    losses.append(tf.reduce_sum(tf.nn.softplus(logits) - logits * inputs.labels))
            if self._several_workers:  # the others' shares are not in this graph
                self.recommendations = tf.placeholder(tf.float32, [], "recommendations")
            else:
                self.recommendations = tf.cast(tf.add_n(counts), tf.float32)
            loss = tf.add_n(losses) / self.recommendations
        with tf.name_scope("gradients"):
            leaves = self._embeddings.leaves()
            sources = [leaves.get(variable.op.name, [variable]) for variable in self.variables]
            gradients = iter(tf.gradients(loss, sum(sources, []), colocate_gradients_with_ops=True))
            gradients = [list(itertools.islice(gradients, len(of_variable))) for of_variable in sources]
            gradients = [self._embeddings.gradient(variable, found) if variable.op.name in leaves else found[0]
                         for variable, found in zip(self.variables, gradients)]
            self.loss, self.gradients = cluster.add_up(loss, gradients)
        with tf.name_scope("update"):
            self.update = clipped_update(optimizer, self.learning_rate, self.gradients, self.variables,
                                         self.global_step)

    def start(self, session):
        """Binds the model to `session`; called once, before `train` and `score`."""
        self.session = session
        # A callable spares each step the parsing of fetches and feeds in Session.run.
        scored = [placeholder for inputs in self.inputs for placeholder in inputs[:4]]
        self._score = session.make_callable(self.logits, scored)
        if self._attention_scores:
            self._attend = session.make_callable(self._attention_scores, scored)
        if hasattr(self, "update"):
            fed = [self.learning_rate] + ([self.recommendations] if self._several_workers else [])
            self._trained = fed + [placeholder for inputs in self.inputs for placeholder in inputs]
            self._train = session.make_callable([self.loss, self.update], self._trained)

    def train(self, batch, learning_rate, recommendations=None, trace=None):
        """Updates the variables once on the whole of `batch`; returns its loss before the update.

        `recommendations` is how many there are in the shares of all workers, where there are several. `trace`, a
        RunMetadata, is filled with what each operation took; that takes time itself.
        """
        parts = split_batch(batch, len(self.inputs))
        values = [np.float32(learning_rate)] + ([recommendations] if self._several_workers else [])
        values += [array for part in parts for array in part]
        if trace is None:
            return float(self._train(*values)[0])
        options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
        return float(self.session.run([self.loss, self.update], dict(zip(self._trained, values)), options, trace)[0])

    def score(self, batch):
        """Returns the logits [B, C] of `batch`; many candidates are scored in several calls, which bounds the memory."""
        parts = split_batch(batch, len(self.inputs))
        together = max(1, PAIRS_AT_ONCE // (len(batch.history) + len(batch.lengths)))
        scores = []
        for first in range(0, batch.candidates.shape[1], together):
            ads = slice(first, first + together)
            scores.append(np.concatenate(self._score(*[
                array for part in parts for array in part[:3] + (part.candidates[:, ads],)])))
        return np.concatenate(scores, axis=1)

    def attention_weights(self, batch):
        """How much each history item of `batch` counts for each candidate, [N, C]: each history's weights add up to 1.

        None where the model has no attention.
        """
        if not self._attention_scores:
            return None
        parts = split_batch(batch, len(self.inputs))
        scores = np.concatenate(self._attend(*[array for part in parts for array in part[:4]]))
        starts = np.cumsum(batch.lengths) - batch.lengths
        powers = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts), batch.lengths, axis=0))
        return powers / np.repeat(np.add.reduceat(powers, starts), batch.lengths, axis=0)

    def embedding_norms(self):
        """The lengths of the rows of each table of embeddings, {its name: [rows]}; of large tables, of some rows."""
        return self.session.run(self._norms)
