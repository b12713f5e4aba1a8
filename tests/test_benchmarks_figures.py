"""Every figure of a benchmark's table and JSON lines, on a clock that moves only as the fake sides say."""
import contextlib
import itertools
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import cluster, measure, scaling
from benchmarks import train as train_benchmark
from benchmarks.command import Table, make_parser, with_spread
from tests.helpers import random_dataset
from utils.batches import GROUP, prefetch
from utils.dataset import write_dataset
from utils.files import UserError
from utils.timing import Stopwatch
from utils.towers import describe_device

USERS = 4    # of a batch
STEPS = 8    # of this project in a round, of ROUNDS
ROUNDS = 3
SECONDS = 2  # of a round


# ---- the fake sides --------------------------------------------------------------------------------------------------

def by_round(*values):
    """A function that gives for batch 1, 2, ... the value of the round that it is in."""
    return lambda number: values[(number - 1) // STEPS]


OUR_STEP = by_round(0.25, 0.5, 0.125)
UNEVEN = {15: -0.25, 16: 0.25}  # two of the steps are less even than that
INSIDE = by_round(0.1875, 0.25, 0.109375)  # of each step, in the session; batch 15 has no time for anything else
FLOOR = by_round(0.0625, 0.25, 0.03125)
PADDED_STEPS = {"padded_dense": by_round(1, 2, 2), "padded_sparse": by_round(0.3125, 0.25, 0.5),
                "padded": by_round(0.3125, 0.25, 0.5)}


class FakeSide:
    """This project's side, on batches that a fake task makes."""

    def __init__(self, clock):
        self._clock, self.session = clock, SimpleNamespace(stopwatch=Stopwatch())

    def prefetch(self, batches):
        return iter(batches)

    def step(self, batch):
        with self.session.stopwatch:
            self._clock.spend(INSIDE(batch.number))
        self._clock.spend(OUR_STEP(batch.number) + UNEVEN.get(batch.number, 0) - INSIDE(batch.number))

    def first_step(self, batch):
        assert batch.number == 1
        return 0.75

    def values(self):
        return {"kernel": 5}

    def floors(self, batches):
        assert [batch.number for batch in batches] == list(range(1, 1 + STEPS * ROUNDS))
        return [lambda index, times=times: self._clock.spend(times * FLOOR(1 + index)) for times in (3, 1, 2)]


class FakePaddedSide:
    """Another side, whose inputs are the numbers of batches."""

    def __init__(self, clock, name, result=0.75):
        self._clock, self._name, self._result, self.model = clock, name, result, self

    def load(self, values):
        assert values == {"kernel": 5}

    def step(self, number):
        self._clock.spend(PADDED_STEPS[self._name](number))
        return self._result


def fake_task(training):
    """A task whose batches are numbered from 0, of USERS users."""
    def batches(dataset, batch_size):
        assert batch_size == USERS
        for number in itertools.count():
            yield SimpleNamespace(number=number, candidates=np.zeros((USERS, 1 if training else 2)))
    return measure.Task("train" if training else "infer", training, batches, lambda examples, _: iter(examples),
                        lambda batches: [batch.number for batch in batches],
                        ("padded_dense", "padded_sparse") if training else ("padded",))


def measurer(name, task, clock, **changes):
    if name == "ours":
        return measure.OurMeasurer(task, FakeSide(clock), None, USERS)
    return measure.PaddedMeasurer(task, FakePaddedSide(clock, name, **changes), None, USERS)


# ---- training and inference ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "dataset.pkl"
    write_dataset(str(path), random_dataset())
    return str(path)


def run(task, clock, data, capsys, monkeypatch, *flags):
    """(the JSON line, the row of the table) of a benchmark with the fake sides."""
    peaks = {"ours": {USERS: 100, 8: 1}, "padded_dense": {USERS: 300}, "padded_sparse": {USERS: 200},
             "padded": {USERS: 400}}

    def peak_memory(side, *arguments):
        assert arguments == (task.name, "pnn", data, [USERS], 3)
        return peaks[side]

    @contextlib.contextmanager
    def in_its_process(side, *arguments):
        assert arguments == (task.name, "pnn", data, USERS, 3)
        yield measurer(side, task, clock)
    monkeypatch.setattr(measure, "peak_memory", peak_memory)
    monkeypatch.setattr(measure, "in_its_process", in_its_process)
    monkeypatch.setattr(sys, "argv", [task.name, "--data", data, "--model", "pnn", "--batch_sizes", str(USERS),
                                      "--rounds", str(ROUNDS), "--seconds", str(SECONDS), "--threads", "3", "--json"]
                        + list(flags))
    measure.run(task, make_parser(task.name, ""))
    output, table = capsys.readouterr()
    assert table.splitlines()[1] == "Recommendations per second: median of 3 rounds (lowest to highest)."
    heading, row = table.splitlines()[2:]
    assert len(heading) == len(row)
    return json.loads(output), heading, row


# Of the rounds: 4 recommendations x 8 steps in 2, 4 and 1 seconds.
OURS = {"ours": (16, 8, 32), "floor_share": (0.25, 0.5, 0.25), "outside": (0.25, 0.5, 0.125)}


def expected(task, figures, **others):
    """The JSON line with `figures`, {figure: its values in the rounds}."""
    return dict(others, spread={name: [min(values), max(values)] for name, values in figures.items()},
                benchmark=task.name, batch_size=USERS, rounds=ROUNDS, model="pnn", dataset="random", threads=3,
                device=describe_device(1), tensorflow=measure.tf.__version__,
                **{name: sorted(values)[1] for name, values in figures.items()})


def test_every_figure_of_training(clock, data, capsys, monkeypatch):
    """The dense side takes 5 steps in 5, 10 and 10 seconds, the sparse one 6 in 1.875, 1.5 and 3."""
    task = fake_task(training=True)
    result, heading, row = run(task, clock, data, capsys, monkeypatch)
    assert result == expected(
        task, dict(OURS, padded_dense=(4, 2, 2), ratio_dense=(4, 4, 16), padded_sparse=(12.8, 16, 8),
                   ratio_sparse=(1.25, 0.5, 4)),
        steps={"ours": 8, "padded_dense": 5, "padded_sparse": 6},
        peak_memory_mib={"ours": 100, "padded_dense": 300, "padded_sparse": 200})
    assert heading.split() == ("batch ours padded, dense ratio padded, sparse ratio "
                               "floor share outside MiB, ours dense sparse").split()
    assert row.split() == ("4 16 (8 to 32) 2 (2 to 4) 4.0 (4.0 to 16.0) 13 (8 to 16) 1.2 (0.5 to 4.0) "
                           "25.0% 25.0% 100 300 200").split()


def test_every_figure_of_inference(clock, data, capsys, monkeypatch):
    """Two candidates a user; steps of 125 ms (8), 250 (9), 500 (6) and 750 (1)."""
    task = fake_task(training=False)
    result, heading, row = run(task, clock, data, capsys, monkeypatch)
    assert result == expected(
        task, dict(OURS, ours=(32, 16, 64), padded=(25.6, 32, 16), ratio=(1.25, 0.5, 4)),
        steps={"ours": 8, "padded": 6}, peak_memory_mib={"ours": 100, "padded": 400},
        latency_ms_p50=250, latency_ms_p99=pytest.approx(500 + 0.77 * 250))
    assert heading.split() == "batch ours padded ratio floor share outside MiB, ours padded ms, p50 / p99".split()
    assert row.split() == ("4 32 (16 to 64) 26 (16 to 32) 1.2 (0.5 to 4.0) 25.0% 25.0% 100 400 250.00 / 692.50").split()


def test_ours_only_leaves_out_the_other_sides_alone(clock, data, capsys, monkeypatch):
    task = fake_task(training=True)
    result, heading, row = run(task, clock, data, capsys, monkeypatch, "--ours_only")
    assert result == expected(task, OURS, steps={"ours": 8}, peak_memory_mib={"ours": 100})
    assert heading.split() == "batch ours floor share outside MiB, ours".split()
    assert row.split() == "4 16 (8 to 32) 25.0% 25.0% 100".split()


@pytest.mark.parametrize("wrong", ["padded_dense", "padded_sparse"])
def test_sides_that_compute_different_results_are_an_error(clock, wrong):
    task = fake_task(training=True)
    others = {name: measurer(name, task, clock, result=0.8 if name == wrong else 0.75) for name in task.padded_sides}
    with pytest.raises(UserError, match="ours and %s compute different results" % wrong):
        measure.compare(measurer("ours", task, clock), others, ROUNDS, SECONDS)


def test_a_padded_side_takes_no_more_steps_than_this_project(clock, monkeypatch):
    task = fake_task(training=False)
    monkeypatch.setitem(PADDED_STEPS, "padded", lambda number: 2 ** -5)
    _, steps, _ = measure.compare(measurer("ours", task, clock), {"padded": measurer("padded", task, clock)}, ROUNDS,
                                  SECONDS)
    assert steps == {"ours": STEPS, "padded": STEPS}


# ---- memory ----------------------------------------------------------------------------------------------------------

def test_a_number_of_linux_is_that_after_its_name(tmp_path):
    (tmp_path / "status").write_text("VmPeak:\t  9 kB\nVmHWM:\t  5000 kB\nVmHWM:x 7 kB\n")
    assert measure.linux_number(str(tmp_path / "status"), "VmHWM:") == 5000
    assert measure.linux_number(str(tmp_path / "nothing"), "VmHWM:") is None
    assert measure.linux_number(str(tmp_path / "status"), "VmSwap:") is None
    assert measure.linux_number(str(tmp_path), "VmHWM:") is None


def test_a_figure_that_the_machine_does_not_tell_is_a_dash_in_a_table_and_null_in_json(capsys):
    result = {"mb": None, "spread": {"mb": [1.5, None]}, "peak": {"ours": None}}
    columns = [("MB", 10, "{mb:.2f}"), ("spread", 20, with_spread("mb", ",.0f")), ("MiB", 9, "{peak[ours]}")]
    Table(True, columns).row(result)
    output = capsys.readouterr()
    assert json.loads(output.out) == result
    assert output.err.splitlines()[-1].split() == ["-", "-", "(2", "to", "-)", "-"]


def test_workers_are_measured_where_the_system_does_not_tell_what_they_send(monkeypatch, capsys):
    monkeypatch.setattr(cluster, "run_workers", lambda *_: {"rounds": [[0.5, None], [0.25, None]], "table_bytes": 1e6})
    monkeypatch.setattr(cluster, "alone_on_the_network", lambda: False)
    monkeypatch.setattr("sys.argv", ["cluster", "--items", "9", "--workers", "2", "--batch_sizes", "4", "--json"])
    cluster.main()
    output = capsys.readouterr()
    assert json.loads(output.out)["sent_mb"] is None
    assert output.err.splitlines()[-1].split()[-1] == "-"


@pytest.mark.parametrize("kibibytes, mebibytes", [(5 * 1024, 5), (6 * 1024 - 1, 5), (None, None)])
def test_the_peak_of_memory_is_in_mebibytes(monkeypatch, kibibytes, mebibytes):
    monkeypatch.setattr(measure, "linux_number", lambda *place: {("/proc/self/status", "VmHWM:"): kibibytes}[place])
    assert measure.peak_mebibytes() == mebibytes


def test_the_peak_of_memory_is_taken_while_batches_are_made_ready_ahead_as_in_a_run(monkeypatch):
    """Two groups of batches are trained on, and the third is made ready meanwhile: a run holds no more at a time."""
    batch_size, groups, trained = GROUP // 4, [], []

    def prepare(batches):
        groups.append(len(batches))
        return batches
    side = SimpleNamespace(prefetch=lambda batches: prefetch(batches, prepare), step=trained.append,
                           close=lambda: trained.append("closed"))
    monkeypatch.setattr(measure, "peak_mebibytes", lambda: len(groups))
    task = train_benchmark.TASK
    dataset = scaling.random_dataset(history=3, item_count=20, examples=4 * GROUP)
    assert measure.OurMeasurer(task, side, dataset, batch_size).peak_memory() >= 3
    assert set(groups) == {4} and len(trained) > 8 and trained[-1] == "closed"
    assert all(len(batch.lengths) == batch_size for batch in trained[:-1])


def test_the_peak_of_a_padded_side_is_that_of_a_few_steps(monkeypatch, clock):
    task, side = fake_task(training=True), FakePaddedSide(clock, "padded_sparse")
    side.close = lambda: clock.spend(100)
    monkeypatch.setattr(measure, "peak_mebibytes", lambda: 55)
    assert measure.PaddedMeasurer(task, side, None, USERS).peak_memory() == 55
    assert clock.now == 1000 + 5 * 0.3125 + 100


def test_peaks_are_taken_from_the_smallest_batch_on_since_a_process_keeps_its_highest(monkeypatch):
    arguments = []

    def measurer_of(*given):
        arguments.append(given)
        return SimpleNamespace(peak_memory=lambda: 10 * len(arguments))
    monkeypatch.setattr(measure, "measurer_of", measurer_of)
    assert measure._peak_memory("padded", "infer", "din", "data", [8, 2, 4], 1) == {2: 10, 4: 20, 8: 30}
    assert arguments == [("padded", "infer", "din", "data", size, 1) for size in (2, 4, 8)]


def test_each_side_is_measured_by_its_name(data, monkeypatch):
    monkeypatch.setattr(measure, "OurSide", lambda *arguments: ("ours", arguments))
    monkeypatch.setattr(measure, "PaddedSide", lambda *arguments, dense: (dense, arguments))
    for name, task, side in (("ours", "train", "ours"), ("padded_dense", "train", True),
                             ("padded_sparse", "train", False), ("padded", "infer", False)):
        made = measure.measurer_of(name, task, "pnn", data, 5, 3)
        assert type(made) is (measure.OurMeasurer if name == "ours" else measure.PaddedMeasurer)
        given, arguments = made._side
        assert given == side and arguments[:2] == ("pnn", task == "train")
        assert arguments[3:] == ((5, 3) if name == "ours" else (3,))


def test_the_defaults_are_those_that_readme_tells():
    assert vars(make_parser("train", "").parse_args([])) == {
        "data": "small", "model": "din", "batch_sizes": [32, 256, 1024], "rounds": 5, "seconds": 2.0, "threads": 0,
        "json": False, "ours_only": False}
