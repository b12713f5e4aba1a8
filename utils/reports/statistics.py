"""What tells a difference from noise: over seeds Welch's interval, over the test users of two runs McNemar's test."""
import typing

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE  # of a one-sided test


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
