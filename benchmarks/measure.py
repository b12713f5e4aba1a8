"""What the benchmarks share: their arguments, the two sides, alternating rounds, medians and spread, the table.

A round is: this project's batches, their bare matrix products, then the other side on the first of the same batches (it
gets through fewer in the same time). Each side has a process of its own, in which it is alone with its memory and its
threads, and waits while the other is measured. Rounds follow each other, so that whatever else the machine does meets both
sides alike, and ratios are taken within a round.
"""
import collections
import contextlib
import importlib
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing.managers import BaseManager

# Else all sessions of a process share the threads of the first, and the floor could not try others than the model's.
os.environ["TF_OVERRIDE_GLOBAL_THREADPOOL"] = "1"  # read by TensorFlow, together with use_per_session_threads

import numpy as np

from benchmarks.floor import Floor, operands, products
from benchmarks.padded import PaddedModel
from utils.commands import MODELS, at_least, model_class, positive_float
from utils.dataset import read_dataset
from utils.files import ROOT, Parser, UserError
from utils.serving.scoring import Scorer
from utils.engine.session import Session
from utils.tf1 import tf
from utils.timing import Stopwatch
from utils.towers import describe_device, session_config, tower_devices
from utils.train_loop import build

SEED = 1234
WARM_UP = 5       # steps before anything is measured (fewer if slow): the first allocate memory and choose kernels
PADDED_STEPS = 5  # the least in a round: a step's cost follows the longest history in its batch, which varies widely
MEMORY_STEPS = 3  # steps that the peak of memory is taken over

Task = collections.namedtuple("Task", "name training batches padded_inputs examples")
Task.__doc__ = """What a benchmark measures.

name           in the table and in the JSON lines
training       whether steps are updates; else they score
batches        (dataset, batch_size) -> this project's batches, without end, each of batch_size
padded_inputs  (list of examples, batch_size) -> the other side's batches
examples       (batch of this project) -> the list of examples in it, for the other side
"""


def make_parser(name, description):
    """A parser with the arguments that benchmarks.train and benchmarks.infer share."""
    parser = Parser(prog="python -m benchmarks.%s" % name, description=description)
    parser.add_argument("--data", default="small", help="small or full: the generated sample, made where it is not "
                        "there yet; or a dataset.pkl, or the folder of one (default: %(default)s)")
    parser.add_argument("--model", choices=MODELS, default="din", help="default: %(default)s")
    parser.add_argument("--batch_sizes", type=at_least(1), nargs="+", default=[32, 256, 1024], metavar="SIZE",
                        help="default: 32 256 1024")
    parser.add_argument("--rounds", type=at_least(1), default=5,
                        help="how often the sides alternate (default: %(default)s)")
    parser.add_argument("--seconds", type=positive_float, default=2.0,
                        help="of each side in a round, about (default: %(default)s)")
    add_common_arguments(parser)
    return parser


def add_common_arguments(parser):
    """Adds the arguments that every benchmark of the models has."""
    parser.add_argument("--threads", type=at_least(0), default=0, help="TensorFlow's, on both sides; 0: each side's own (default)")
    parser.add_argument("--json", action="store_true",
                        help="a JSON line per measurement on standard output; the table then goes to standard error")


# ---- data and models -------------------------------------------------------------------------------------------------

def find_dataset(data):
    """The path of the dataset.pkl that `--data` means; a sample is made where it is not there yet.

    Raises:
      UserError: there is none.
    """
    if data in ("small", "full"):
        return _sample(data)
    for path in (data, os.path.join(data, "dataset.pkl"), os.path.join(data, "din", "dataset.pkl")):
        if os.path.isfile(path):
            return path
    raise UserError("no dataset.pkl at %s; give small, full, a dataset.pkl or a folder with one" % data)


