"""What the benchmarks' figures come from: clocks and floors; and the figures of scaling and of several workers."""
import itertools
import json
import sys
from types import SimpleNamespace

import pytest

from benchmarks import cluster, measure, scaling, sides
from tests.helpers import random_dataset
from utils.towers import describe_device

# ---- clocks and floors -----------------------------------------------------------------------------------------------

def test_the_time_of_steps_includes_that_between_them_and_a_steps_time_does_not(clock):
    def slow_batches():
        for seconds in (1, 2, 4):
            clock.spend(8)
            yield seconds
    assert measure.time_steps(clock.spend, slow_batches()) == (31, [1, 2, 4])


@pytest.mark.parametrize("first, later, count, taken", [
    (1, 0.25, 32, 5 + 8),    # five steps of warm-up do not count; 8 steps last a quarter of 8 seconds
    (4, 1, 8, 2 + 2),        # a warm-up ends after 8 seconds as well
    (1, 3, 3, 5 + 1),
    (100, 100, 1, 1 + 1),    # a step that lasts longer is a step
])
def test_the_number_of_steps_that_last_some_seconds_is_known_after_a_warm_up(clock, first, later, count, taken):
    warm_up, numbers = taken - max(1, round(2 / later)), itertools.count()

    def step(number):
        clock.spend(first if number < warm_up else later)
    assert measure.steps_that_last(8, step, numbers) == count
    assert next(numbers) == taken


def test_a_clocked_session_counts_its_calls_alone_and_not_those_that_observe(clock):
    calls = []

    def make_callable(fetches, feed_list=None):
        def call(*values):
            clock.spend(0.25)
            calls.append(fetches)
            return [values, "observed"] if fetches == [["loss"], ["shape"]] else values
        return call
    session = sides.ClockedSession(SimpleNamespace(make_callable=make_callable, graph="the graph"))
    step = session.make_callable(["loss"], ["packed"])
    for batch in range(3):
        clock.spend(5)
        assert step(batch) == (batch,)
    assert session.stopwatch.seconds == 0.75 and session.graph == "the graph"
    assert list(session.observe(["shape"], lambda batch: (step(batch), step(-batch)), [6, 7])) == [["observed"] * 2] * 2
    assert (calls, session.stopwatch.seconds) == ([["loss"]] * 3 + [[["loss"], ["shape"]]] * 4, 0.75)
    step(4)
    assert session.stopwatch.seconds == 1


def test_a_floor_computes_the_products_of_all_calls_of_a_batch(monkeypatch):
    computed = []

    def fake_floor(ops, shapes, config):
        floors.append((ops, shapes, config))
        return SimpleNamespace(runs=[lambda call, way=way: computed.append((way, shapes[call])) for way in "ab"])
    monkeypatch.setattr(sides, "Floor", fake_floor)
    floors, threads = [], 3
    side = sides.OurSide("pnn", False, random_dataset(), 10, threads)
    side.shapes = lambda batches: ("the products", [[(batch, 1), (batch, 2)] for batch in batches])
    ways = side.floors([5, 6])
    side.close()
    shapes = [(5, 1), (5, 2), (6, 1), (6, 2)]
    assert [floor[:2] for floor in floors] == [("the products", shapes)] * 2
    for _, _, config in floors:
        assert config.use_per_session_threads
        assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == (threads, threads)
    for way in ways:
        way(1)
        way(0)
    assert computed == [(way, call) for way in "abab" for call in shapes[2:] + shapes[:2]]


def test_threads_are_the_sides_alone_and_zero_leaves_them_to_it():
    config = sides.with_threads(measure.tf.ConfigProto(intra_op_parallelism_threads=7), 0)
    assert (config.use_per_session_threads, config.intra_op_parallelism_threads) == (True, 7)


# ---- scaling and workers ---------------------------------------------------------------------------------------------

def test_throughputs_of_scaling_are_recommendations_over_seconds(clock, monkeypatch):
    """Steps of 0.5 s before the first round of 4, then of 0.25, 0.5 and 1."""
    made = []

    class Side:
        def __init__(self, *arguments):
            made.append(arguments)
            self._steps, self.close = itertools.count(), lambda: made.append("closed")

        def prefetch(self, batches):
            return batches

        def step(self, batch):
            assert (len(batch.lengths), set(batch.lengths.tolist())) == (16, {7})
            clock.spend([0.5, 0.5, 0.25, 0.5, 1][next(self._steps) // 4 + 1])

    monkeypatch.setattr(scaling, "OurSide", Side)
    monkeypatch.setattr(measure, "WARM_UP", 3)
    arguments = SimpleNamespace(model="pnn", threads=2, seconds=2.0, rounds=3)
    assert scaling.measure(arguments, 7, 30, 16, "adam") == [16 / 0.25, 16 / 0.5, 16 / 1]
    (model, training, dataset, batch_size, threads, optimizer), closed = made
    assert (model, training, batch_size, threads, optimizer, closed) == ("pnn", True, 16, 2, "adam", "closed")
    assert (dataset.item_count, len(dataset.train.items)) == (30, 1600)


def test_every_figure_of_scaling(capsys, monkeypatch):
    monkeypatch.setattr(scaling, "measure", lambda arguments, **sizes: [300.0, 100.0, 200.0, 1000.0])
    monkeypatch.setattr(sys, "argv", "scaling --histories 7 --items 50 --batch_sizes 8 --rounds 4 --json".split())
    scaling.main()
    output, table = capsys.readouterr()
    first, second = [json.loads(line) for line in output.splitlines()][:2]
    assert first == {
        "benchmark": "scaling", "varied": "history_length", "history_length": 7, "items": 10 ** 5, "batch_size": 256,
        "optimizer": "sgd", "ours": 250, "spread": {"ours": [100, 1000]}, "history_items_per_second": 7 * 250,
        "rounds": 4, "model": "din", "threads": 0, "device": describe_device(1), "tensorflow": measure.tf.__version__}
    assert (second["varied"], second["batch_size"], second["history_items_per_second"]) == ("batch_size", 8, 2500)
    assert table.splitlines()[2].split() == "7 100,000 256 sgd 250 (100 to 1,000) 1,750".split()


@pytest.mark.parametrize("free_kibibytes, missing_gibibytes", [
    (6 * 256 * 1024 - 1, 1.5), (6 * 256 * 1024, None), (None, None)])
def test_the_memory_that_scaling_needs_is_six_tables(monkeypatch, free_kibibytes, missing_gibibytes):
    """A table has 64 floats of 4 bytes an item: 256 MiB at 2^20 items. Where Linux does not tell, it is not known."""
    monkeypatch.setattr(scaling, "linux_number", lambda *place: {
        ("/proc/meminfo", "MemAvailable:"): free_kibibytes}[place])
    assert scaling.missing_memory({"items": 2 ** 20}) == missing_gibibytes


def test_every_figure_of_several_workers(monkeypatch):
    """A step of 2 workers with 8 recommendations each takes half a second in the median."""
    monkeypatch.setattr(cluster, "run_workers", lambda workers, setting: {
        "rounds": [[0.5, 1e6], [0.25, 7e6], [1.0, 2e6]], "table_bytes": 5e6})
    rows = []
    arguments = SimpleNamespace(items=[30], batch_sizes=[8], workers=[2])
    cluster.show_workers(arguments, SimpleNamespace(row=rows.append), None, {"model": "pnn"})
    assert rows == [{"model": "pnn", "benchmark": "cluster", "workers": 2, "batch_size": 8, "items": 30, "table_mb": 5,
                     "ours": 32, "spread": {"ours": [16, 64]}, "step_ms": 500, "sent_mb": 2}]
