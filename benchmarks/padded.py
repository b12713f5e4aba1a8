"""The other side: the models as the original writes them, plainly, from the formulas.

Every history is padded to the longest in its batch, the candidate is tiled along it and `[q, k, q - k, q * k]`
concatenated; a step is one session call with a `feed_dict` and two more that read the step. A history is looked up once
for all candidates of its user. Each candidate has its own attention, as in the authors' correction; where the user
vector depends on the history alone it is computed once. It shares no layer, batch or graph with the project, only the
names of the variables. In float64 the same formulas are the tests' oracle.

"The original" is two codes, which train at different speeds, and in inference are the same:
  sparse   the authors' code (github.com/zhougr1993/DeepInterestNetwork): the embeddings' gradients stay IndexedSlices
           through tf.clip_by_global_norm and apply_gradients.
  dense    its variant for several accelerators: the towers' gradients are put together by stacking them, which makes
           them as large as the tables, with one tower as well.

A new model can be compared once it stands here, too: a function of `Layers`, in `REFERENCES`.

Axes: B recommendations (in inference: users), T longest history of the batch, H = 128.
"""
import numpy as np

from utils.files import UserError
from utils.tf1 import tf

OPTIMIZERS = {"sgd": tf.train.GradientDescentOptimizer, "adam": tf.train.AdamOptimizer}
PADDING = -2.0 ** 32 + 1  # the score of an item that pads a history: its weight becomes 0


# ---- the models ------------------------------------------------------------------------------------------------------

class Layers:
    """The layers of the models.

    Args:
      variable: a function (name, shape, initial value or None for TensorFlow's own choice) -> the variable.
      cate_list: [item_count] category of each item, int32 tensor.
      cate_count: number of categories.
    """

    def __init__(self, variable, cate_list, cate_count):
        self._variable, self._cate_list, self._cate_count = variable, cate_list, cate_count

    def embed(self, items):
        """[...] -> [..., H]."""
        item_emb_w = self._variable("item_emb_w", [self._cate_list.shape[0], 64], None)
        cate_emb_w = self._variable("cate_emb_w", [self._cate_count, 64], None)
        categories = tf.gather(self._cate_list, items)
        return tf.concat([tf.gather(item_emb_w, items), tf.gather(cate_emb_w, categories)], axis=-1)

    def item_bias(self, items):
        """[...] -> [...]."""
        return tf.gather(self._variable("item_b", [self._cate_list.shape[0]], 0.0), items)

    def dense(self, x, units, name):
        """x kernel + bias: [..., I] -> [..., units]."""
        kernel = self._variable(name + "/kernel", [x.shape[-1], units], None)
        return tf.tensordot(x, kernel, 1) + self._variable(name + "/bias", [units], 0.0)

    def batch_normalization(self, x, name):
        """Batch normalization whose statistics never train: mean 0, variance 1, epsilon 0.001; [..., D] -> [..., D]."""
        gamma, beta = (self._variable("%s/%s" % (name, part), [x.shape[-1]], initial)
                       for part, initial in (("gamma", 1.0), ("beta", 0.0)))
        return gamma * x / 1.001 ** 0.5 + beta

    def dice(self, x, name):
        """[..., D] -> [..., D]."""
        alpha, beta = (self._variable(part + name, [x.shape[-1]], 0.0) for part in ("alpha", "beta"))
        p = tf.sigmoid(beta * x / 1.001 ** 0.5)
        return p * x + (1 - p) * alpha * x

    def mlp(self, x, activation=None):
        """The MLP 80-40-1 over the list `x`, with batch normalization before it: [B, I] -> [B]."""
        activation = activation or (lambda hidden, _: tf.sigmoid(hidden))
        x = self.batch_normalization(tf.concat(x, axis=-1), "b1")
        x = activation(self.dense(x, 80, "f1"), "dice_1")
        x = activation(self.dense(x, 40, "f2"), "dice_2")
        return tf.squeeze(self.dense(x, 1, "f3"), axis=-1)

    def mean(self, k, lengths):
        """The mean of each history, normalized and through a dense layer: [B, T, H] -> [B, H]."""
        mask = tf.sequence_mask(lengths, tf.shape(k)[1], k.dtype)               # [B, T]
        u = tf.reduce_sum(k * tf.expand_dims(mask, -1), 1)                      # [B, H]
        u = u / tf.cast(tf.expand_dims(lengths, 1), k.dtype)
        return self.dense(self.batch_normalization(u, "batch_normalization"), 128, "dense")

    def attention(self, q, k, lengths):
        """Sums each history, weighted by its attention to the candidate: q [B, H], k [B, T, H] -> [B, H]."""
        longest = tf.shape(k)[1]
        q = tf.tile(q, [1, longest])                                            # [B, T * H]
        q = tf.reshape(q, [-1, longest, 128])                                   # [B, T, H]
        x = tf.concat([q, k, q - k, q * k], axis=-1)                            # [B, T, 4 H]
        x = tf.sigmoid(self.dense(x, 80, "f1_att"))
        x = tf.sigmoid(self.dense(x, 40, "f2_att"))
        scores = tf.reshape(self.dense(x, 1, "f3_att"), [-1, 1, longest])       # [B, 1, T]
        mask = tf.expand_dims(tf.sequence_mask(lengths, longest), 1)            # [B, 1, T]
        scores = tf.where(mask, scores, tf.ones_like(scores) * PADDING)
        weights = tf.nn.softmax(scores / 128 ** 0.5)
        return tf.reshape(tf.matmul(weights, k), [-1, 128])


