"""What every model has: placeholders, embeddings, loss, gradients and update, training and scoring, one Saver.

A model is a subclass with one method, `logit(history, candidate)`.

    input         shape    meaning (utils/batches.py makes them; one set for each tower)
    history       [N]      item ids of the batch's histories, one history after another
    segments      [N]      whose history each of them is in, 0 .. B - 1, ascending
    lengths       [B]      length of each history
    candidates    [B, C]   item ids to score
    labels        [B, C]   1 bought, 0 not

A graph that scores has a placeholder for each of the first four. In a graph that trains they are parts of a single one, in
which history and candidates are not ids but rows of what the batch looks up, and the learning rate is there as well
(utils/engine/packing.py).
"""
import collections
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from utils.batches import MADE_TOGETHER, Batch, split_batch
from utils.cluster.workers import Alone
from utils.engine.embeddings import HOST, Embeddings, TrainedEmbeddings
from utils.engine.packing import Lookups, set_learning_rate, unpack
from utils.engine.optimizers import clipped_update
from utils.towers import device_names
from utils.tf1 import tf

# (history item, candidate) and (user, candidate) pairs scored at once: DIN builds rows of H for each, some 200 MB together
# here. With a quarter as many or four times as many, 100 candidates for each of 1,024 users take up to a half longer.
PAIRS_AT_ONCE = 1 << 18

History = collections.namedtuple("History", "items segments lengths")
History.__doc__ = """The histories of B users: items [N], segments [N], lengths [B]; see utils/batches.py. Of one user alone,
segments may be None (layers.py)."""


OneUserTower = collections.namedtuple("OneUserTower", "by_category history")
OneUserTower.__doc__ = """A tower of a graph for one user: whether his candidates are of few categories, and how many items his
history has; None: any number."""


class PreparedBatch(Batch):
    """A Batch to train on, and as `packed` what is fed of it; see `BaseModel.prepared`."""

    def __new__(cls, batch, packed):
        prepared = super().__new__(cls, *batch)
        prepared.packed = packed
        return prepared


