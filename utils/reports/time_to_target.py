"""The time to a target of GAUC, of several seeds, MLPerf's way: groups of runs, their scores, and tables of these.

The fastest and the slowest run of a group are dropped, for each figure apart, and the mean of the others is the score.
"""
import os
import typing

from utils.files import UserError
from utils.reports.markdown import dataset_cell, table
from utils.reports.names import heading, kinds_of, model_order, one_line, path_label
from utils.reports.statistics import OLYMPIC_FEWEST, olympic
from utils.results import TARGET, by_seed, csv_name, read_rows, whole_batch
from utils.runs.stopping import advice_on_evaluations

SECONDS, TRAINING_SECONDS, RECOMMENDATIONS = TARGET[1:]  # columns: with evaluations, without, and how much it took
MLPERF_RUNS = 10  # of a result, by MLPerf's rules
SETTING_HEADERS = ["group", "model", "dataset", "batch size"]


class Setting(typing.NamedTuple):
    """What the recommendations to a target depend on, beside the seed."""
    model: str
    dataset: str
    dataset_fingerprint: str
    batch_size: int  # the whole one, of all accelerators and workers together
    optimizer: str
    learning_rate: float
    selected_on: str
    target_gauc: float
    eval_every: int

    @property
    def recommendations_between_evaluations(self):
        """How many recommendations lie between two evaluations."""
        return self.batch_size * self.eval_every


class Group:
    """Runs to one target that differ in their seed alone.

    Attributes:
      number: what the tables call it, 1 the first.
      rows: the runs' rows of results_train.csv.
      setting: their `Setting`.
    """

    def __init__(self, number, rows):
        self.number, self.rows = number, rows
        self.setting = Setting(**{name: kind(float(rows[0][name])) if kind is int else kind(rows[0][name])
                                  for name, kind in Setting.__annotations__.items() if name != "batch_size"},
                               batch_size=whole_batch(rows[0]))

    @property
    def reaching_rows(self):
        """The rows of the runs that reached the target."""
        return [row for row in self.rows if _has_reached(row)]

    @property
    def label(self):
        """A line of text that says which group it is."""
        return one_line("group %d (%s on %s, batch size %d)" % (
            self.number, self.setting.model, self.setting.dataset, self.setting.batch_size))

    def score(self, column):
        """The `Summary` of a column of TARGET without the fastest and the slowest run; None where there is none."""
        if any(row[column] == "" for row in self.reaching_rows):  # a run that an earlier version began
            return None
        return olympic([float(row[column]) if _has_reached(row) else None for row in self.rows])

    def recommendations(self):
        """{seed: recommendations to the target, None where it was not reached}."""
        return {row["seed"]: int(float(row[RECOMMENDATIONS])) if _has_reached(row) else None for row in self.rows}

    def evaluations(self):
        """(the share of the time to the target that evaluations took, what stopping.advice_on_evaluations says of it).

        Both are over all runs that reached it; None for the share where no run did, or it is not known, and for the
        advice where nothing needs to change.
        """
        rows = [row for row in self.reaching_rows if row[TRAINING_SECONDS] and float(row[SECONDS])]
        if not rows:
            return None, None
        seconds, training, recommendations = (sum(float(row[column]) for row in rows) / len(rows) for column in (
            SECONDS, TRAINING_SECONDS, RECOMMENDATIONS))
        point = {"seconds": seconds, "seconds_without_evaluations": training,
                 "step": recommendations / self.setting.batch_size}
        return 1 - training / seconds, advice_on_evaluations(point, self.setting.eval_every) if training else None

    def notes(self):
        """What is to be said of the scores, sentences."""
        count, failed = len(self.rows), len(self.rows) - len(self.reaching_rows)
        if count < OLYMPIC_FEWEST:
            yield "%d %s, so none can be dropped and there is no score; train %d seeds or more, %d by " \
                  "MLPerf's rules" % (count, "run" if count == 1 else "runs", OLYMPIC_FEWEST, MLPERF_RUNS)
        elif failed > 1:
            yield "%d of %d runs did not reach the target, and one may at most, as the slowest; there is no score" % (
                failed, count)
        elif count < MLPERF_RUNS:
            yield "%d runs; MLPerf's rules ask for %d" % (count, MLPERF_RUNS)
        _, advice = self.evaluations()
        if advice:
            yield "evaluations take " + advice


