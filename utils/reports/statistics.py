"""What tells a difference from noise: over seeds Welch's interval, over the test users of two runs McNemar's test."""
import typing

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE  # of a one-sided test
OLYMPIC_FEWEST = 3  # values, of which one is left when the lowest and the highest are dropped


class Summary(typing.NamedTuple):
    """Figures of several seeds, in short."""
    count: int
    mean: float
    deviation: float  # standard deviation of the sample, 0 for one figure
    lowest: float
    highest: float


class Interval(typing.NamedTuple):
    """A difference, the other less the first, and the two-sided interval of CONFIDENCE that it is in."""
    difference: float
    low: float
    high: float

    @property
    def leaves_out_zero(self):
        """Whether a difference is seen."""
        return self.low > 0 or self.high < 0


def summary(values):
    """The `Summary` of one figure or more."""
    values = np.asarray(values, float)
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Summary(len(values), float(values.mean()), deviation, float(values.min()), float(values.max()))


def welch(first, other):
    """The `Interval` of mean(other) - mean(first), two or more figures each, of unequal variances.

    Welch 1947, "The generalization of Student's problem when several different population variances are involved".
    Where neither varies it is the difference alone.
    """
    squares = [np.var(values, ddof=1) / len(values) for values in (first, other)]
    difference, error = float(np.mean(other) - np.mean(first)), np.sqrt(sum(squares))
    if not error:
        return Interval(difference, difference, difference)
    degrees = sum(squares) ** 2 / sum(square ** 2 / (len(values) - 1)
                                      for square, values in zip(squares, (first, other)))
    margin = float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees) * error)
    return Interval(difference, difference - margin, difference + margin)


def mcnemar(first, other):
    """The `Interval` of other's GAUC less first's, of which test users each ranked right, bool [U] both.

    The exact test of McNemar 1947, "Note on the sampling error of the difference between correlated proportions": of
    the users that one run alone ranked right, the share of other's has Clopper and Pearson's interval. It leaves out a
    half just where the test's two-sided p is below 1 - CONFIDENCE.
    """
    only_other, only_first = int(np.sum(other & ~first)), int(np.sum(first & ~other))
    unequal = only_other + only_first
    if not unequal:
        return Interval(0.0, 0.0, 0.0)
    share = stats.binomtest(only_other, unequal).proportion_ci(CONFIDENCE, method="exact")
    low, high = ((2 * bound - 1) * unequal / len(first) for bound in (share.low, share.high))
    return Interval((only_other - only_first) / len(first), low, high)


def p_of_less(values, reference):
    """The p of Welch's one-sided test that `values` have a mean below that of `reference`, two or more figures each."""
    if np.ptp(values) == np.ptp(reference) == 0:  # neither varies
        return 0.0 if values[0] < reference[0] else 1.0
    return float(stats.ttest_ind(values, reference, equal_var=False, alternative="less").pvalue)


def p_of_few_less(values, reference):
    """The p of the one-sided test that `values`, one or more, are of a distribution with a mean below `reference`'s.

    The deviation s is that of `reference` alone, n figures, two or more, since a few values may agree by chance: t =
    (mean(values) - mean(reference)) / (s * sqrt(1 / m + 1 / n)) for m values, n - 1 degrees of freedom. It is the
    prediction of the mean of m further observations of Hahn and Meeker 1991, "Statistical Intervals", chapter 4.
    """
    difference = float(np.mean(values) - np.mean(reference))
    error = np.std(reference, ddof=1) * np.sqrt(1 / len(values) + 1 / len(reference))
    if not error:
        return 0.0 if difference < 0 else 1.0
    return float(stats.t.cdf(difference / error, len(reference) - 1))


def olympic(values):
    """The `Summary` of `values` without the lowest and the highest; None where there is none.

    MLPerf's score of several runs, "MLPerf Training Rules", section "Benchmark Results": None among `values`, a run
    that did not come to its end, counts as the highest. There is no score of fewer than three runs, nor where more than
    one did not come to its end.
    """
    reached = sorted(value for value in values if value is not None)
    if len(values) < OLYMPIC_FEWEST or len(values) - len(reached) > 1:
        return None
    return summary(reached[1:len(values) - 1])
