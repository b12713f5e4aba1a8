"""Steady figures: durations and their quantiles, when a figure is steady, what inference measures by known clocks."""
import math

import numpy as np
import pytest

from tests.helpers import Folder
from utils import infer_loop, timing
from utils.batches import Batch
from utils.infer_loop import Measurements, measure
from utils.results import report_throughput
from utils.runs.steady import Durations, half_width, steady_columns


def test_quantiles_of_counted_durations_are_those_of_the_durations_to_half_a_percent():
    seconds = np.random.RandomState(0).lognormal(-5, 1, 10001)
    durations = Durations()
    for duration in seconds:
        durations.add(duration)
    assert len(durations) == 10001 and len(durations.counts) < 2000 and Durations.are_counts(dict(durations.counts))
    for share in (0.1, 0.5, 0.9, 0.99):
        assert durations.quantile(share) == pytest.approx(np.percentile(seconds, 100 * share), rel=0.005)
    assert Durations(durations.counts).quantile(0.5) == durations.quantile(0.5)


def test_no_durations_have_no_quantile_and_one_of_no_time_is_taken():
    with pytest.raises(ValueError):
        Durations().quantile(0.5)
    durations = Durations()
    durations.add(0.0)
    assert 0 < durations.quantile(0.5) < 1e-8


@pytest.mark.parametrize("value", [[], {"1": 0}, {"1": -1}, {"1": 1.5}, {"x": 1}, {"--1": 1}, {"12345": 1}, {"": 1}])
def test_what_is_no_count_of_durations_is_told(value):
    assert not Durations.are_counts(value)
    assert Durations.are_counts({"-1060": 3, "0": 1})