def _sample(size):
    """The dataset.pkl of a generated sample, apart from what the project is prepared with."""
    raw, folder = (os.path.join(ROOT, "raw_data", name % size) for name in ("sample_%s", "prepared_%s"))
    path = os.path.join(folder, "dataset.pkl")
    if not os.path.exists(path):
        for command in (["utils/make_sample.py", size, "--output", raw],
                        ["utils/1_convert_pd.py", "--raw_data", raw, "--output", folder],
                        ["utils/2_remap_id.py", "--output", folder],
                        ["din/build_dataset.py", "--remap", os.path.join(folder, "remap.pkl"), "--output", path]):
            if subprocess.run([sys.executable] + command, cwd=ROOT, stdout=sys.stderr).returncode:
                raise UserError("%s failed, see above; or prepare data with ./prepare_dataset.sh and give --data din"
                                % command[0])
    return path


def own_training(name):
    """(the optimizer that the authors train a model with, the learning rates of all that it can be trained with)."""
    script = importlib.import_module(name.replace("_dice", "") + ".train")
    return script.OPTIMIZER, script.LEARNING_RATES


def with_threads(config, threads):
    """`config`, a ConfigProto, for a session with threads of its own, as many as `threads`; 0: as it is."""
    config.use_per_session_threads = True
    if threads:
        config.intra_op_parallelism_threads = config.inter_op_parallelism_threads = threads
    return config


class ClockedSession:
    """A session that clocks its callables: a model which is started with it shows what it calls, and for how long.

    Attributes:
      stopwatch: adds up the seconds inside the callables.
      fetches, feed_list: the latest callable's.
    """

    def __init__(self, session):
        self._session, self._extended, self.stopwatch = session, None, Stopwatch()

    def __getattr__(self, name):
        return getattr(self._session, name)

    def make_callable(self, fetches, feed_list=None):
        call = self._session.make_callable(fetches, feed_list)

        def clocked(*values):
            self.fetches, self.feed_list = fetches, feed_list
            if self._extended:
                results, observed = self._extended(*values)
                self._observed.append(observed)
                return results
            with self.stopwatch:
                return call(*values)
        return clocked

    def observe(self, tensors, step, batches):
        """Yields the values of `tensors` in each call that `step(batch)` makes, a list, for each of `batches`."""
        self._extended = self._session.make_callable([self.fetches, tensors], self.feed_list)
        for batch in batches:
            self._observed = []
            step(batch)
            yield self._observed
        self._extended = None


class Ours:
    """This project's side, in a graph and session of its own.

    Args:
      model: one of MODELS.
      training: whether a step is an update; else it scores.
      dataset: for its sizes and categories.
      batch_size: of the batches to come.
      threads: TensorFlow's; 0: what the project chooses.
      optimizer: the model's own where it is None.

    Attributes:
      step: the function that trains on, or scores, a batch.
      prepared: the function that makes batches ready for it, as a run of the project does; an iterator's.
      session: a `ClockedSession`.
    """

    def __init__(self, model, training, dataset, batch_size, threads=0, optimizer=None):
        own_optimizer, rates = own_training(model)
        optimizer = optimizer or own_optimizer
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.set_random_seed(SEED)
            if training:
                self.model = build(model_class(model), dataset, 1, batch_size, optimizer)
            else:
                self.model = model_class(model)(dataset.item_count, dataset.cate_count, dataset.cate_list)
            devices = tower_devices(1, batch_size)
            self.config = with_threads(session_config(1, len(devices)), threads)
            self.session = ClockedSession(Session(config=self.config))
            self.session.run(tf.global_variables_initializer())
            self.model.start(self.session)
            if training:
                self.step = lambda batch: self.model.train(batch, rates[optimizer])
            else:
                self.step = Scorer(self.model, self.session, dataset.item_count, devices).score
        self.prepared = self.model.prepared

    def values(self):
        """The value of each variable by name."""
        return self.session.run({variable.op.name: variable for variable in self.model.variables})

    def shapes(self, batches):
        """(the products of a call, for each of `batches` and each of its calls the shape of each operand); after a first step."""
        ops = products(self.session.fetches)
        with self.graph.as_default():
            tensors = [tf.shape(self.graph.get_tensor_by_name(name)) for name in operands(ops)]
        return ops, [[[tuple(shape.tolist()) for shape in shapes] for shapes in calls]
                     for calls in self.session.observe(tensors, self.step, batches)]

    def close(self):
        self.session.close()


