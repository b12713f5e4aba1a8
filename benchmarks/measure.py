"""Measuring: alternating rounds of the two sides, medians and spread.

A round is: this project's batches, their bare matrix products, then the other side on the first of the same batches (it
gets through fewer in the same time). Each side has a process to itself, is alone there with its memory and its threads,
and waits while the other is measured. Rounds follow each other, so that whatever else the machine does meets both sides
alike, and ratios are taken within a round.
"""
import collections
import contextlib
import importlib
import itertools
import math
import multiprocessing
import os
import time
import typing
from multiprocessing.managers import BaseManager

import numpy as np

from benchmarks.command import Table, with_spread
from benchmarks.floor import Floor
from benchmarks.sides import OurSide, PaddedSide, find_dataset, with_threads
from utils.dataset import read_dataset
from utils.files import UserError
from utils.tf1 import tf
from utils.towers import describe_device

WARM_UP = 5       # steps before anything is measured (fewer if slow): the first allocate memory and choose kernels
PADDED_STEPS = 5  # the least in a round: a step's cost follows the longest history in its batch, which varies widely
MEMORY_STEPS = 3  # steps that the peak of memory is taken over


class Task(typing.NamedTuple):
    """What a benchmark measures."""
    name: str                       # of its module here; in the table and in the JSON lines
    training: bool                  # whether steps are updates; else they score
    batches: typing.Callable        # (dataset, batch_size) -> this project's batches, without end, each of batch_size
    padded_inputs: typing.Callable  # (list of examples, batch_size) -> the other side's batches
    examples: typing.Callable       # (list of this project's batches) -> the list of examples in them


def histories(batch):
    """The history of each user in a `Batch`, lists of items."""
    return [history.tolist() for history in np.split(batch.history, np.cumsum(batch.lengths)[:-1])]


# ---- measuring -------------------------------------------------------------------------------------------------------

def time_steps(step, batches):
    """Runs `step` on each of `batches`; returns (seconds altogether, [seconds of each step])."""
    seconds_of_steps = []
    started = time.perf_counter()
    for batch in batches:
        entered = time.perf_counter()
        step(batch)
        seconds_of_steps.append(time.perf_counter() - entered)
    return time.perf_counter() - started, seconds_of_steps


def steps_that_last(seconds, step, batches):
    """How many steps last about `seconds`, after a warm-up; takes from the iterator `batches`."""
    for max_steps, max_seconds in ((WARM_UP, seconds), (math.inf, seconds / 4)):
        count, spent = 0, 0.0
        while count < max_steps and spent < max_seconds:
            spent += time_steps(step, itertools.islice(batches, 1))[0]
            count += 1
    return max(1, round(count * seconds / spent))


def linux_number(path, name):
    """The number that follows `name` in a file of Linux's /proc; None where there is no such file."""
    if not os.path.exists(path):
        return None
    with open(path) as lines:
        return next(int(line.split()[1]) for line in lines if line.split()[:1] == [name])


class Measurer:
    """A side and its batches, in the process where it is measured: made by `in_its_process`.

    Args:
      task: the name of a module with a `Task`.
      model: one of the project's.
      data: the path of a dataset.pkl.
      batch_size: recommendations, or users, of a batch.
      threads: TensorFlow's; 0: the side's own.
    """

    side_class = None  # a subclass has it, and `_inputs(batches)`, an iterator of what its step takes

    def __init__(self, task, model, data, batch_size, threads):
        self._task = importlib.import_module("benchmarks." + task).TASK
        self._dataset, self._batch_size, self._threads = read_dataset(data), batch_size, threads
        self._side = self.side_class(model, self._task.training, self._dataset, batch_size, threads)
        self._first_batch = next(self._batches())

    def _batches(self):
        """The batches that are measured, from the first on."""
        batches = self._task.batches(self._dataset, self._batch_size)
        next(batches)  # an epoch's order is drawn at its start: not within a round, which is shorter than an epoch
        return batches

    def steps_that_last(self, seconds):
        """As the function of that name, of the side's steps."""
        return steps_that_last(seconds, self._side.step, self._inputs(self._batches()))


