"""What several tests share: small data, graphs with known variables, scripts as processes."""
import csv
import json
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest

from utils import batches
from utils.batches import Batch
from utils.commands import infer_parser, train_parser
from utils.dataset import Dataset, build_sets, write_dataset
from utils.engine.embeddings import Catalogue
from utils.engine.scoring_graph import ScoringGraph
from utils.engine.session import Session
from utils.engine.training_graph import TrainingGraph
from utils.files import ROOT
from utils.infer_loop import infer
from utils.models import model_class, names
from utils.results import TRAIN_COLUMNS
from utils.serving.ranking import recommend
from utils.tf1 import tf
from utils.towers import session_config
from utils.train_loop import train

RATES = {"sgd": 1.0, "adam": 0.001}
# What is the same code for all models (towers, inference, ranking, export) is tried on DIN and PNN, with attention and
# without, and on models that are not the project's: these three are as one of the two. All models' formulas are in
# test_models.py and test_any_model.py, and other ways to ask for rows in test_contract.py.
TRIED_MODELS = [name for name in names() if name not in ("din_dice", "deepFM", "wide_deep")]


def golden(name):
    """The golden values of `name`; where tests/golden has none the test is skipped."""
    path = os.path.join(ROOT, "tests", "golden", name + ".json")
    if not os.path.exists(path):
        pytest.skip("there are no golden values of %s" % name)
    with open(path) as file:
        return json.load(file)


def flat_batch(histories, candidates, labels=None):
    """The Batch of lists of items, with candidates and labels [B] or [B, C]."""
    lengths = np.array([len(history) for history in histories], np.int32)
    candidates = np.array(candidates, np.int32).reshape(len(histories), -1)
    labels = np.zeros(candidates.shape) if labels is None else labels
    return Batch(np.array([item for history in histories for item in history], np.int32),
                 np.repeat(np.arange(len(histories), dtype=np.int32), lengths), lengths, candidates,
                 np.array(labels, np.float32).reshape(candidates.shape))


def load(session, values):
    """Gives variables their values in one call, {variable: value}: a call of another kind prepares the graph anew."""
    session.run([variable.initializer for variable in values],
                {variable.initializer.inputs[1]: value for variable, value in values.items()})


class Graph:
    """A `TrainingGraph`, or without an optimizer a `ScoringGraph`, with a graph and a session, in a `with` statement.

    It has the attributes of that `TrainingGraph` or `ScoringGraph`. `model` is a name or a class.
    """

    def __init__(self, model, catalogue, num_accelerators=1, optimizer="sgd", seed=1, shards=1):
        model = model_class(model) if isinstance(model, str) else model
        self.tf_graph = tf.Graph()
        with self.tf_graph.as_default():
            tf.set_random_seed(seed)
            self.built = (TrainingGraph(model, catalogue, optimizer, num_accelerators, shards) if optimizer
                          else ScoringGraph(model, catalogue))
            self.session = Session(config=session_config(num_accelerators, num_accelerators * shards))
            self.initialize = tf.global_variables_initializer()
            self.session.run(self.initialize)
        self.built.start(self.session)
        self._gradients = None

    def __getattr__(self, name):
        return getattr(self.built, name)

    def __enter__(self):
        self._entered = self.tf_graph.as_default()
        self._entered.__enter__()
        return self

    def __exit__(self, *error):
        self._entered.__exit__(*error)
        self.session.close()

    def load(self, values):
        """Gives each variable the value in `values`, a dictionary by name."""
        load(self.session, {variable: values[variable.op.name] for variable in self.variables})

    def load_known_values(self):
        """Gives each variable the values that the golden files are made with; the optimizer starts anew."""
        self.session.run(self.initialize)
        shapes = {variable.op.name: variable.shape.as_list() for variable in self.variables}
        self.load({name: np.random.RandomState(zlib.crc32(name.encode())).uniform(-0.3, 0.3, shape)
                   + name.endswith("gamma") for name, shape in shapes.items()})

    def values(self):
        """The value of each variable by name."""
        return self.session.run({variable.op.name: variable for variable in self.variables})

    def train(self, batch, learning_rate):
        """The loss of a step on `batch`, a `Batch`."""
        packed, = self.built.pack_for_training([batch])
        return self.built.train(packed, learning_rate)

    def feeds(self, batch):
        packed, = self.built.pack_for_training([batch])
        return {self.built.packed: packed.packed}

    def gradients(self, batch):
        """The loss's gradients by variable name, dense."""
        if self._gradients is None:
            self._gradients = {variable.op.name: tf.convert_to_tensor(gradient)
                               for variable, gradient in zip(self.variables, self.built.gradients)}
        return self.session.run(self._gradients, self.feeds(batch))


def has_attention(name):
    """Whether a model has attention."""
    with Graph(name, Catalogue(3, 2, np.array([0, 1, 0])), optimizer=None) as graph:
        return graph.attention is not None


def random_dataset(users=60, items=50, categories=7, seed=0):
    """A data set of random purchases, with histories from 1 to 20 items."""
    random = np.random.RandomState(seed)
    counts = random.randint(3, min(22, items - 1), users)
    purchases = [random.permutation(items)[:count] for count in counts]
    train, test = build_sets(np.repeat(np.arange(users), counts), np.concatenate(purchases), items, seed=seed)
    cate_list = random.randint(0, categories, items).astype(np.int32)
    return Dataset(train, test, cate_list, users, items, categories, "random")


def run_script(*command, **options):
    """Runs a Python script of the project as its users do; returns the finished process, its output as text."""
    environment = dict(os.environ, **options.pop("env", {}))
    return subprocess.run([sys.executable] + [str(part) for part in command], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, env=environment,
                          cwd=str(options.pop("cwd", ROOT)), timeout=300, **options)


TWO_EPOCHS = ("--batch_size", 64, "--epochs", 2, "--eval_every", 7)


class Folder:
    """A model's folder with a data set, in which to train and infer as the scripts do."""

    def __init__(self, path, dataset=None, model="din"):
        self.path, self.model = str(path), model
        os.makedirs(self.path, exist_ok=True)
        write_dataset(os.path.join(self.path, "dataset.pkl"), random_dataset() if dataset is None else dataset)
        self.save_path = os.path.join(self.path, "save_path")

    def _arguments(self, parser, flags):
        return parser.parse_args(["--results", os.path.join(self.path, "results"), "--save_path", self.save_path]
                                 + [str(flag) for flag in flags])

    def train(self, *flags):
        parser = train_parser(self.path, "", "sgd", RATES)
        train(model_class(self.model), batches, self.model, self._arguments(parser, flags))
        return self.rows("train")[-1]

    def infer(self, *flags):
        """The row of inference, of one pass over the test set in batches of 16 where the flags say nothing else."""
        arguments = self._arguments(infer_parser(self.path, ""), ("--duration", 0, "--batch_size", 16) + flags)
        infer(model_class(self.model), batches, self.model, arguments)
        return self.rows("infer")[-1]

    def recommend(self, *flags):
        recommend(model_class(self.model), self.model, self._arguments(infer_parser(self.path, ""), flags))

    def rows(self, stage):
        with open(os.path.join(self.path, "results", "results_%s.csv" % stage), newline="") as file:
            return list(csv.DictReader(file))

    def latest_variables(self):
        """The values of the latest checkpoint by name."""
        reader = tf.train.load_checkpoint(os.path.join(self.save_path, "latest"))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def results_of(row):
    """What a training's row says of its result: all columns without those of the clocks."""
    return [row[name] for name in TRAIN_COLUMNS if not any(
        clock in name for clock in ("seconds", "per_second", "step_ms"))]
