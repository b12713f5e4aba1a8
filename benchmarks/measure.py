"""Measuring: alternating rounds of the sides, medians and spread.

A round is: this project's batches, their bare matrix products, then each other side on the first of the same batches
(it gets through fewer in the same time). Each side has a process to itself, is alone there with its memory and its
threads, and waits while another is measured. Rounds follow each other, so that whatever else the machine does meets all
sides alike, and ratios are taken within a round.

The sides are `ours`, this project, and a `Task`'s padded ones: in training `padded_dense` and `padded_sparse`, the two
codes that padded.py tells of; in inference, where these are the same, `padded`.
"""
import collections
import contextlib
import importlib
import itertools
import math
import multiprocessing
import time
import typing
from multiprocessing.managers import BaseManager

import numpy as np

from benchmarks.command import Table, check_batch_sizes, summary, with_spread
from benchmarks.padded import reference_of
from benchmarks.sides import OurSide, PaddedSide, find_dataset
from utils.batches import GROUP
from utils.dataset import read_dataset
from utils.files import UserError
from utils.tf1 import tf
from utils.towers import describe_device

WARM_UP = 5       # steps before anything is measured (fewer if slow): the first allocate memory and choose kernels
PADDED_STEPS = 5  # the least in a round: a step's cost follows the longest history in its batch, which varies widely


class Task(typing.NamedTuple):
    """What a benchmark measures."""
    name: str                       # of its module here; in the table and in the JSON lines
    training: bool                  # whether steps are updates; else they score
    batches: typing.Callable        # (dataset, batch_size) -> this project's batches, without end, each of batch_size
    padded_inputs: typing.Callable  # (list of examples, batch_size) -> a padded side's batches
    examples: typing.Callable       # (list of this project's batches) -> the list of examples in them
    padded_sides: typing.Tuple[str, ...]  # the names of the other sides


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
    """The number that follows `name` in a file of Linux's /proc; None where the file, or its line, is not there."""
    try:
        with open(path) as lines:
            return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), None)
    except OSError:
        return None


class Measurer:
    """A side and its batches, in the process where it is measured.

    Args:
      task: a `Task`.
      side: an `OurSide` for OurMeasurer, a `PaddedSide` for PaddedMeasurer.
      dataset: whose batches are measured.
      batch_size: recommendations, or users, of a batch.
    """

    def __init__(self, task, side, dataset, batch_size):
        self._task, self._side, self._dataset, self._batch_size = task, side, dataset, batch_size
        self._first_batch = next(self._batches())

    def _batches(self):
        """The batches that are measured, from the first on."""
        batches = self._task.batches(self._dataset, self._batch_size)
        next(batches)  # an epoch's order is drawn at its start: not within a round, which is shorter than an epoch
        return batches

    def steps_that_last(self, seconds):
        """As the function of that name, of the side's steps."""
        return steps_that_last(seconds, self._side.step, self._inputs(self._batches()))

    def peak_memory(self):
        """Takes the first steps, as a run does, and closes the side; returns this process's peak in MiB, or None."""
        time_steps(self._side.step, itertools.islice(self._inputs(self._batches()), self._memory_steps()))
        self._side.close()
        return peak_mebibytes()


class OurMeasurer(Measurer):
    """This project's side."""

    def _inputs(self, batches):
        return self._side.prefetch(batches)

    def _memory_steps(self):
        """Enough that the thread which makes batches ready holds as much as it ever does.

        It makes the third group of batches while the second is trained on. Training DIN with histories of 1,000 and
        batches of 256, the peak is 2,515 MiB after 3 steps, 2,660 after these and 2,675 after twice as many.
        """
        return 2 * GROUP // self._batch_size + WARM_UP

    def first_step(self):
        """(the variables at first by name, the result of the first batch, the recommendations in it)."""
        return self._side.values(), self._side.first_step(self._first_batch), self._first_batch.candidates.size

    def prepare(self, steps, rounds):
        """Makes ready for `rounds` rounds of `steps`; to be called before `measure`."""
        stream = self._inputs(self._batches())
        self._steps, self._stream = steps, itertools.chain([next(stream)], stream)  # made ready before the first round
        ways = self._side.floors(itertools.islice(self._batches(), steps * rounds))
        for way in ways:
            time_steps(way, range(min(WARM_UP, steps * rounds)))
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
    """A padded side."""

    def _inputs(self, batches):
        for batch in batches:
            yield from self._task.padded_inputs(self._task.examples([batch]), self._batch_size)

    def _memory_steps(self):
        """A few: nothing is made ready ahead. The true peak is at the longest history, and may be higher."""
        return PADDED_STEPS

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


def measurer_of(name, task, model, data, batch_size, threads):
    """The measurer of the side `name`.

    Args:
      name: "ours", or one of the task's padded sides.
      task: the name of a module with a `Task`.
      model: one of the project's.
      data: the path of a dataset.pkl.
      batch_size: recommendations, or users, of a batch.
      threads: TensorFlow's; 0: the side's own.
    """
    task, dataset = importlib.import_module("benchmarks." + task).TASK, read_dataset(data)
    if name == "ours":
        side = OurSide(model, task.training, dataset, batch_size, threads)
        return OurMeasurer(task, side, dataset, batch_size)
    side = PaddedSide(model, task.training, dataset, threads, dense=name == "padded_dense")
    return PaddedMeasurer(task, side, dataset, batch_size)


class _Process(BaseManager):
    """A process for one side."""


_Process.register("measurer_of", measurer_of)


