"""The other side: the models as the original writes them, plainly, from the formulas.

Every history is padded to the longest in its batch, the candidate is tiled along it and `[q, k, q - k, q * k]`
concatenated; gradients are made dense; a step is one session call with a `feed_dict` and two more that read the step.
It shares no layer, batch or graph with the project, only the names of the variables. As in the authors' correction each
candidate has its own attention.

Axes: B recommendations (in inference: users), T longest history of the batch, H = 128.
"""
import numpy as np

from utils.tf1 import tf

OPTIMIZERS = {"sgd": tf.train.GradientDescentOptimizer, "adam": tf.train.AdamOptimizer}
PADDING = -2.0 ** 32 + 1  # the score of an item that pads a history: its weight becomes 0


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
    """One of the five models, in the default graph.

    Args:
      name: "din", "din_dice", "pnn", "deepFM" or "wide_deep".
      item_count, cate_count: number of items and of categories.
      cate_list: [item_count] category of each item.
      optimizer: "sgd" or "adam"; None for a graph that only scores.

    Attributes:
      logits: [B] logits of the first candidates, from whose `loss`, [], the `gradients`, dense, are taken.
      variables: the trainable variables.
    """

    def __init__(self, name, item_count, cate_count, cate_list, optimizer=None):
        self.name = name
        self.item_count, self.cate_count = item_count, cate_count
        self.cate_list = tf.constant(cate_list, tf.int32)
        self.i = tf.placeholder(tf.int32, [None])           # [B] items to train on; in inference the positives
        self.j = tf.placeholder(tf.int32, [None])           # [B] the negatives
        self.y = tf.placeholder(tf.float32, [None])         # [B] labels
        self.histories = tf.placeholder(tf.int32, [None, None])  # [B, T]
        self.lengths = tf.placeholder(tf.int32, [None])     # [B]
        self.learning_rate = tf.placeholder(tf.float32, [])
        self.global_step = tf.train.get_or_create_global_step()
        with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
            self.logits = self._logit(self.i)
            self.other_logits = self._logit(self.j)
        self.variables = tf.trainable_variables()
        if optimizer:
            self.loss = tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(labels=self.y, logits=self.logits))
            # The original puts its towers' gradients together by stacking them, which makes them dense.
            self.gradients = [tf.convert_to_tensor(gradient) for gradient in tf.gradients(self.loss, self.variables)]
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
        """Updates the variables once on what `train_inputs` yields; returns its loss before the update."""
        items, labels, histories, lengths = inputs
        loss, _ = self.session.run([self.loss, self.train_op], feed_dict={
            self.i: items, self.y: labels, self.histories: histories, self.lengths: lengths,
            self.learning_rate: learning_rate})
        # The original's loop reads the step to see whether it is time to evaluate, and again for the learning rate.
        self.global_step.eval(self.session)
        self.global_step.eval(self.session)
        return loss

    def score(self, inputs):
        """Returns the logits [B, 2] of what `test_inputs` yields, [positive, negative]."""
        positives, negatives, histories, lengths = inputs
        return np.stack(self.session.run([self.logits, self.other_logits], feed_dict={
            self.i: positives, self.j: negatives, self.histories: histories, self.lengths: lengths}), axis=1)

    def _embed(self, items):
        """[...] -> [..., H]."""
        item_emb_w = tf.get_variable("item_emb_w", [self.item_count, 64])
        cate_emb_w = tf.get_variable("cate_emb_w", [self.cate_count, 64])
        return tf.concat([tf.nn.embedding_lookup(item_emb_w, items),
                          tf.nn.embedding_lookup(cate_emb_w, tf.gather(self.cate_list, items))], axis=-1)

    def _logit(self, items):
        """The score of each item, before the sigmoid: [B] -> [B]."""
        i = self._embed(items)                                                  # [B, H]
        k = self._embed(self.histories)                                         # [B, T, H]
        if self.name in ("din", "din_dice"):
            u = self._attention(i, k)                                           # [B, H]
            u = dense(batch_normalization(u, "batch_normalization"), 128, "hist_fcn")
        else:
            mask = tf.sequence_mask(self.lengths, tf.shape(k)[1], tf.float32)   # [B, T]
            u = tf.reduce_sum(k * tf.expand_dims(mask, -1), 1)                  # [B, H]
            u = u / tf.cast(tf.expand_dims(self.lengths, 1), tf.float32)
            u = dense(batch_normalization(u, "batch_normalization"), 128, "dense")

        x = [u, i] if self.name in ("deepFM", "wide_deep") else [u, i, u * i]
        x = batch_normalization(tf.concat(x, axis=-1), "b1")
        x = self._activation(dense(x, 80, "f1"), "dice_1")
        x = self._activation(dense(x, 40, "f2"), "dice_2")
        item_b = tf.get_variable("item_b", [self.item_count], initializer=tf.zeros_initializer())
        logit = tf.reshape(dense(x, 1, "f3"), [-1]) + tf.gather(item_b, items)
        if self.name == "deepFM":
            fm = tf.stack([tf.reduce_sum(u * i, axis=1), u[:, 0] + i[:, 0]], axis=1)
            logit += tf.reshape(dense(fm, 1, "f_fm"), [-1])
        if self.name == "wide_deep":
            wide = tf.stack([u[:, 0] * i[:, 0], u[:, 127] * i[:, 127], u[:, 64] * i[:, 64]], axis=1)
            logit += tf.reshape(dense(wide, 1, "f_wide"), [-1])
        return logit

    def _attention(self, q, k):
        """Sums each history, weighted by its attention to the candidate: q [B, H], k [B, T, H] -> [B, H]."""
        longest = tf.shape(k)[1]
        q = tf.tile(q, [1, longest])                                            # [B, T * H]
        q = tf.reshape(q, [-1, longest, 128])                                   # [B, T, H]
        x = tf.concat([q, k, q - k, q * k], axis=-1)                            # [B, T, 4 H]
        x = tf.sigmoid(dense(x, 80, "f1_att"))
        x = tf.sigmoid(dense(x, 40, "f2_att"))
        scores = tf.reshape(dense(x, 1, "f3_att"), [-1, 1, longest])            # [B, 1, T]
        mask = tf.expand_dims(tf.sequence_mask(self.lengths, longest), 1)       # [B, 1, T]
        scores = tf.where(mask, scores, tf.ones_like(scores) * PADDING)
        weights = tf.nn.softmax(scores / 128 ** 0.5)
        return tf.reshape(tf.matmul(weights, k), [-1, 128])

    def _activation(self, x, name):
        """Sigmoid, or Dice in its place."""
        if self.name != "din_dice":
            return tf.sigmoid(x)
        alpha = tf.get_variable("alpha" + name, [x.shape[-1]], initializer=tf.zeros_initializer())
        beta = tf.get_variable("beta" + name, [x.shape[-1]], initializer=tf.zeros_initializer())
        p = tf.sigmoid(beta * x / 1.001 ** 0.5)
        return p * x + (1 - p) * alpha * x


def dense(x, units, name):
    """x kernel + bias: [..., I] -> [..., units]."""
    with tf.variable_scope(name):
        kernel = tf.get_variable("kernel", [x.shape[-1], units])
        bias = tf.get_variable("bias", [units], initializer=tf.zeros_initializer())
    return tf.tensordot(x, kernel, 1) + bias


def batch_normalization(x, name):
    """Batch normalization whose statistics never train: mean 0, variance 1, epsilon 0.001; [..., D] -> [..., D]."""
    with tf.variable_scope(name):
        gamma = tf.get_variable("gamma", [x.shape[-1]], initializer=tf.ones_initializer())
        beta = tf.get_variable("beta", [x.shape[-1]], initializer=tf.zeros_initializer())
    return gamma * x / 1.001 ** 0.5 + beta
