"""The sides of the benchmarks, this project and the padded models; and the data that they are given."""
import itertools
import os
import subprocess
import sys

# TensorFlow reads it together with use_per_session_threads. Otherwise all sessions of a process share the threads of
# the first one, and the floor could not try others than the model's.
os.environ["TF_OVERRIDE_GLOBAL_THREADPOOL"] = "1"

from benchmarks.floor import Floor, operands, products
from benchmarks.padded import PaddedModel
from utils import models
from utils.batches import prefetch
from utils.engine.scoring_graph import ScoringGraph
from utils.engine.session import Session
from utils.engine.training_graph import TrainingGraph
from utils.files import ROOT, UserError
from utils.models import training_flags
from utils.serving.scoring import Scorer
from utils.tf1 import tf
from utils.timing import Stopwatch
from utils.towers import session_config, tower_devices

SEED = 1234


def find_dataset(data):
    """The path of the dataset.pkl that `--data` names; a sample is made where it is not there yet.

    Raises:
      UserError: there is no dataset.pkl.
    """
    if data in ("small", "full"):
        return _sample(data)
    for path in (data, os.path.join(data, "dataset.pkl"), os.path.join(data, "din", "dataset.pkl")):
        if os.path.isfile(path):
            return path
    raise UserError("no dataset.pkl at %s; give small, full, a dataset.pkl or a folder with one" % data)


def _sample(size):
    """The path of the dataset.pkl of a generated sample, which lies apart from the project's prepared data."""
    raw, folder = (os.path.join(ROOT, "raw_data", name % size) for name in ("sample_%s", "prepared_%s"))
    path = os.path.join(folder, "dataset.pkl")
    remap = os.path.join(folder, "remap.pkl")
    for command in (["utils/make_sample.py", size, "--output", raw],
                    ["utils/1_convert_pd.py", "--raw_data", raw, "--output", folder, "--if_needed"],
                    ["utils/2_remap_id.py", "--output", folder, "--if_needed"],
                    ["din/build_dataset.py", "--remap", remap, "--output", path, "--if_needed"]):
        if subprocess.run([sys.executable] + command, cwd=ROOT, stdout=sys.stderr).returncode:
            raise UserError("%s failed, see above; or prepare data with ./prepare_dataset.sh and give --data din"
                            % command[0])
    return path


def with_threads(config, threads):
    """`config`, a ConfigProto, for a session that shares its `threads` with no other; 0: as many as it has."""
    config.use_per_session_threads = True
    if threads:
        config.intra_op_parallelism_threads = config.inter_op_parallelism_threads = threads
    return config


class ClockedSession:
    """A session that clocks its callables, and can show the values of further tensors in their calls.

    Attributes:
      stopwatch: adds up the seconds inside the callables.
      fetches, feed_list: of the callable that was called last.
    """

    def __init__(self, session):
        self._session, self._observing_call, self.stopwatch = session, None, Stopwatch()

    def __getattr__(self, name):
        return getattr(self._session, name)

    def make_callable(self, fetches, feed_list=None):
        call = self._session.make_callable(fetches, feed_list)

        def clocked(*values):
            self.fetches, self.feed_list = fetches, feed_list
            if self._observing_call:
                results, observation = self._observing_call(*values)
                self._observations.append(observation)
                return results
            with self.stopwatch:
                return call(*values)
        return clocked

    def observe(self, tensors, step, batches):
        """Yields for each of `batches` a list: the values of `tensors` in each call that `step(batch)` makes."""
        self._observing_call = self._session.make_callable([self.fetches, tensors], self.feed_list)
        for batch in batches:
            self._observations = []
            step(batch)
            yield self._observations
        self._observing_call = None


class OurSide:
    """This project's side, in a graph and session of its own.

    Args:
      model: a model's name.
      training: whether a step is an update; else it scores.
      dataset: for its sizes and categories.
      batch_size: of the batches that `step` will be given.
      threads: TensorFlow's; 0: what the project chooses.
      optimizer: a key of the model's learning rates; None: the authors' optimizer.

    Attributes:
      prefetch: the function that makes an iterator's batches ready, as a run of the project does.
      step: the function that trains on, or scores, a batch that is ready.
      graph: a `TrainingGraph` or a `ScoringGraph`.
      session: a `ClockedSession`.
    """

    def __init__(self, model, training, dataset, batch_size, threads=0, optimizer=None):
        authors_optimizer, rates = training_flags(model)
        optimizer = optimizer or authors_optimizer
        with tf.Graph().as_default():
            tf.set_random_seed(SEED)
            devices = tower_devices(1, batch_size)
            if training:
                self.graph = TrainingGraph(models.model_class(model), dataset, optimizer, shards=len(devices))
            else:
                self.graph = ScoringGraph(models.model_class(model), dataset)
            self._configs = [with_threads(config, threads)
                             for config in (session_config(1, len(devices)), tf.ConfigProto())]
            self.session = ClockedSession(Session(config=self._configs[0]))
            self.session.run(tf.global_variables_initializer())
            self.graph.start(self.session)
            if training:
                self.step = lambda batch: self.graph.train(batch, rates[optimizer])
                self.prefetch = lambda batches: prefetch(batches, self.graph.pack_for_training)
            else:
                self.step = Scorer(self.graph, self.session, dataset.item_count, devices).score
                self.prefetch = prefetch

    def first_step(self, batch):
        """Takes a step on `batch`, a `Batch`; returns its result."""
        return self.step(next(self.prefetch([batch])))

    def values(self):
        """The value of each variable by name."""
        return self.session.run({variable.op.name: variable for variable in self.graph.variables})

    def shapes(self, batches):
        """(the products of a call; of each of `batches` and its calls, the operands' shapes), after a first step."""
        ops = products(self.session.fetches)
        with self.session.graph.as_default():
            tensors = [tf.shape(self.session.graph.get_tensor_by_name(name)) for name in operands(ops)]
        return ops, [[[tuple(shape.tolist()) for shape in shapes] for shapes in calls]
                     for calls in self.session.observe(tensors, self.step, self.prefetch(batches))]

    def floors(self, batches):
        """Ways to compute the bare matrix products of `batches`, functions of a batch's index, after a first step.

        They differ in the session's threads, the model's and TensorFlow's choice, and in the products' order. Whichever
        is the fastest is the floor.
        """
        ops, shapes = self.shapes(batches)
        numbers = itertools.count()
        calls_of_batches = [[next(numbers) for _ in calls] for calls in shapes]
        floors = [Floor(ops, list(itertools.chain(*shapes)), config) for config in self._configs]
        return [lambda index, run=run: [run(call) for call in calls_of_batches[index]]
                for floor in floors for run in floor.runs]

    def close(self):
        self.session.close()


class PaddedSide:
    """Another side, in a graph and session of its own; `step` as in `OurSide`, on batches of padded.py.

    `dense` says which of the original's codes trains, as PaddedModel takes it; the other arguments are OurSide's.
    """

    def __init__(self, model, training, dataset, threads=0, dense=False):
        optimizer, rates = training_flags(model)
        with tf.Graph().as_default():
            tf.set_random_seed(SEED)
            self.model = PaddedModel(model, dataset, optimizer if training else None, dense)
            self.session = tf.Session(config=with_threads(
                tf.ConfigProto(gpu_options=tf.GPUOptions(allow_growth=True)), threads))
            self.session.run(tf.global_variables_initializer())
        self.model.start(self.session)
        self.step = (lambda inputs: self.model.train(inputs, rates[optimizer])) if training else self.model.score

    def close(self):
        self.session.close()