class Padded:
    """The other side, in a graph and session of its own; `step` as in `Ours`."""

    def __init__(self, model, training, dataset, batch_size, threads=0):
        optimizer, rates = own_training(model)
        with tf.Graph().as_default():
            tf.set_random_seed(SEED)
            self.model = PaddedModel(model, dataset.item_count, dataset.cate_count, dataset.cate_list,
                                     optimizer if training else None)
            self.session = tf.Session(config=with_threads(
                tf.ConfigProto(gpu_options=tf.GPUOptions(allow_growth=True)), threads))
            self.session.run(tf.global_variables_initializer())
        self.model.start(self.session)
        self.step = (lambda inputs: self.model.train(inputs, rates[optimizer])) if training else self.model.score

    def close(self):
        self.session.close()


# ---- measuring -------------------------------------------------------------------------------------------------------

def timed(step, batches):
    """Runs `step` on each of `batches`; returns (seconds altogether, [seconds of each step])."""
    steps = []
    started = time.perf_counter()
    for batch in batches:
        entered = time.perf_counter()
        step(batch)
        steps.append(time.perf_counter() - entered)
    return time.perf_counter() - started, steps


def steps_that_last(seconds, step, batches):
    """How many steps last about `seconds`, after a warm-up; takes from the iterator `batches`."""
    count, spent = 0, 0.0
    while count < WARM_UP and spent < seconds:
        spent += timed(step, itertools.islice(batches, 1))[0]
        count += 1
    count, spent = 0, 0.0
    while not count or spent < seconds / 4:
        spent += timed(step, itertools.islice(batches, 1))[0]
        count += 1
    return max(1, round(count * seconds / spent))


class Measured:
    """A side and its batches, as it is measured: made by `in_its_process`.

    Args:
      task: the name of a module with a `Task`.
      model: one of MODELS.
      data: the path of a dataset.pkl.
      batch_size: recommendations, or users, of a batch.
      threads: TensorFlow's; 0: the side's own.
    """

    side = None  # the class of the side

    def __init__(self, task, model, data, batch_size, threads):
        self._task = importlib.import_module("benchmarks." + task).TASK
        self._dataset, self._batch_size, self._threads = read_dataset(data), batch_size, threads
        self._own = self.side(model, self._task.training, self._dataset, batch_size, threads)
        self._first = next(self._batches())

    def _batches(self):
        """The batches that are measured, from the first on."""
        batches = self._task.batches(self._dataset, self._batch_size)
        next(batches)  # an epoch's order is drawn at its start: not within a round, which is shorter than an epoch
        return batches

    def _in_rounds(self, steps, rounds):
        """The batches of each round: `rounds` lists of `steps`."""
        batches = self._batches()
        return [list(itertools.islice(batches, steps)) for _ in range(rounds)]


class MeasuredOurs(Measured):
    side = Ours

    def first_step(self):
        """(the variables at first by name, the result of the first batch, the recommendations in it)."""
        return self._own.values(), self._own.step(self._first), self._first.candidates.size

    def steps_that_last(self, seconds):
        return steps_that_last(seconds, self._own.step, self._own.prepared(self._batches()))

    def prepare(self, steps, rounds):
        """Makes ready for `rounds` rounds of `steps`; to be called before `measure`."""
        stream = self._own.prepared(self._batches())
        self._steps, self._stream = steps, itertools.chain([next(stream)], stream)  # made ready before the first round
        ops, shapes = self._own.shapes(itertools.chain(*self._in_rounds(steps, rounds)))
        floors = [Floor(ops, list(itertools.chain(*shapes)), config)
                  for config in (self._own.config, with_threads(tf.ConfigProto(), self._threads))]
        ends = np.cumsum([len(calls) for calls in shapes]).tolist()
        calls_of = [range(end - len(calls), end) for end, calls in zip(ends, shapes)]
        ways = [lambda index, run=run: [run(call) for call in calls_of[index]] for floor in floors for run in floor.runs]
        for run in ways:
            timed(run, range(min(WARM_UP, len(shapes))))
        self._floor = min(ways, key=lambda run: timed(run, range(min(steps, len(shapes))))[0])

    def measure(self, number):
        """Measures round `number`; returns seconds: (altogether, inside the session's calls, of the floor, [of each step])."""
        steps, before = self._steps, self._own.session.stopwatch.seconds
        loop_seconds, of_steps = timed(self._own.step, itertools.islice(self._stream, steps))
        session_seconds = self._own.session.stopwatch.seconds - before
        floor_seconds, _ = timed(self._floor, range(number * steps, (number + 1) * steps))
        return loop_seconds, session_seconds, floor_seconds, of_steps


