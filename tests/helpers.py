"""What several tests share: small data, graphs with known variables, scripts as processes."""
import json
import os
import subprocess
import sys
import zlib

import numpy as np

from utils.batches import Batch
from utils.commands import model_class
from utils.dataset import Dataset, build_sets
from utils.files import ROOT
from utils.engine.session import Session
from utils.tf1 import tf
from utils.towers import session_config


def golden(name):
    with open(os.path.join(ROOT, "tests", "golden", name + ".json")) as file:
        return json.load(file)


def flat_batch(histories, candidates, labels=None):
    """The Batch of lists of items, with candidates and labels [B] or [B, C]."""
    lengths = np.array([len(history) for history in histories], np.int32)
    candidates = np.array(candidates, np.int32).reshape(len(histories), -1)
    labels = np.zeros(candidates.shape) if labels is None else labels
    return Batch(np.array([item for history in histories for item in history], np.int32),
                 np.repeat(np.arange(len(histories), dtype=np.int32), lengths), lengths, candidates,
                 np.array(labels, np.float32).reshape(candidates.shape))


class Graph:
    """A started model in a graph and session of its own, to be used in a `with` statement."""

    def __init__(self, name, item_count, cate_count, cate_list, num_accelerators=1, optimizer="sgd", seed=1,
                 shards=1):
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.set_random_seed(seed)
            self.model = model_class(name)(item_count, cate_count, cate_list, num_accelerators, optimizer, shards)
            self.session = Session(config=session_config(num_accelerators, len(self.model.inputs)))
            self.initialize = tf.global_variables_initializer()
            self.session.run(self.initialize)
        self.model.start(self.session)

    def __enter__(self):
        self._entered = self.graph.as_default()
        self._entered.__enter__()
        return self

    def __exit__(self, *error):
        self._entered.__exit__(*error)
        self.session.close()

    def load_known_values(self):
        """Gives each variable the values that the golden files are made with; the optimizer starts anew."""
        self.session.run(self.initialize)
        for variable in self.model.variables:
            name = variable.op.name
            values = np.random.RandomState(zlib.crc32(name.encode())).uniform(-0.3, 0.3, variable.shape.as_list())
            variable.load(values + name.endswith("gamma"), self.session)

    def feeds(self, batch):
        return {self.model.packed: next(self.model.prepared([batch])).packed}

    def gradients(self, batch):
        """The loss's gradients by variable name, dense."""
        dense = {variable.op.name: tf.convert_to_tensor(gradient)
                 for variable, gradient in zip(self.model.variables, self.model.gradients)}
        return self.session.run(dense, self.feeds(batch))


def random_dataset(users=60, items=50, categories=7, seed=0):
    """A data set of random purchases, with histories from 1 to 20 items."""
    random = np.random.RandomState(seed)
    counts = random.randint(3, min(22, items - 1), users)
    owned = [random.permutation(items)[:count] for count in counts]
    train, test = build_sets(np.repeat(np.arange(users), counts), np.concatenate(owned), items, seed=seed)
    return Dataset(train, test, random.randint(0, categories, items).astype(np.int32), users, items, categories, "random")


def run_script(*command, **options):
    """Runs a Python script of the project as its users do; returns the finished process, its output as text."""
    environment = dict(os.environ, **options.pop("env", {}))
    return subprocess.run([sys.executable] + [str(part) for part in command], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, env=environment,
                          cwd=str(options.pop("cwd", ROOT)), timeout=300, **options)