@contextlib.contextmanager
def in_its_process(*arguments):
    """`measurer_of(*arguments)`, in a process that ends with the block."""
    process = _Process(ctx=multiprocessing.get_context("spawn"))
    process.start()
    try:
        yield process.measurer_of(*arguments)
    finally:
        process.shutdown()


def compare(ours, others, rounds, seconds):
    """Measures the sides and the floor in alternating rounds.

    Args:
      ours: an `OurMeasurer`.
      others: {name of a padded side: its `PaddedMeasurer`}; may be empty.
      rounds: how many.
      seconds: of each side in a round, about.

    Returns:
      ({figure: [its value in each round]}, {side: its steps in a round}, [milliseconds of each step of this project]).
      Throughputs, under the names of the sides, are in recommendations per second; `ratio_of(side)` names the ratio of
      this project's to a side's.

    Raises:
      UserError: the sides compute different results.
    """
    values, result, recommendations = ours.first_step()
    for name, other in others.items():
        if not np.allclose(result, other.first_step(values), rtol=1e-3, atol=1e-3):
            raise UserError("ours and %s compute different results, so their speeds can't be compared" % name)
    steps = {"ours": ours.steps_that_last(seconds)}
    for name, other in others.items():
        steps[name] = min(steps["ours"], max(PADDED_STEPS, other.steps_that_last(seconds)))
    ours.prepare(steps["ours"], rounds)
    for name, other in others.items():
        other.prepare(steps["ours"], rounds, steps[name])

    figures, milliseconds = collections.defaultdict(list), []
    for number in range(rounds):
        loop_seconds, session_seconds, floor_seconds, step_seconds = ours.measure(number)
        figures["ours"].append(recommendations * steps["ours"] / loop_seconds)
        figures["floor_share"].append(floor_seconds / loop_seconds)
        figures["outside"].append(1 - session_seconds / loop_seconds)
        milliseconds += [1000 * step for step in step_seconds]
        for name, other in others.items():
            figures[name].append(recommendations * steps[name] / other.measure(number))
            figures[ratio_of(name)].append(figures["ours"][-1] / figures[name][-1])
    return figures, steps, milliseconds


def ratio_of(side):
    """The name of the ratio to a padded side: `ratio_dense` to `padded_dense`, `ratio` to `padded`."""
    return side.replace("padded", "ratio")


def peak_mebibytes():
    """This process's peak of memory in MiB; None where Linux does not tell.

    Not resource.getrusage: its peak begins with the peak of the starting process.
    """
    kibibytes = linux_number("/proc/self/status", "VmHWM:")
    return kibibytes and kibibytes // 1024


def _peak_memory(name, task, model, data, batch_sizes, threads):
    """Takes the first steps of one side at each of `batch_sizes`, ascending; returns the peak after each, in MiB."""
    return {batch_size: measurer_of(name, task, model, data, batch_size, threads).peak_memory()
            for batch_size in sorted(batch_sizes)}


def peak_memory(*arguments):
    """`_peak_memory` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, arguments)


# ---- reporting -------------------------------------------------------------------------------------------------------

def columns(task, others):
    """The table's columns, as `Table` takes them, with the padded sides `others`."""
    of_others = [column for side in others for column in (
        (side.replace("_", ", "), 28, with_spread(side, ",.0f")), ("ratio", 20, with_spread(ratio_of(side), ".1f")))]
    memory = [(side.replace("padded_", ""), 7, "{peak_memory_mib[%s]}" % side) for side in others]
    latency = [] if task.training else [("ms, p50 / p99", 15, "{latency_ms_p50:.2f} / {latency_ms_p99:.2f}")]
    return [("batch", 7, "{batch_size:,}"), ("ours", 34, with_spread("ours", ",.0f"))] + of_others + [
        ("floor share", 11, "{floor_share:.1%}"), ("outside", 8, "{outside:.1%}"),
        ("MiB, ours", 9, "{peak_memory_mib[ours]}")] + memory + latency


def run(task, parser):
    """The command of a benchmark: a measurement for each batch size, its line in the table, its JSON line."""
    arguments = parser.parse_args()
    others = () if arguments.ours_only else task.padded_sides
    if others:
        reference_of(arguments.model)
    data = find_dataset(arguments.data)
    dataset = read_dataset(data)
    examples = len(dataset.train.items if task.training else dataset.test.positives)
    check_batch_sizes(arguments.batch_sizes, examples, dataset.name)
    table, device = Table(arguments.json, columns(task, others)), describe_device(1)
    table.title("%s, %s on %s; %s, TensorFlow %s" % (task.name, arguments.model, dataset.name, device, tf.__version__))
    table.title("Recommendations per second: median of %d rounds (lowest to highest)." % arguments.rounds)
    sides = ("ours",) + others
    memory = {side: peak_memory(side, task.name, arguments.model, data, arguments.batch_sizes, arguments.threads)
              for side in sides}
    for batch_size in arguments.batch_sizes:
        with contextlib.ExitStack() as processes:
            ours, *padded = [processes.enter_context(in_its_process(
                side, task.name, arguments.model, data, batch_size, arguments.threads)) for side in sides]
            figures, steps, milliseconds = compare(ours, dict(zip(others, padded)), arguments.rounds, arguments.seconds)
        result = dict(
            benchmark=task.name, batch_size=batch_size,
            **summary(figures), steps=steps, rounds=arguments.rounds,
            peak_memory_mib={side: peaks[batch_size] for side, peaks in memory.items()},
            model=arguments.model, dataset=dataset.name, threads=arguments.threads, device=device,
            tensorflow=tf.__version__)
        if not task.training:
            result["latency_ms_p50"], result["latency_ms_p99"] = np.percentile(milliseconds, [50, 99]).tolist()
        table.row(result)
