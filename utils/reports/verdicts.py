"""Whether a difference of two folders' runs is more than noise: over their seeds, or over the test users of two runs.

The runs are reports/pairs.py's `Runs`.
"""
import typing

from utils.files import UserError
from utils.reports.statistics import CONFIDENCE, Interval, mcnemar, welch
from utils.runs.outcomes import read_outcomes

OVER_SEEDS, OVER_USERS = "Welch, over seeds", "McNemar, over users"
INTERVAL = "%g%% interval" % (100 * CONFIDENCE)
NO_DIFFERENCE = "no difference seen"


class Verdict(typing.NamedTuple):
    """What a test says of a difference; nothing where there is no test."""
    test: str = ""              # OVER_SEEDS or OVER_USERS
    interval: Interval = None   # of the other's mean less the first's
    reason: str = ""            # why there is no test, a few words
    advice: str = ""            # a sentence: what to do for one

    @property
    def may_be_noise(self):
        """Whether there was a test, and it saw no difference."""
        return bool(self.test) and not self.interval.leaves_out_zero

    def higher(self, first, other):
        """Which is seen to be higher, one of the two names; else NO_DIFFERENCE, or why there is no test, or nothing."""
        if not self.test:
            return self.reason and "not tested: " + self.reason
        return NO_DIFFERENCE if self.may_be_noise else "%s higher" % (other if self.interval.low > 0 else first)

    def with_interval(self, first, other):
        """`higher` and by how much."""
        text = self.higher(first, other)
        if not self.test:
            return text
        low, high = self.interval.low, self.interval.high
        if self.may_be_noise:
            return "%s (%+.4f to %+.4f)" % (text, low, high)
        low, high = sorted((abs(low), abs(high)))
        decimals = 4 if low > 0.00005 else 6
        return "%s by %.*f to %.*f" % (text, decimals, low, decimals, high)


ONE_SIDED = Verdict(reason="two seeds needed on both sides", advice=(
    "One run against several seeds is not tested: both sides need two seeds; train the one again with another --seed."))
OTHER_DATA = Verdict(reason="other data", advice="Two runs are tested over the users of one data set alone.")
EARLIER = Verdict(reason="no outcomes", advice=(
    "An earlier version did not write which users a run ranked right: for a test over users train and infer again, or "
    "with two seeds for a test over seeds."))


def verdict_of(first, other, column, over_users):
    """The `Verdict` on the difference of a column of two Runs.

    Two seeds or more on both sides have Welch's interval. Of one run on each side and the same data, McNemar's test is
    over their test users, where `over_users` says that the column is the GAUC that their outcomes make.

    Raises:
      UserError: a file of outcomes is damaged, or of other users than the other.
    """
    figures = first.figures(column), other.figures(column)
    counts = sorted(map(len, figures))
    if counts[0] > 1:
        return Verdict(OVER_SEEDS, welch(*figures))
    if not (over_users and counts[0]):
        return Verdict()
    return ONE_SIDED if counts[1] > 1 else _over_users(first, other)


def _over_users(first, other):
    """The `Verdict` over the test users of two runs."""
    (first_row,), (other_row,) = first.rows, other.rows
    if first_row["dataset_fingerprint"] != other_row["dataset_fingerprint"]:
        return OTHER_DATA
    if "" in (first_row["outcomes"], other_row["outcomes"]):
        return EARLIER
    right = [read_outcomes(runs.folder.path, runs.rows[0]["outcomes"]) for runs in (first, other)]
    letters = [runs.folder.letter for runs, outcomes in zip((first, other), right) if outcomes is None]
    if letters:
        return Verdict(reason="no outcomes in " + " and ".join(letters), advice=(
            "For a test over users, copy the folder outcomes of the results, too, beside their CSVs, or run again."))
    if len(right[0]) != len(right[1]):
        raise UserError("%s and %s have outcomes of %d and %d users of the same data; train or infer one of them again"
                        % (first.folder.path, other.folder.path, len(right[0]), len(right[1])))
    return Verdict(OVER_USERS, mcnemar(*right))