def _has_reached(row):
    return row["target_reached"] == "yes"


def read_groups(folder):
    """The `Group`s of the runs in `folder` that had a target, sorted by data set, model and batch size.

    Raises:
      UserError: there are none, or the folder's CSV is damaged, or has two rows of one run.
    """
    path = os.path.join(folder, csv_name("train"))
    all_rows = read_rows(folder, "train")
    if not all_rows:
        raise UserError("no %s in %s; train with --target_gauc, or name the folder: --results FOLDER"
                        % (csv_name("train"), folder))
    rows = [row for row in all_rows if row["target_gauc"] and float(row["target_gauc"])]
    if not rows:
        raise UserError("no run in %s had a target; train with --target_gauc, or name another folder: --results FOLDER"
                        % path)
    for row in rows:
        _check_row(row, path)
    groups = sorted(by_seed(rows, "train"), key=lambda group: (
        group[0]["dataset"], model_order(group[0]["model"]), whole_batch(group[0])))
    for group in groups:
        if len({row["seed"] for row in group}) < len(group):
            raise UserError("%s has two rows of one run, with the same flags on the same machine; leave one" % path)
    return [Group(number, group) for number, group in enumerate(groups, 1)]


def _check_row(row, path):
    """Raises UserError unless a row of a run with a target has what every such row has."""
    needed = ["dataset_fingerprint", "selected_on", "target_reached", "eval_every"]
    if _has_reached(row):
        needed += [SECONDS, RECOMMENDATIONS]
    for column in needed:
        is_bad = column in ("eval_every", RECOMMENDATIONS) and float(row[column] or 0) < 1
        if row[column] == "" or is_bad or column == "target_reached" and row[column] not in ("yes", "no"):
            raise UserError("%s has a run with a target and %r as its %s; mend it or move it away"
                            % (path, row[column], column))


def setting_cells(group):
    """The cells, below SETTING_HEADERS, that say which group a line of a table is of."""
    setting = group.setting
    return [str(group.number), setting.model, dataset_cell(setting.dataset), str(setting.batch_size)]


def count_cell(figure):
    """A figure of recommendations as a cell; a dash for None."""
    return "-" if figure is None else "{:,.0f}".format(figure)


def markdown(groups, folder):
    """The settings and scores of groups in Markdown: a list of headings, sentences and tables."""
    flags = ("optimizer", "learning_rate", "target_gauc", "selected_on", "eval_every")
    kinds = kinds_of([group.rows[0] for group in groups], "train", besides=flags + ("seed",))
    settings = [setting_cells(group) + [group.rows[0][flag] for flag in flags] + [kind] * any(kinds)
                + ["%d of %d" % (len(group.reaching_rows), len(group.rows))] for group, kind in zip(groups, kinds)]
    headers = SETTING_HEADERS + list(map(heading, flags)) + ["made with"] * any(kinds) + ["runs that reached it"]
    blocks = ["# Time to a target of GAUC", "Of the runs in %s. A batch is that of all accelerators and workers."
              % path_label(folder), table(headers, settings)]
    blocks += ["## Scores", "The mean without the fastest and the slowest run, and the coefficient of variation (CV) "
               "of these runs.", table(SETTING_HEADERS + [
                   "seconds", "CV", "seconds without evaluations", "CV", "recommendations", "CV", "evaluations"],
                   [setting_cells(group) + _score_cells(group) for group in groups], figures=7)]
    notes = ["- Group %d: %s." % (group.number, note) for group in groups for note in group.notes()]
    return blocks + ["\n".join(notes)] * bool(notes)


def _score_cells(group):
    """The figures of a group's scores, and the share that evaluations took."""
    cells = []
    for column in (SECONDS, TRAINING_SECONDS, RECOMMENDATIONS):
        score = group.score(column)
        if score is None:
            cells += ["-", "-"]
        else:
            cells += [count_cell(score.mean) if column == RECOMMENDATIONS else "%.2f" % score.mean,
                      "%.1f%%" % (100 * score.deviation / score.mean) if score.count > 1 and score.mean else "-"]
    share, _ = group.evaluations()
    return cells + ["-" if share is None else "%.1f%%" % (100 * share)]
