"""DeepCTR's side of peers.py, in a process in DeepCTR's environment; it needs nothing of the project.

    python -I benchmarks/peer_deepctr.py     answers the lines of standard input; see `serve`

The model is DeepCTR's DIN at this project's sizes. It lacks three things that this project's has, and so their time:
the product of candidate and user vector in the last MLP's input, the dense layer on the user vector, the bias of each
item. Item and category 0 stand for padding, so each of its two tables has a row more.

DeepCTR takes padded arrays, whose length is part of its graph. Batches are made ready in three ways, of which the
fastest is measured:
    fit               `model.fit` over a tf.data.Dataset, padded to the longest history of the data set
    train_on_batch    `model.train_on_batch`, padded in the same way
    function          a step in a `tf.function`, each batch padded to its longest history. The graph is traced for each
                      length that occurs, in steps of 8; these traces are made before the clock runs.
"""
import json
import os
import sys
import time

import numpy as np

SEED = 1234
WIDTH, ATTENTION, HIDDEN = 64, (80, 40), (80, 40)  # of an embedding, and of the layers of the two MLPs
LEARNING_RATE = 0.001
LENGTH_STEP = 8
PASSES = 3  # in turn of all ways over the batches that they are tried on; the quickest of each counts


def serve(side_class):
    """Makes a `side_class` and calls its methods, as lines of JSON on standard input tell; answers in lines of JSON.

    The first line has the arguments of the class, each further line [name of a method, its arguments]. What libraries
    print goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    side = side_class(*json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        method, arguments = json.loads(line)
        answers.write(json.dumps(getattr(side, method)(*arguments)) + "\n")
        answers.flush()


def padded(history, lengths, width):
    """The items [N] of histories, one after another, as int32 [B, width]: each id plus 1, then 0 as padding."""
    rows = np.zeros((len(lengths), width), np.int32)
    rows[np.arange(width) < np.asarray(lengths)[:, np.newaxis]] = np.asarray(history) + 1
    return rows


def width_of(lengths, longest):
    """The columns of a batch with histories of `lengths`, where no history is longer than `longest`."""
    return min(longest, -(-max(lengths) // LENGTH_STEP) * LENGTH_STEP)


def inputs_of(batch, width, categories):
    """({name: array} that the model takes, labels [B, 1]) of a batch.

    Args:
      batch: lists: items [N] of the histories one after another, their lengths [B], candidates [B], labels [B].
      width: columns of the padded arrays.
      categories: [item_count + 1], the category of each item as the model counts both, from 1 on.
    """
    history, lengths, candidates, labels = batch
    items, candidates = padded(history, lengths, width), np.array(candidates, np.int32)[:, np.newaxis] + 1
    inputs = {"item": candidates, "cate": categories[candidates], "hist_item": items, "hist_cate": categories[items]}
    return inputs, np.array(labels, np.float32)[:, np.newaxis]


class DeepCTR:
    """DeepCTR's side.

    Args:
      activation: of the last MLP's hidden layers.
      cate_list: the category of each item.
      cate_count: number of categories.
      longest: the longest history that is trained on.
      batch_size: of each batch that the methods are given, in the form of `inputs_of`.
    """

    def __init__(self, activation, cate_list, cate_count, longest, batch_size):
        import requests

        requests.get = lambda _: requests.Response()  # at import DeepCTR asks the network for its newest version
        import deepctr
        import tensorflow as tf
        from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        from deepctr.models import DIN

        tf.get_logger().setLevel("ERROR")  # it warns of many traces
        tf.keras.utils.set_random_seed(SEED)
        self._tf, self._longest, self._batch_size, self._seen = tf, longest, batch_size, set()
        self._versions = {"deepctr": deepctr.__version__, "tensorflow": tf.__version__}
        self._categories = np.append(0, np.array(cate_list) + 1).astype(np.int32)
        sizes = (("item", len(cate_list) + 1), ("cate", cate_count + 1))
        columns = [SparseFeat(name, size, WIDTH) for name, size in sizes] + [
            VarLenSparseFeat(SparseFeat("hist_" + name, size, WIDTH, embedding_name=name), longest)
            for name, size in sizes]
        self._model = DIN(
            columns, ["item", "cate"], dnn_hidden_units=HIDDEN, dnn_activation=activation, att_hidden_size=ATTENTION,
            att_activation="sigmoid", att_weight_normalization=True, l2_reg_dnn=0, l2_reg_embedding=0, dnn_dropout=0)
        self._model.compile(tf.keras.optimizers.Adam(LEARNING_RATE), "binary_crossentropy")
        self._function = tf.function(self._step)
        self._runs = {
            "fit": lambda batches: self._model.fit(batches, verbose=0),
            "train_on_batch": lambda batches: [self._model.train_on_batch(*batch) for batch in batches],
            "function": lambda batches: [float(self._function(*batch)) for batch in batches]}

    def _step(self, inputs, labels):
        tf, variables = self._tf, self._model.trainable_variables
        with tf.GradientTape() as tape:
            # Not self._model(inputs), which refuses any length but `longest`; the layers take that of their inputs.
            probabilities = self._model.call(inputs, training=True)
            loss = tf.reduce_mean(tf.keras.losses.binary_crossentropy(labels, probabilities))
        self._model.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss

    def _dataset(self, batches):
        columns = self._tf.nest.map_structure(lambda *tensors: self._tf.stack(tensors), *batches)
        return self._tf.data.Dataset.from_tensor_slices(columns).prefetch(self._tf.data.AUTOTUNE)

    def _tensors(self, way, batch):
        """((the way, columns), the padded batch as the model takes it)."""
        width = width_of(batch[1], self._longest) if way == "function" else self._longest
        inputs = inputs_of(batch, width, self._categories)
        return (way, width), self._tf.nest.map_structure(self._tf.constant, inputs)

    def _ready(self, way, batches):
        """What the way's function takes; a graph that it has not run yet is traced and run here."""
        keys, tensors = zip(*[self._tensors(way, batch) for batch in batches])
        unseen = {key: batch for key, batch in zip(keys, tensors) if key not in self._seen}
        pack = self._dataset if way == "fit" else list
        if unseen:
            self._runs[way](pack(unseen.values()))
            self._seen.update(unseen)
        return pack(tensors)

    def _seconds(self, way, ready):
        started = time.perf_counter()
        self._runs[way](ready)
        return time.perf_counter() - started

    def describe(self):
        """The versions of the libraries, and "parameters", the count of trainable numbers, in a dictionary."""
        return dict(self._versions, parameters=sum(
            int(np.prod(variable.shape)) for variable in self._model.trainable_variables))

    def learn(self, batches):
        """Trains on `batches`; returns the loss of each before its step."""
        keys, tensors = zip(*[self._tensors("function", batch) for batch in batches])
        self._seen.update(keys)
        return self._runs["function"](tensors)

    def choose(self, batches):
        """Tries the ways on `batches`; `load` takes the fastest. Returns {way: recommendations per second}."""
        ready = {way: self._ready(way, batches) for way in self._runs}
        passes = [{way: self._seconds(way, ready[way]) for way in self._runs} for _ in range(PASSES)]
        rates = {way: self._batch_size * len(batches) / min(seconds[way] for seconds in passes) for way in self._runs}
        self._way = max(rates, key=rates.get)
        return rates

    def load(self, rounds):
        """Makes the batches of each of `rounds` ready, after `choose`."""
        self._rounds = [self._ready(self._way, batches) for batches in rounds]

    def measure(self, number):
        """Trains on the batches of round `number`; returns the seconds that it takes."""
        return self._seconds(self._way, self._rounds[number])


if __name__ == "__main__":
    serve(DeepCTR)
