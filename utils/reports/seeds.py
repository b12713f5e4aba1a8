"""Runs that differ in their seed alone, as the report shows them: one line of a plot, one row of a table."""
import typing

from utils.results import by_seed, run_of


class SeedGroup(typing.NamedTuple):
    """Runs that differ in their seed alone; most often it is one run."""
    row: dict   # a row of theirs, with all their seeds in the column `seed`
    runs: list  # of each seed its rows: one of training or inference, all evaluations of curves

    @property
    def rows(self):
        """The rows of all runs."""
        return [row for run in self.runs for row in run]

    def places(self, column):
        """The rows of each value of `column` that every run has, lists, in the order of the first run.

        Where a run ended before others, its end is the last place: a mean over the others alone would be of those that
        were slow to reach a target, or that patience let go on.
        """
        if len(self.runs) == 1:
            return [[row] for row in self.rows]
        by_value = [{row[column]: row for row in run} for run in self.runs]
        return [[rows[value] for rows in by_value] for value in by_value[0] if all(value in rows for rows in by_value)]

    def tails(self, column):
        """What runs of several seeds have from the last of `places` on, where that is more than the place: lists."""
        places = self.places(column) if len(self.runs) > 1 else []
        tails = [run[run.index(row):] for rows in places[-1:] for run, row in zip(self.runs, rows)]
        return [tail for tail in tails if len(tail) > 1]


def seed_groups(rows, stage):
    """Returns the SeedGroups of `rows` of a stage."""
    groups = []
    for similar_rows in by_seed(rows, stage):
        runs = {}
        for row in similar_rows:
            runs.setdefault(run_of(row, stage), []).append(row)
        runs = list(runs.values())
        row = similar_rows[0]
        if len(runs) > 1:
            row = dict(row, seed=seeds_text([run[0]["seed"] for run in runs]))
            if stage == "infer":
                row["trained_steps"] = ""  # which patience or a target may have made different
        groups.append(SeedGroup(row, runs))
    return groups


def seeds_text(seeds):
    """Seeds, texts, as people read them: in order, neighbours as a range, such as "1-5, 77"."""
    if not all(map(str.isdecimal, seeds)):
        return ", ".join(sorted(seed or "unknown" for seed in seeds))
    ranges = []
    for seed in sorted(map(int, seeds)):
        if ranges and seed == ranges[-1][-1] + 1:
            ranges[-1] = ranges[-1][0], seed
        else:
            ranges.append((seed,))
    return ", ".join("-".join(map(str, ends)) for ends in ranges)