def test_rates_are_batches_over_quantiles_and_the_slowest_tenth_is_the_lowest():
    assert steady_columns(200, 1.0, 2.0, 4.0) == {
        "steady_recommendations_per_second": "100.0", "steady_recommendations_per_second_p10": "50.0",
        "steady_recommendations_per_second_p90": "200.0"}


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Of 1,000 series of a known median, 95% are within the half-width of it, 3 standard deviations allowed."""
    random = np.random.RandomState(1)
    series = 1 + 0.2 * random.standard_normal((1000, 400))
    blocks = np.median(series.reshape(1000, 20, 20), axis=2)
    covered = [abs(medians.mean() - 1) <= half_width(one) * medians.mean() for one, medians in zip(series, blocks)]
    assert abs(np.mean(covered) - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 1000)


def test_throughputs_are_recommendations_over_the_seconds_of_each_clock():
    lines = []
    assert report_throughput(lines.append, 600, 4.0, 1.5) == {
        "recommendations": 600, "system_seconds": "4.000", "system_recommendations_per_second": "150.0",
        "accelerator_seconds": "1.500", "accelerator_recommendations_per_second": "400.0"}
    assert lines == ["Total recommendations: 600", "Approximate accelerator time in seconds: 1.500",
                     "Approximate accelerator performance in recommendations/second: 400.0",
                     "System time in milliseconds is: 4000", "System performance in recommendations/second is: 150.0"]


def test_a_row_of_inference_has_what_was_measured_in_its_units(tmp_path, monkeypatch, capfd):
    folder = Folder(tmp_path)
    folder.train("--batch_size", 64, "--max_steps", 1)
    calls, laps = np.arange(101) / 1000, np.full(101, 0.5)
    scores = np.tile([[1.0, 0.0]], (60, 1))
    monkeypatch.setattr(infer_loop, "measure", lambda *_: Measurements(scores, 120, 8.0, 0.5, calls, laps))
    row = folder.infer("--batch_size", 10, "--num_ads", 5)
    assert [row[name] for name in ("latency_ms_p50", "latency_ms_p99", "gauc", "recommendations", "system_seconds",
                                   "accelerator_recommendations_per_second", "steady_recommendations_per_second",
                                   "steady_half_width")] == [
        "50.000", "99.000", "1.000000", "120", "8.000", "240.0", "100.0", "0.0000"]
    output = capfd.readouterr().out
    assert "Latency per batch in milliseconds: p50 50.000, p90 90.000, p99 99.000\n" in output
    assert output.endswith("median 100.0, p10 100.0, p90 100.0 (101 batches in 50.5 seconds; its 95% interval is "
                           "+-0.0%)\n")


def test_few_batches_have_no_steady_figure(tmp_path):
    folder = Folder(tmp_path)
    folder.train("--batch_size", 64, "--max_steps", 1)
    assert folder.infer("--batch_size", 6)["steady_recommendations_per_second"] != "", "60 users, 10 batches"
    few = folder.infer("--batch_size", 7)
    assert few["steady_recommendations_per_second"] == few["steady_half_width"] == ""


def test_a_constant_series_is_steady_a_short_one_never_and_a_drifting_one_is_not():
    assert half_width([0.25] * 40) == 0 and half_width([0.25] * 39) == math.inf
    assert half_width(np.linspace(1, 2, 1000)) > 0.09
    assert half_width(np.tile(np.linspace(1, 2, 50), 20)) < 1e-12, "within each block the same"


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


class Scorer:
    """Scores batches: each takes the next of `seconds`, over and over, and what prepares it `waiting` before that."""

    def __init__(self, clock, seconds, waiting):
        self.clock, self.seconds, self.waiting, self.batches = clock, seconds, waiting, 0

    def score(self, batch):
        self.clock.now += self.seconds[self.batches % len(self.seconds)]
        self.batches += 1
        return np.stack([np.full(len(batch.lengths), self.batches, np.float32)] * 3, axis=1)

    def test_batches(self):
        for users in (4, 4, 1):
            yield Batch(None, None, np.ones(users, np.int32), None, None)


@pytest.fixture
def measured(monkeypatch):
    """The function that measures on a known clock: (`Measurements`, the `Scorer`, seconds on the clock)."""
    def run(seconds, duration, waiting=0.0):
        clock = Clock()
        monkeypatch.setattr(timing, "time", clock)
        monkeypatch.setattr(infer_loop, "time", clock)
        monkeypatch.setattr(timing, "STARTED", clock.now - 7)
        scorer = Scorer(clock, seconds, waiting)

        def ready(batches):
            for batch in batches:
                clock.now += waiting
                yield batch
        monkeypatch.setattr(infer_loop, "prefetch", ready)
        return measure(scorer, scorer.test_batches, 4, 27, duration), scorer, clock.now - 100
    return run


def test_one_pass_is_counted_and_clocked_and_its_partial_batch_is_in_no_latency(measured):
    result, scorer, seconds = measured([0.5, 0.25, 0.125], duration=0, waiting=1.0)
    assert (result.recommendations, scorer.batches, seconds) == (27, 3, 3.875)
    assert (result.system_seconds, result.accelerator_seconds) == (7 + 3.875, 0.875)
    assert (result.calls, result.laps) == ([0.5, 0.25], [1.5, 1.25])
    assert result.scores[:, 0].tolist() == [1] * 4 + [2] * 4 + [3]


def test_a_duration_goes_on_to_the_first_batch_after_it_and_counts_all(measured):
    result, scorer, _ = measured([0.5], duration=2.6)
    assert (scorer.batches, result.recommendations) == (6, 54)
    assert (result.system_seconds, result.accelerator_seconds) == (7 + 3, 3)
    assert len(result.scores) == 9 and result.calls == result.laps == [0.5] * 4


def test_the_clocks_count_one_pass_and_scoring_goes_on_until_the_figure_is_steady(measured):
    result, _, seconds = measured([0.001], duration=None)
    assert seconds == pytest.approx(2.0, abs=0.002), "equal steps are steady as soon as the least time is over"
    assert (result.recommendations, len(result.scores)) == (27, 9)
    assert (result.system_seconds, result.accelerator_seconds) == pytest.approx((7.003, 0.003))
    assert len(result.laps) == pytest.approx(2000 * 2 / 3, abs=2)


def test_scoring_that_is_not_steady_goes_on_longer_but_not_for_ever(measured):
    steps = np.random.RandomState(3).uniform(0.0075, 0.0125, 100000)
    result, _, seconds = measured(steps, duration=None)
    assert 2.5 < seconds < 29 and half_width(result.laps) < 0.02
    growing = np.linspace(0.001, 0.1, 900)
    result, _, seconds = measured(growing, duration=None)
    assert 30 <= seconds < 30.2 and half_width(result.laps) > 0.02