class OurMeasurer(Measurer):
    side_class = OurSide

    def _inputs(self, batches):
        return self._side.prefetch(batches)

    def first_step(self):
        """(the variables at first by name, the result of the first batch, the recommendations in it)."""
        return self._side.values(), self._side.first_step(self._first_batch), self._first_batch.candidates.size

    def prepare(self, steps, rounds):
        """Makes ready for `rounds` rounds of `steps`; to be called before `measure`."""
        stream = self._inputs(self._batches())
        self._steps, self._stream = steps, itertools.chain([next(stream)], stream)  # made ready before the first round
        ops, shapes = self._side.shapes(itertools.islice(self._batches(), steps * rounds))
        numbers = itertools.count()
        calls_of_batches = [[next(numbers) for _ in calls] for calls in shapes]
        floors = [Floor(ops, list(itertools.chain(*shapes)), config)
                  for config in (self._side.config, with_threads(tf.ConfigProto(), self._threads))]
        ways = [lambda index, run=run: [run(call) for call in calls_of_batches[index]]
                for floor in floors for run in floor.runs]
        for way in ways:
            time_steps(way, range(min(WARM_UP, len(shapes))))
        self._floor = min(ways, key=lambda way: time_steps(way, range(steps))[0])

    def measure(self, number):
        """Measures round `number`.

        Returns:
          Seconds: (altogether, inside the session's calls, of the floor, [of each step]).
        """
        steps, before = self._steps, self._side.session.stopwatch.seconds
        loop_seconds, step_seconds = time_steps(self._side.step, itertools.islice(self._stream, steps))
        session_seconds = self._side.session.stopwatch.seconds - before
        floor_seconds, _ = time_steps(self._floor, range(number * steps, (number + 1) * steps))
        return loop_seconds, session_seconds, floor_seconds, step_seconds


class PaddedMeasurer(Measurer):
    side_class = PaddedSide

    def _inputs(self, batches):
        for batch in batches:
            yield from self._task.padded_inputs(self._task.examples([batch]), self._batch_size)

    def first_step(self, values):
        """The result of the first batch, given the variables `values`."""
        self._side.model.load(values)
        return self._side.step(next(self._inputs([self._first_batch])))

    def prepare(self, steps, rounds, first):
        """Makes ready for `rounds` rounds on the `first` of their `steps` batches; to be called before `measure`."""
        batches = self._batches()
        self._examples = [self._task.examples(list(itertools.islice(batches, steps))[:first]) for _ in range(rounds)]

    def measure(self, number):
        """Measures round `number`; returns its seconds."""
        return time_steps(self._side.step, self._task.padded_inputs(self._examples[number], self._batch_size))[0]


class _Process(BaseManager):
    """A process for one side."""


for _measurer in (OurMeasurer, PaddedMeasurer):
    _Process.register(_measurer.__name__, _measurer)


@contextlib.contextmanager
def in_its_process(measurer, *arguments):
    """`measurer(*arguments)`, OurMeasurer's or PaddedMeasurer's, in a process that ends with the block."""
    process = _Process(ctx=multiprocessing.get_context("spawn"))
    process.start()
    try:
        yield getattr(process, measurer.__name__)(*arguments)
    finally:
        process.shutdown()


def compare(task, model, data, batch_size, rounds, seconds, threads):
    """Measures both sides and the floor in alternating rounds.

    Args:
      task: the name of a `Task`; the others as `Measurer` takes them.
      rounds: how many.
      seconds: of each side in a round, about.

    Returns:
      ({figure: [its value in each round]}, (steps of this project in a round, of the padded side), [milliseconds of
      each step of this project]). Throughputs are in recommendations per second.

    Raises:
      UserError: the sides compute different results.
    """
    arguments = task, model, data, batch_size, threads
    with in_its_process(OurMeasurer, *arguments) as ours, in_its_process(PaddedMeasurer, *arguments) as padded:
        values, result, recommendations = ours.first_step()
        if not np.allclose(result, padded.first_step(values), rtol=1e-3, atol=1e-3):
            raise UserError("the two sides compute different results, so their speeds can't be compared")
        steps = ours.steps_that_last(seconds)
        padded_steps = min(steps, max(PADDED_STEPS, padded.steps_that_last(seconds)))
        ours.prepare(steps, rounds)
        padded.prepare(steps, rounds, padded_steps)

        figures, milliseconds = collections.defaultdict(list), []
        for number in range(rounds):
            loop_seconds, session_seconds, floor_seconds, step_seconds = ours.measure(number)
            figures["ours"].append(recommendations * steps / loop_seconds)
            figures["padded"].append(recommendations * padded_steps / padded.measure(number))
            figures["ratio"].append(figures["ours"][-1] / figures["padded"][-1])
            figures["floor_share"].append(floor_seconds / loop_seconds)
            figures["outside"].append(1 - session_seconds / loop_seconds)
            milliseconds += [1000 * step for step in step_seconds]
    return figures, (steps, padded_steps), milliseconds