def din(layers, candidates, k, lengths, activation=None):
    def of_candidate(i):
        u = layers.attention(i, k, lengths)                                     # [B, H]
        u = layers.dense(layers.batch_normalization(u, "batch_normalization"), 128, "hist_fcn")
        return layers.mlp([u, i, u * i], activation)
    return [of_candidate(i) for i in candidates]


def din_dice(layers, candidates, k, lengths):
    return din(layers, candidates, k, lengths, layers.dice)


def pnn(layers, candidates, k, lengths):
    u = layers.mean(k, lengths)                                                 # [B, H]
    return [layers.mlp([u, i, u * i]) for i in candidates]


def deepFM(layers, candidates, k, lengths):  # noqa: N802  as its folder is called
    u = layers.mean(k, lengths)                                                 # [B, H]

    def of_candidate(i):
        fm = tf.stack([tf.reduce_sum(u * i, axis=1), u[:, 0] + i[:, 0]], axis=1)  # [B, 2]
        return layers.mlp([u, i]) + tf.squeeze(layers.dense(fm, 1, "f_fm"), axis=-1)
    return [of_candidate(i) for i in candidates]


def wide_deep(layers, candidates, k, lengths):
    u = layers.mean(k, lengths)                                                 # [B, H]

    def of_candidate(i):
        wide = tf.stack([u[:, 0] * i[:, 0], u[:, 127] * i[:, 127], u[:, 64] * i[:, 64]], axis=1)  # [B, 3]
        return layers.mlp([u, i]) + tf.squeeze(layers.dense(wide, 1, "f_wide"), axis=-1)
    return [of_candidate(i) for i in candidates]


# Functions (layers, list of candidates [B, H], histories [B, T, H], their lengths [B]) -> the list of their logits [B],
# without item bias.
REFERENCES = {reference.__name__: reference for reference in (din, din_dice, pnn, deepFM, wide_deep)}


def reference_of(model):
    """The function in REFERENCES of a model.

    Raises:
      UserError: there is no such model here.
    """
    if model not in REFERENCES:
        raise UserError("benchmarks/padded.py has no %s to compare with; write it there, measure this project alone "
                        "with --ours_only, or choose one of: %s" % (model, " ".join(REFERENCES)))
    return REFERENCES[model]


def logits_of(model, layers, candidates, histories, lengths):
    """The scores of a user's items, before the sigmoid.

    Args:
      model: a key of REFERENCES.
      layers: `Layers`.
      candidates: a list of items, each [B].
      histories: [B, T], with any items behind the end of a history.
      lengths: [B].

    Returns:
      The list of the candidates' logits, each [B].

    Raises:
      UserError: there is no such model here.
    """
    reference = reference_of(model)
    scores = reference(layers, [layers.embed(items) for items in candidates], layers.embed(histories), lengths)
    return [score + layers.item_bias(items) for score, items in zip(scores, candidates)]


# ---- the side of the benchmarks --------------------------------------------------------------------------------------

def train_inputs(examples, batch_size):
    """Yields (items [B], labels [B], histories [B, T], lengths [B]) of a list of (history, item, label)."""
    for start in range(0, len(examples), batch_size):
        chunk = examples[start:start + batch_size]
        items, labels, lengths = [], [], []
        for history, item, label in chunk:
            items.append(item)
            labels.append(label)
            lengths.append(len(history))
        yield items, labels, _pad(chunk, lengths), lengths