def in_blocks(batch, score):
    """The logits [B, C] of `batch`, by the function `score` of batches of fewer candidates, which bounds the memory."""
    together = max(1, PAIRS_AT_ONCE // (len(batch.history) + len(batch.lengths)))
    return np.concatenate([score(batch._replace(candidates=batch.candidates[:, first:first + together]))
                           for first in range(0, batch.candidates.shape[1], together)], axis=1)


class BaseModel:
    """The graph around a model's `logit`, in the default graph.

    Args:
      item_count, cate_count: number of items and of categories.
      cate_list: [item_count] category of each item.
      num_accelerators: devices to split each batch over.
      shards: towers on each device; 0 for a model whose `logit` is called by others, who make the saver.
      optimizer: a key of optimizers.OPTIMIZERS; None for a graph that only scores.
      one_user: build a graph that scores one user at a time, [1, C]: nothing of his is repeated for each candidate. Its
        towers are the model's `one_user_towers`.
      cluster: the workers that train the model together, a `Cluster`; this one by default.

    Attributes:
      inputs: for each tower, what it reads, a `Batch` or a `lookups.Own`; `logits` [B, C] are each tower's.
      packed: [S] int32, what a graph that trains is fed, be it to train or to score.
      learning_rate: [] of this step.
      loss: [] mean sigmoid cross-entropy over the recommendations of a batch, of all workers' shares of it.
      variables: the trainable variables; `gradients` are the loss's, before clipping, and `update` applies them.
      global_step: [] number of updates done.
      attention_scores: for each tower, [N, C] how much each history item matters to each candidate, whoever the user is,
        before the softmax over a history; of a model with attention, which sets its tower's `attention` in `logit`.
    """

    attention, one_user_towers = None, (OneUserTower(by_category=False, history=None),)

    def __init__(self, item_count, cate_count, cate_list, num_accelerators=1, optimizer=None, shards=1,
                 one_user=False, cluster=Alone()):
        self.global_step = tf.train.get_or_create_global_step()
        self._several_workers = cluster.count > 1
        self.inputs, self.logits, self.attention_scores = [], [], []  # of each tower
        devices = device_names(num_accelerators)
        self._one_user = one_user
        towers = devices * len(self.one_user_towers) if one_user else list(np.repeat(devices, shards))
        sizes = item_count, cate_count, cate_list
        if optimizer:
            self.packed = tf.placeholder(tf.int32, [None], "packed")
            self._lookups = Lookups(*sizes, towers=len(towers), item_parts=shards)
            with tf.device(HOST):
                self.learning_rate, shared, owns = unpack(self.packed, len(towers), item_parts=shards)
            self._embeddings = TrainedEmbeddings(*sizes, shared=shared, owns=owns)
        else:
            self._embeddings = Embeddings(*sizes)
        users = 1 if one_user else None
        with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
            for index, device in enumerate(towers):  # the first tower makes the variables, there
                with tf.device(device), tf.name_scope("tower_%d" % index):
                    items = self.one_user_towers[index].history if one_user else None
                    inputs = owns[index] if optimizer else Batch(
                        tf.placeholder(tf.int32, [items], "history"), tf.placeholder(tf.int32, [None], "segments"),
                        tf.placeholder(tf.int32, [users], "lengths"), tf.placeholder(tf.int32, [users, None], "candidates"),
                        tf.placeholder(tf.float32, [users, None], "labels"))
                    self.inputs.append(inputs)
                    segments = None if one_user else inputs.segments
                    self.logits.append(self.logit(History(inputs.history, segments, inputs.lengths),
                                                   inputs.candidates))
                    if self.attention is not None:
                        self.attention_scores.append(self.attention)
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
        """[item embedding, category embedding] of each item: ids [N] and [B, C] -> [N, H] and [B, C, H].

        In a graph for one user the candidates lie in columns: [1, C] -> [1, H, C], or `Halves` (columns.py).
        """
        k = self._embeddings.rows(history)
        if self._one_user:
            return k, self._embeddings.columns(candidate, self.one_user_towers[len(self.inputs) - 1].by_category)
        return k, self._embeddings.rows(candidate)

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
            dense = [variable for variable in self.variables if variable.op.name not in self._embeddings.read]
            found = tf.gradients(loss, leaves + dense, colocate_gradients_with_ops=True)
            gradients = self._embeddings.gradients(found[:len(leaves)])
            gradients.update(zip([variable.op.name for variable in dense], found[len(leaves):]))
            self.loss, self.gradients = cluster.add_up(loss, [gradients[variable.op.name] for variable in self.variables])
        with tf.name_scope("update"):
            self.update = clipped_update(optimizer, self.learning_rate, self.gradients, self.variables,
                                         self.global_step, {} if self._several_workers else self._embeddings.read)

    def start(self, session):
        """Binds the model to `session`, a `session.Session`; called once, before `train` and `score`."""
        self.session = session
        scored = [self.packed] if hasattr(self, "packed") else [
            placeholder for inputs in self.inputs for placeholder in inputs[:4]]
        self._score = session.make_callable(self.logits, scored)
        if self.attention_scores:
            self._attend = session.make_callable(self.attention_scores, scored)
        if hasattr(self, "update"):
            self._train = session.make_callable([self.loss, self.update], [self.packed] + (
                [self.recommendations] if self._several_workers else []))

    def prepared(self, batches):
        """The same batches, made in a thread, many at a time, beside the training on those before, or the scoring of them.

        In a graph that trains they are ready to be trained on: what they look up is found for many of them at once. A step
        of 32 or of 1,024 takes 3.5% less (two cores of an Intel Xeon with AVX-512).
        """
        batches = iter(batches)

        def some():
            together, recommendations = [], 0
            for batch in batches:
                together.append(batch)
                recommendations += len(batch.lengths)
                if recommendations >= MADE_TOGETHER:
                    break
                time.sleep(0)  # else this thread would keep the interpreter for milliseconds, and the training would wait
            if not together or not hasattr(self, "packed"):
                return together
            return list(map(PreparedBatch, together, self._lookups.to_train(together)))

        with ThreadPoolExecutor(1) as thread:
            ready = thread.submit(some)
            while ready.result():
                together, ready = ready.result(), thread.submit(some)
                yield from together

    def train(self, batch, learning_rate, recommendations=None, trace=None):
        """Updates the variables once on the whole of `batch`; returns its loss before the update.

        `recommendations` is how many there are in the shares of all workers, where there are several. `trace`, a
        RunMetadata, is filled with what each operation took; that takes time itself.
        """
        packed = batch.packed if isinstance(batch, PreparedBatch) else self._lookups.to_train([batch])[0]
        set_learning_rate(packed, learning_rate)
        if trace is None:
            return float(self._train(packed, *([recommendations] if self._several_workers else []))[0])
        options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
        return float(self.session.run([self.loss, self.update], {self.packed: packed}, options, trace)[0])

    def _to_score(self, batch):
        """What to feed to score `batch`."""
        if hasattr(self, "packed"):
            return [self._lookups.to_score(batch._replace(labels=np.zeros(batch.candidates.shape, np.float32)))]
        return [array for part in split_batch(batch, len(self.inputs)) for array in part[:4]]

    def score(self, batch):
        """Returns the logits [B, C] of `batch`; many candidates are scored in several calls."""
        return in_blocks(batch, lambda some: np.concatenate(self._score(*self._to_score(some))))

    def attention_weights(self, batch):
        """How much each history item of `batch` counts for each candidate, [N, C]: each history's weights add up to 1.

        None where the model has no attention.
        """
        if not self.attention_scores:
            return None
        scores = np.concatenate(self._attend(*self._to_score(batch)))
        starts = np.cumsum(batch.lengths) - batch.lengths
        powers = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts), batch.lengths, axis=0))
        return powers / np.repeat(np.add.reduceat(powers, starts), batch.lengths, axis=0)

    def embedding_norms(self):
        """The lengths of the rows of each table of embeddings, {its name: [rows]}; of large tables, of some rows."""
        return self.session.run(self._norms)
