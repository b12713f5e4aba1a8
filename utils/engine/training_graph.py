"""A model's graph that trains: towers, loss, gradients, update."""
import numpy as np

from utils.cluster.workers import Alone, sum_by_id
from utils.engine.embeddings import HOST, History
from utils.engine.optimizers import clipped_update
from utils.engine.packing import Packer, set_step, unpack
from utils.engine.scoring_graph import in_blocks, logit_of, softmax_of_histories
from utils.engine.trained_embeddings import TrainedEmbeddings
from utils.files import UserError
from utils.tf1 import tf
from utils.towers import device_names


class TrainingGraph:
    """A model's graph that trains, and scores with the variables as they are, in the default graph.

    Args:
      model_class, catalogue: as of ScoringGraph.
      optimizer: a key of optimizers.OPTIMIZERS.
      num_accelerators: devices to split each batch over.
      shards: towers on each device.
      cluster: the workers that train the model together, a `Cluster`; this one by default.

    Attributes:
      packed: [S] int32, what is fed, be it to train or to score; see packing.py.
      learning_rate: [] of this step.
      logits: of each tower, [B, C].
      attention: of each tower, [N, C], what the model sets; empty where it has no attention.
      loss: [] mean sigmoid cross-entropy over the recommendations of a batch, of all workers' shares of it.
      variables: the trainable variables; `gradients` are the loss's, before clipping, and `update` applies them.
      pack_for_training: the function that gives the `PackedBatch`, which `train` takes, of each of a list of batches.
      global_step: [] number of updates done.
      saver: of all variables, the optimizer's included.
    """

    def __init__(self, model_class, catalogue, optimizer, num_accelerators=1, shards=1, cluster=None):
        cluster = cluster or Alone()
        self.global_step = tf.train.get_or_create_global_step()
        devices = device_names(num_accelerators)
        towers = [device for device in devices for _ in range(shards)]
        self.pack_for_training = Packer(catalogue, len(towers), item_parts=shards).pack_for_training
        self.packed = tf.placeholder(tf.int32, [None], "packed")
        with tf.device(HOST):
            self.learning_rate, recommendations, distinct, shares = unpack(self.packed, len(towers), item_parts=shards)
        self._embeddings = TrainedEmbeddings(catalogue, distinct, shares)
        losses = self._build_towers(model_class, towers, shares)
        self.variables = tf.trainable_variables()
        if any(variable.op.name.startswith("tower_") for variable in self.variables):
            raise UserError("logit of %s makes a variable by tf.Variable, which towers can't share; use tf.get_variable"
                            % model_class.__module__)
        with tf.device(devices[0]):  # but each tower's gradients are computed where the tower is
            self.loss = tf.add_n(losses) / recommendations
            self._build_gradients(cluster)
            with tf.name_scope("update"):
                rows_read = {} if cluster.count > 1 else self._embeddings.rows_read
                self.update = clipped_update(optimizer, self.learning_rate, self.gradients, self.variables,
                                             self.global_step, rows_read)
            self._norms = self._embeddings.tables.norms()
        self.saver = tf.train.Saver(max_to_keep=None)

    def _build_towers(self, model_class, towers, shares):
        """Sets logits and attention; returns the sum of the cross-entropies of each tower's share."""
        self.logits, self.attention, losses = [], [], []
        for index, (device, share) in enumerate(zip(towers, shares)):  # the first tower makes the variables, there
            with tf.device(device), tf.name_scope("tower_%d" % index):
                history = History(self._embeddings.histories[index], share.segments, share.lengths)
                logits, attention = logit_of(model_class, history, self._embeddings.candidates[index])
                self.logits.append(logits)
                if attention is not None:
                    self.attention.append(attention)
                with tf.name_scope("loss"):  # log(1 + exp(x)) - x y: sigmoid(x)'s cross-entropy with y, for any x
                    losses.append(tf.reduce_sum(tf.nn.softplus(logits) - logits * share.labels))
        return losses

    def _build_gradients(self, cluster):
        with tf.name_scope("gradients"):
            leaves = self._embeddings.leaves()
            gradients = tf.gradients(self.loss, leaves + self.variables, stop_gradients=leaves,
                                     colocate_gradients_with_ops=True)
            of_rows = self._embeddings.gradients([tf.zeros_like(leaf) if gradient is None else gradient
                                                  for leaf, gradient in zip(leaves, gradients)])
            self.loss, self.gradients = cluster.all_reduce(self.loss, [
                self._whole_gradient(variable, of_rows.get(variable.op.name), gradient)
                for variable, gradient in zip(self.variables, gradients[len(leaves):])])

    def _whole_gradient(self, variable, of_rows, gradient):
        """The sum of a variable's gradients by the rows looked up and by other uses, each None where there are none."""
        if gradient is None:
            return tf.zeros_like(variable) if of_rows is None else of_rows
        self._embeddings.rows_read.pop(variable.op.name, None)  # the gradient has other rows
        terms = [term for term in (of_rows, gradient) if term is not None]
        if all(isinstance(term, tf.IndexedSlices) for term in terms):
            ids, rows = sum_by_id([term.indices for term in terms], [term.values for term in terms])
            return tf.IndexedSlices(rows, ids, tf.constant(variable.shape.as_list()))
        return tf.add_n(list(map(tf.convert_to_tensor, terms)))

    def start(self, session):
        """Binds the graph to `session`, a `session.Session`; called once, before `train` and `score`."""
        self.session = session
        self._score = session.make_callable(self.logits, [self.packed])
        self._attend = session.make_callable(self.attention, [self.packed])
        self._train = session.make_callable([self.loss, self.update], [self.packed])

    def train(self, batch, learning_rate, recommendations=None, trace=None):
        """Updates the variables once on the whole of `batch`, a `PackedBatch`; returns its loss before the update.

        `recommendations` is how many there are in the shares of all workers, where there are several. `trace`, a
        RunMetadata, is filled with what each operation took; that takes time itself.
        """
        set_step(batch.packed, learning_rate, recommendations)
        if trace is None:
            return float(self._train(batch.packed)[0])
        options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
        return float(self.session.run([self.loss, self.update], {self.packed: batch.packed}, options, trace)[0])

    def _pack_for_scoring(self, batch):
        unlabelled = batch._replace(labels=np.zeros(batch.candidates.shape, np.float32))
        return self.pack_for_training([unlabelled])[0].packed

    def score(self, batch):
        """Returns the logits [B, C] of `batch`, a `Batch`; many candidates are scored in several calls."""
        return in_blocks(batch, lambda block: np.concatenate(self._score(self._pack_for_scoring(block))))

    def attention_weights(self, batch):
        """How much each history item counts for each candidate, [N, C]; None where the model has no attention."""
        if not self.attention:
            return None
        return softmax_of_histories(np.concatenate(self._attend(self._pack_for_scoring(batch))), batch.lengths)

    def embedding_norms(self):
        """The lengths of the rows of each table of embeddings, {its name: [rows]}; of large tables, of some rows."""
        return self.session.run(self._norms)