class MeasuredPadded(Measured):
    side = Padded

    def _padded_inputs(self, batches):
        for batch in batches:
            yield from self._task.padded_inputs(self._task.examples(batch), self._batch_size)

    def first_step(self, values):
        """The result of the first batch, given the variables `values`."""
        self._own.model.load(values)
        return self._own.step(next(self._padded_inputs([self._first])))

    def steps_that_last(self, seconds):
        return steps_that_last(seconds, self._own.step, self._padded_inputs(self._batches()))

    def prepare(self, steps, rounds, first):
        """Makes ready for `rounds` rounds on the `first` of their `steps` batches; to be called before `measure`."""
        self._rounds = [[example for batch in batches[:first] for example in self._task.examples(batch)]
                        for batches in self._in_rounds(steps, rounds)]

    def measure(self, number):
        """Measures round `number`; returns its seconds."""
        return timed(self._own.step, self._task.padded_inputs(self._rounds[number], self._batch_size))[0]


class _Process(BaseManager):
    """A process for one side."""


for _measured in (MeasuredOurs, MeasuredPadded):
    _Process.register(_measured.__name__, _measured)


@contextlib.contextmanager
def in_its_process(measured, *arguments):
    """`measured(*arguments)` in a process of its own, which ends with the block; a class of this module."""
    process = _Process(ctx=multiprocessing.get_context("spawn"))
    process.start()
    try:
        yield getattr(process, measured.__name__)(*arguments)
    finally:
        process.shutdown()


def compare(task, model, data, batch_size, rounds, seconds, threads):
    """Measures both sides and the floor in alternating rounds.

    Args:
      task: the name of a `Task`; the others as `Measured` takes them.
      rounds: how many.
      seconds: of each side in a round, about.

    Returns:
      A dictionary: for each figure a list with one value per round. Throughputs are in recommendations per second.

    Raises:
      UserError: the sides compute different results.
    """
    arguments = task, model, data, batch_size, threads
    with in_its_process(MeasuredOurs, *arguments) as ours, in_its_process(MeasuredPadded, *arguments) as padded:
        values, result, recommendations = ours.first_step()
        if not np.allclose(result, padded.first_step(values), rtol=1e-3, atol=1e-3):
            raise UserError("the two sides compute different results, so their speeds can't be compared")
        steps = ours.steps_that_last(seconds)
        padded_steps = min(steps, max(PADDED_STEPS, padded.steps_that_last(seconds)))
        ours.prepare(steps, rounds)
        padded.prepare(steps, rounds, padded_steps)

        figures = collections.defaultdict(list)
        figures["steps"] = [steps, padded_steps]
        for number in range(rounds):
            loop_seconds, session_seconds, floor_seconds, of_steps = ours.measure(number)
            figures["ours"].append(recommendations * steps / loop_seconds)
            figures["padded"].append(recommendations * padded_steps / padded.measure(number))
            figures["ratio"].append(figures["ours"][-1] / figures["padded"][-1])
            figures["floor_share"].append(floor_seconds / loop_seconds)
            figures["outside"].append(1 - session_seconds / loop_seconds)
            figures["latency_ms"] += [1000 * step for step in of_steps]
    return figures


def _peak_memory(name, side, model, data, batch_sizes, threads):
    """Runs a few steps of one side at each of `batch_sizes`, ascending; returns this process's peak after each, in MiB.

    None where Linux does not tell. Not resource.getrusage: its peak begins with that of the process which started this.
    """
    task = importlib.import_module("benchmarks." + name).TASK
    dataset = read_dataset(data)
    peaks = {}
    for batch_size in sorted(batch_sizes):
        own = {"ours": Ours, "padded": Padded}[side](model, task.training, dataset, batch_size, threads)
        batches = list(itertools.islice(task.batches(dataset, batch_size), MEMORY_STEPS))
        if side == "padded":
            batches = task.padded_inputs([example for batch in batches for example in task.examples(batch)], batch_size)
        timed(own.step, batches)
        own.close()
        peaks[batch_size] = None
        if os.path.exists("/proc/self/status"):
            with open("/proc/self/status") as status:
                peaks[batch_size] = next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))
    return peaks