def _peak_memory(name, side, model, data, batch_sizes, threads):
    """Runs a few steps of one side at each of `batch_sizes`, ascending; returns this process's peak after each, in MiB.

    None where Linux does not tell. Not resource.getrusage: its peak begins with the peak of the starting process.
    """
    task = importlib.import_module("benchmarks." + name).TASK
    dataset = read_dataset(data)
    peaks = {}
    for batch_size in sorted(batch_sizes):
        a_side = {"ours": OurSide, "padded": PaddedSide}[side](model, task.training, dataset, batch_size, threads)
        batches = list(itertools.islice(task.batches(dataset, batch_size), MEMORY_STEPS))
        time_steps(a_side.step, a_side.prefetch(batches) if side == "ours"
                   else task.padded_inputs(task.examples(batches), batch_size))
        a_side.close()
        kibibytes = linux_number("/proc/self/status", "VmHWM:")
        peaks[batch_size] = kibibytes and kibibytes // 1024
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
    examples = len(dataset.train.items if task.training else dataset.test.positives)
    if max(arguments.batch_sizes) > examples:
        raise UserError("a batch of %d is larger than the %d examples of %s; lower --batch_sizes"
                        % (max(arguments.batch_sizes), examples, dataset.name))
    columns = [
        ("batch", 7, "{batch_size:,}"), ("ours", 34, with_spread("ours", ",.0f")),
        ("padded", 28, with_spread("padded", ",.0f")), ("ratio", 20, with_spread("ratio", ".1f")),
        ("floor share", 11, "{floor_share:.1%}"), ("outside", 8, "{outside:.1%}"),
        ("MiB, ours", 9, "{peak_memory_mib[ours]}"), ("padded", 7, "{peak_memory_mib[padded]}")]
    if not task.training:
        columns.append(("ms, p50 / p99", 15, "{latency_ms_p50:.2f} / {latency_ms_p99:.2f}"))
    table, device = Table(arguments.json, columns), describe_device(1)
    table.title("%s, %s on %s; %s, TensorFlow %s" % (task.name, arguments.model, dataset.name, device, tf.__version__))
    table.title("Recommendations per second: median of %d rounds (lowest to highest)." % arguments.rounds)
    memory = {side: peak_memory(task.name, side, arguments.model, data, arguments.batch_sizes, arguments.threads)
              for side in ("ours", "padded")}
    for batch_size in arguments.batch_sizes:
        figures, steps, milliseconds = compare(task.name, arguments.model, data, batch_size, arguments.rounds,
                                               arguments.seconds, arguments.threads)
        result = dict(
            benchmark=task.name, batch_size=batch_size,
            **{name: float(np.median(values)) for name, values in figures.items()},
            spread={name: [min(values), max(values)] for name, values in figures.items()},
            steps=dict(zip(("ours", "padded"), steps)), rounds=arguments.rounds,
            peak_memory_mib={side: peaks[batch_size] for side, peaks in memory.items()},
            model=arguments.model, dataset=dataset.name, threads=arguments.threads, device=device,
            tensorflow=tf.__version__)
        if not task.training:
            result["latency_ms_p50"], result["latency_ms_p99"] = np.percentile(milliseconds, [50, 99]).tolist()
        table.row(result)