def test_inputs(examples, batch_size):
    """Yields (positives [B], negatives [B], histories [B, T], lengths [B]) of a list of (history, candidate pair)."""
    for start in range(0, len(examples), batch_size):
        chunk = examples[start:start + batch_size]
        positives, negatives, lengths = [], [], []
        for history, (positive, negative) in chunk:
            positives.append(positive)
            negatives.append(negative)
            lengths.append(len(history))
        yield positives, negatives, _pad(chunk, lengths), lengths


def _pad(chunk, lengths):
    """The histories of `chunk`, padded with item 0: [B, T]."""
    histories = np.zeros([len(chunk), max(lengths)], np.int64)
    for row, example in enumerate(chunk):
        histories[row, :len(example[0])] = example[0]
    return histories


class PaddedModel:
    """One of the models, in the default graph.

    Args:
      name: a key of REFERENCES.
      catalogue: a `Catalogue`, or a data set.
      optimizer: "sgd" or "adam"; None for a graph that only scores.
      dense: whether gradients are made dense before they are clipped.

    Attributes:
      logits: [B] logits of the first candidates; `loss`, [], is their mean cross-entropy.
      variables: the trainable variables; `gradients` are the loss's, before clipping.
    """

    def __init__(self, name, catalogue, optimizer=None, dense=False):
        self.i = tf.placeholder(tf.int32, [None])           # [B] items to train on; in inference the positives
        self.j = tf.placeholder(tf.int32, [None])           # [B] the negatives
        self.y = tf.placeholder(tf.float32, [None])         # [B] labels
        self.histories = tf.placeholder(tf.int32, [None, None])  # [B, T]
        self.lengths = tf.placeholder(tf.int32, [None])     # [B]
        self.learning_rate = tf.placeholder(tf.float32, [])
        self.global_step = tf.train.get_or_create_global_step()
        layers = Layers(_variable, tf.constant(catalogue.cate_list, tf.int32), catalogue.cate_count)
        with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
            self.logits, self.other_logits = logits_of(name, layers, [self.i, self.j], self.histories, self.lengths)
        self.variables = tf.trainable_variables()
        if optimizer:
            self.loss = tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(labels=self.y, logits=self.logits))
            self.gradients = tf.gradients(self.loss, self.variables)
            if dense:
                self.gradients = [tf.convert_to_tensor(gradient) for gradient in self.gradients]
            # The authors clip what tf.gradients returns. Of IndexedSlices TensorFlow then takes the norm of the values,
            # in which a row stands as often as the batch looks it up: squares are added, not the square of the sum. So
            # the two codes shrink by different factors where they clip, and make the same update where they don't.
            clipped, _ = tf.clip_by_global_norm(self.gradients, 5)
            self.train_op = OPTIMIZERS[optimizer](self.learning_rate).apply_gradients(
                zip(clipped, self.variables), self.global_step)

    def start(self, session):
        """Binds the model to `session`; called once, before `train` and `score`."""
        self.session = session

    def load(self, values):
        """Gives each variable its value in `values`, a dictionary by variable name."""
        for variable in self.variables:
            variable.load(values[variable.op.name], self.session)

    def train(self, inputs, learning_rate):
        """Updates the variables once on a batch of `train_inputs`; returns its loss before the update."""
        items, labels, histories, lengths = inputs
        loss, _ = self.session.run([self.loss, self.train_op], feed_dict={
            self.i: items, self.y: labels, self.histories: histories, self.lengths: lengths,
            self.learning_rate: learning_rate})
        # The original's loop reads the step to see whether it is time to evaluate, and again for the learning rate.
        self.global_step.eval(self.session)
        self.global_step.eval(self.session)
        return loss

    def score(self, inputs):
        """Returns the logits [B, 2] of a batch of `test_inputs`, [positive, negative]."""
        positives, negatives, histories, lengths = inputs
        return np.stack(self.session.run([self.logits, self.other_logits], feed_dict={
            self.i: positives, self.j: negatives, self.histories: histories, self.lengths: lengths}), axis=1)


def _variable(name, shape, initial):
    return tf.get_variable(name, shape, initializer=None if initial is None else tf.constant_initializer(initial))
