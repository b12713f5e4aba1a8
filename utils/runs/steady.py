"""Steady state: how long a step takes once the first calls, which compile, allocate and choose kernels, are through.

The figures are the median over the steps and its spread. Partial batches are left out, and so is what is between steps,
such as an evaluation.
"""
import collections
import math
import re

import numpy as np

from utils.results import STEADY, TOO_LARGE

WARM_UP_STEPS = 10  # of a training, each time it is started
FEWEST_STEPS = 10   # without which there is no steady figure
BLOCKS = 20         # that `half_width` divides a series into
T_OF_95 = 2.093     # Student's t for a two-sided 95% interval with BLOCKS - 1 degrees of freedom


class Durations:
    """How often each duration occurred, to the nearest part in 200: quantiles of millions, from a few hundred numbers.

    `counts` is a JSON object, {"bin": count}; the durations of a bin are about RATIO ** bin seconds.
    """

    RATIO = 1.005

    def __init__(self, counts=()):
        self.counts = collections.Counter(counts)

    def add(self, seconds):
        self.counts[str(round(math.log(max(seconds, 1e-9), self.RATIO)))] += 1

    def __len__(self):
        return sum(self.counts.values())

    def quantile(self, share):
        """The least duration, in seconds, that `share` of all do not exceed; raises ValueError where there is none."""
        missing = share * len(self)
        for exponent in sorted(map(int, self.counts)):
            missing -= self.counts[str(exponent)]
            if missing <= 0:
                return self.RATIO ** exponent
        raise ValueError("no duration has been added")

    @staticmethod
    def are_counts(value):
        """Whether `value` may be the `counts` of durations."""
        return type(value) is dict and all(
            type(count) is int and 0 < count < TOO_LARGE and re.match(r"-?[0-9]{1,4}\Z", name)
            for name, count in value.items())


def steady_columns(recommendations, p10, p50, p90):
    """The columns STEADY of steps of `recommendations` each, whose durations have these quantiles in seconds: texts."""
    return dict(zip(STEADY, ("%.1f" % (recommendations / seconds) for seconds in (p50, p90, p10))))


def report_steady(log, recommendations, p10, p50, p90, source):
    """Prints the line of the steady figure with `log`; returns the columns of `steady_columns`, of the same arguments.

    `source` is a text: of how many steps the figure is.
    """
    columns = steady_columns(recommendations, p10, p50, p90)
    log("Steady performance in recommendations/second: median %s, p10 %s, p90 %s (%s)" % (
        tuple(columns[column] for column in STEADY) + (source,)))
    return columns


def half_width(seconds):
    """The half-width of the 95% interval of a series' median, as a part of it; infinite for a series of few.

    By the method of batch means (Law, Simulation Modeling and Analysis, chapter 9): durations that follow each other
    depend on each other, so the series is divided into BLOCKS, whose medians are taken for independent.
    """
    if len(seconds) < 2 * BLOCKS:
        return math.inf
    medians = [np.median(block) for block in np.array_split(seconds, BLOCKS)]
    return float(T_OF_95 * np.std(medians, ddof=1) / math.sqrt(BLOCKS) / np.mean(medians))
