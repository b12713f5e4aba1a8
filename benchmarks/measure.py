"""Measuring: alternating rounds of the two sides, medians and spread.

A round is: this project's batches, their bare matrix products, then the other side on the first of the same batches (it
gets through fewer in the same time). Each side has a process of its own, in which it is alone with its memory and its
threads, and waits while the other is measured. Rounds follow each other, so that whatever else the machine does meets both
sides alike, and ratios are taken within a round.
"""
import collections
import contextlib
import importlib
import itertools
import multiprocessing
import os
import time
import typing
from multiprocessing.managers import BaseManager

import numpy as np

from benchmarks.command import Table
from benchmarks.floor import Floor
from benchmarks.sides import Ours, Padded, find_dataset, with_threads
from utils.dataset import read_dataset
from utils.files import UserError
from utils.tf1 import tf
from utils.towers import describe_device

WARM_UP = 5       # steps before anything is measured (fewer if slow): the first allocate memory and choose kernels
PADDED_STEPS = 5  # the least in a round: a step's cost follows the longest history in its batch, which varies widely
MEMORY_STEPS = 3  # steps that the peak of memory is taken over


class Task(typing.NamedTuple):
    """What a benchmark measures."""
    name: str                       # in the table and in the JSON lines
    training: bool                  # whether steps are updates; else they score
    batches: typing.Callable        # (dataset, batch_size) -> this project's batches, without end, each of batch_size
    padded_inputs: typing.Callable  # (list of examples, batch_size) -> the other side's batches
    examples: typing.Callable       # (batch of this project) -> the list of examples in it, for the other side


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
      model: one of the project's.
      data: the path of a dataset.pkl.
      batch_size: recommendations, or users, of a batch.
      threads: TensorFlow's; 0: the side's own.
    """

    side = None  # the class of the side

    def __init__(self, task, model, data, batch_size, threads):
        self._task = importlib.import_module("benchmarks." + task).TASK
        self._dataset, self._batch_size, self._threads = read_dataset(data), batch_size, threads
        self._side = self.side(model, self._task.training, self._dataset, batch_size, threads)
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
        return self._side.values(), self._side.first_step(self._first), self._first.candidates.size

    def steps_that_last(self, seconds):
        return steps_that_last(seconds, self._side.step, self._side.prefetch(self._batches()))

    def prepare(self, steps, rounds):
        """Makes ready for `rounds` rounds of `steps`; to be called before `measure`."""
        stream = self._side.prefetch(self._batches())
        self._steps, self._stream = steps, itertools.chain([next(stream)], stream)  # made ready before the first round
        ops, shapes = self._side.shapes(itertools.chain(*self._in_rounds(steps, rounds)))
        floors = [Floor(ops, list(itertools.chain(*shapes)), config)
                  for config in (self._side.config, with_threads(tf.ConfigProto(), self._threads))]
        ends = np.cumsum([len(calls) for calls in shapes]).tolist()
        calls_of = [range(end - len(calls), end) for end, calls in zip(ends, shapes)]
        ways = [lambda index, run=run: [run(call) for call in calls_of[index]] for floor in floors for run in floor.runs]
        for run in ways:
            timed(run, range(min(WARM_UP, len(shapes))))
        self._floor = min(ways, key=lambda run: timed(run, range(min(steps, len(shapes))))[0])

    def measure(self, number):
        """Measures round `number`; returns seconds: (altogether, inside the session's calls, of the floor, [of each step])."""
        steps, before = self._steps, self._side.session.stopwatch.seconds
        loop_seconds, of_steps = timed(self._side.step, itertools.islice(self._stream, steps))
        session_seconds = self._side.session.stopwatch.seconds - before
        floor_seconds, _ = timed(self._floor, range(number * steps, (number + 1) * steps))
        return loop_seconds, session_seconds, floor_seconds, of_steps


class MeasuredPadded(Measured):
    side = Padded

    def _padded_inputs(self, batches):
        for batch in batches:
            yield from self._task.padded_inputs(self._task.examples(batch), self._batch_size)

    def first_step(self, values):
        """The result of the first batch, given the variables `values`."""
        self._side.model.load(values)
        return self._side.step(next(self._padded_inputs([self._first])))

    def steps_that_last(self, seconds):
        return steps_that_last(seconds, self._side.step, self._padded_inputs(self._batches()))

    def prepare(self, steps, rounds, first):
        """Makes ready for `rounds` rounds on the `first` of their `steps` batches; to be called before `measure`."""
        self._rounds = [[example for batch in batches[:first] for example in self._task.examples(batch)]
                        for batches in self._in_rounds(steps, rounds)]

    def measure(self, number):
        """Measures round `number`; returns its seconds."""
        return timed(self._side.step, self._task.padded_inputs(self._rounds[number], self._batch_size))[0]


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
        measured = {"ours": Ours, "padded": Padded}[side](model, task.training, dataset, batch_size, threads)
        batches = list(itertools.islice(task.batches(dataset, batch_size), MEMORY_STEPS))
        if side == "padded":
            batches = task.padded_inputs([example for batch in batches for example in task.examples(batch)], batch_size)
        else:
            batches = measured.prefetch(batches)
        timed(measured.step, batches)
        measured.close()
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