def peak_memory(*arguments):
    """`_peak_memory` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, arguments)


# ---- reporting -------------------------------------------------------------------------------------------------------

def run(task, parser):
    """The command of a benchmark: a measurement for each batch size, its line in the table, its JSON line."""
    arguments = parser.parse_args()
    data = find_dataset(arguments.data)
    dataset = read_dataset(data)
    examples = len((dataset.train.items if task.training else dataset.test.positives))
    if max(arguments.batch_sizes) > examples:
        raise UserError("a batch of %d is larger than the %d examples of %s; lower --batch_sizes"
                        % (max(arguments.batch_sizes), examples, dataset.name))
    columns = [
        ("batch", 7, "{batch_size:,}"), ("ours", 34, "{ours:,.0f} ({spread[ours][0]:,.0f} to {spread[ours][1]:,.0f})"),
        ("padded", 28, "{padded:,.0f} ({spread[padded][0]:,.0f} to {spread[padded][1]:,.0f})"),
        ("ratio", 20, "{ratio:.1f} ({spread[ratio][0]:.1f} to {spread[ratio][1]:.1f})"),
        ("floor share", 11, "{floor_share:.1%}"), ("outside", 8, "{outside:.1%}"),
        ("MiB, ours", 9, "{peak_memory_mib[ours]}"), ("padded", 7, "{peak_memory_mib[padded]}")]
    if not task.training:
        columns.append(("ms, p50 / p99", 15, "{latency_ms_p50:.2f} / {latency_ms_p99:.2f}"))
    table = Table(arguments.json, columns)
    table.title("%s, %s on %s; %s, TensorFlow %s" % (
        task.name, arguments.model, dataset.name, describe_device(1), tf.__version__))
    table.title("Recommendations per second: median of %d rounds (lowest to highest)." % arguments.rounds)
    memory = {side: peak_memory(task.name, side, arguments.model, data, arguments.batch_sizes, arguments.threads)
              for side in ("ours", "padded")}
    for batch_size in arguments.batch_sizes:
        figures = compare(task.name, arguments.model, data, batch_size, arguments.rounds, arguments.seconds,
                          arguments.threads)
        latencies = figures.pop("latency_ms")
        steps = figures.pop("steps")
        result = {"benchmark": task.name, "batch_size": batch_size}
        result.update((name, float(np.median(values))) for name, values in figures.items())
        result["spread"] = {name: [min(values), max(values)] for name, values in figures.items()}
        result.update(steps=dict(zip(("ours", "padded"), steps)), rounds=arguments.rounds,
                      peak_memory_mib={side: peaks[batch_size] for side, peaks in memory.items()},
                      model=arguments.model, dataset=dataset.name, threads=arguments.threads,
                      device=describe_device(1), tensorflow=tf.__version__)
        if not task.training:
            result["latency_ms_p50"], result["latency_ms_p99"] = np.percentile(latencies, [50, 99]).tolist()
        table.row(result)


class Table:
    """Prints a line of fixed-width text per measurement, or with `as_json` also a JSON line.

    Args:
      as_json: JSON lines on standard output, the table on standard error.
      columns: (heading, width, format of the cell), in order.
    """

    def __init__(self, as_json, columns):
        self._as_json, self._columns, self._headed = as_json, columns, False
        self._file = sys.stderr if as_json else sys.stdout

    def title(self, line):
        """Prints a line of text."""
        print(line, file=self._file, flush=True)

    def row(self, result):
        """Prints a measurement, a dictionary."""
        if not self._headed:
            self.title("".join(heading.rjust(width + 2) for heading, width, _ in self._columns))
            self._headed = True
        self.title("".join(form.format(**result).rjust(width + 2) for _, width, form in self._columns))
        if self._as_json:
            print(json.dumps(result), flush=True)
