"""The reference of convergence: how many recommendations each setting takes to its target, seed by seed.

It is MLPerf's idea of reference convergence points ("MLPerf Training Rules"): a run that needs clearly less than the
reference does not train what the reference does. `record` adds groups of runs to the file, `check` compares them.

The file is JSON: {"format": 1, "entries": [...]}. An entry has the names of time_to_target.Setting, and
    recommendations      {seed: recommendations to the target, null where it was not reached}
    mean                 of the seeds that reached it; null where none did
    standard_deviation   of the same, of a sample; null of fewer than two
    tensorflow           the version that trained them
"""
import json
import typing

from utils.files import UserError, replacing
from utils.reports.markdown import table
from utils.reports.statistics import LEVEL, p_of_few_less, p_of_less, summary
from utils.reports.time_to_target import SETTING_HEADERS, Group, Setting, count_cell, setting_cells
from utils.results import TOO_LARGE

FORMAT = 1
FEWEST_SEEDS = 5  # of a reference to compare with: they tell a standard deviation to about a third of it
WELCH_FEWEST = 5  # runs: fewer often agree by chance, as evaluations are far apart, and then Welch's test errs


class Verdict(typing.NamedTuple):
    """What the comparison of a group with its reference gave."""
    group: Group
    obstacle: str = ""  # why it could not be compared
    means: tuple = (None, None)  # recommendations to the target, the group's and the reference's
    p: typing.Optional[float] = None

    @property
    def is_faster(self):
        """Whether the group takes fewer recommendations than the reference."""
        return not self.obstacle and self.p < LEVEL

    @property
    def text(self):
        """What the table says."""
        return "not compared: " + self.obstacle if self.obstacle else "faster" if self.is_faster else "not faster"


def read_reference(path):
    """The entries of the file `path`: {Setting: entry}; None where there is no such file.

    Raises:
      UserError: it can't be read, is damaged, or is of another format.
    """
    try:
        with open(path, encoding="utf-8") as file:
            reference = json.load(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError("%s can't be read (%s); name another file: --reference FILE" % (path, error.strerror)) from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    if type(reference) is not dict or reference.get("format") != FORMAT:
        raise UserError("%s is not of the format %d of this version; name another file: --reference FILE"
                        % (path, FORMAT))
    entries = {}
    for entry in reference["entries"] if type(reference.get("entries")) is list else [None]:
        if not _is_entry(entry):
            raise _damaged(path, "an entry is not as it is recorded")
        if _setting_of(entry) in entries:
            raise _damaged(path, "two entries are of the same setting")
        entries[_setting_of(entry)] = entry
    return entries


def _damaged(path, fault):
    return UserError("%s is damaged (%s); get it back from git, or move it away and --record anew" % (path, fault))


def _setting_of(entry):
    return Setting(*(entry[name] for name in Setting._fields))


def _is_entry(entry):
    """Whether `entry` is as `_entry` makes one."""
    kinds = dict(Setting.__annotations__, recommendations=dict, tensorflow=str)
    if type(entry) is not dict or not all(type(entry.get(name)) is kind for name, kind in kinds.items()):
        return False
    counts = entry["recommendations"].values()
    return (min(entry["batch_size"], entry["eval_every"]) > 0 and len(counts) > 0
            and all(count is None or type(count) is int and 0 < count < TOO_LARGE for count in counts)
            and entry == _entry(_setting_of(entry), entry["recommendations"], entry["tensorflow"]))


def _entry(setting, recommendations, tensorflow):
    """The entry of a Setting; `recommendations` as of Group.recommendations."""
    reached = [count for count in recommendations.values() if count is not None]
    figures = summary(reached) if reached else None
    return dict(setting._asdict(), recommendations={
        seed: recommendations[seed] for seed in sorted(recommendations, key=lambda seed: (len(seed), seed))},
        mean=round(figures.mean, 1) if reached else None,
        standard_deviation=round(figures.deviation, 1) if len(reached) > 1 else None, tensorflow=tensorflow)


def record(groups, path):
    """Adds groups of runs to the file `path`, which need not be there; returns what was done with each, sentences.

    An entry that is there is replaced only where at least as many seeds reached the target. Of groups with one setting,
    such as of two machines, the first alone is recorded. Raises UserError as `read_reference`.
    """
    entries, texts, recorded = read_reference(path) or {}, [], {}
    for group in groups:
        entry = _entry(group.setting, group.recommendations(), group.rows[0]["tensorflow"])
        counts = list(entries.get(group.setting, {}).get("recommendations", {}).values())
        before, reached = len(counts), len(counts) - counts.count(None)
        if group.setting in recorded:
            texts.append("%s is not recorded: %s has the same setting" % (group.label, recorded[group.setting]))
        elif reached > len(group.reaching_rows):
            texts.append("%s is left as it is: %d of its seeds reached the target, and %d of these runs" % (
                group.label, reached, len(group.reaching_rows)))
        else:
            recorded[group.setting] = "group %d" % group.number
            texts.append("%s is recorded, with %d seed%s%s" % (
                group.label, len(group.rows), "" if len(group.rows) == 1 else "s",
                ", in place of %d" % before if before else ""))
            entries[group.setting] = entry
    with replacing(path, "w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, "entries": [entries[setting] for setting in sorted(entries)]}, file, indent=1)
        file.write("\n")
    return [text[0].upper() + text[1:] for text in texts]


def check(groups, path):
    """The Verdict on each of `groups`, by the reference in the file `path`.

    Raises:
      UserError: there is no reference for any of them, or the file is not as it must be.
    """
    entries = read_reference(path)
    if entries is None:
        raise UserError("no reference %s; get it back from git, or name one: --reference FILE" % path)
    return [_verdict(group, entries) for group in groups]


def _verdict(group, entries):
    """The Verdict on a group.

    A group may be evaluated less often than its reference, not more often: then it would stop sooner. Where its
    evaluations are not among the reference's, either may come first: the reference is then taken to have reached the
    target right after its evaluation before, which is the soonest that it may have.
    """
    setting = group.setting
    settings = [other for other in entries if other._replace(eval_every=setting.eval_every) == setting]
    usable = [other for other in settings if other.eval_every <= setting.eval_every]
    if not settings:
        return Verdict(group, "no reference has this model, data, batch size, flags and target")
    if not usable:
        return Verdict(group, "it was evaluated more often than the reference; --eval_every %d will do" % min(
            other.eval_every for other in settings))
    best = max(usable, key=lambda other: (setting.eval_every % other.eval_every == 0, other.eval_every))
    counts = list(entries[best]["recommendations"].values())
    fault = _fault(counts)
    if fault:
        return Verdict(group, fault)
    if setting.eval_every % best.eval_every:
        counts = [count - best.recommendations_between_evaluations for count in counts]
    # A run that did not reach the target counts as the reference's slowest, so that it makes no group faster.
    values = [max(counts) if value is None else value for value in group.recommendations().values()]
    p_of = p_of_less if len(values) >= WELCH_FEWEST else p_of_few_less
    return Verdict(group, means=(summary(values).mean, summary(counts).mean), p=p_of(values, counts))


def _fault(counts):
    """Why nothing can be compared with a reference that has `counts`, recommendations by seed; None where it can."""
    failed = sum(count is None for count in counts)
    if failed:
        return "of the reference, %d of %d seeds did not reach the target" % (failed, len(counts))
    if len(counts) < FEWEST_SEEDS:
        return "the reference has %d of the %d seeds that a check needs" % (len(counts), FEWEST_SEEDS)
    if len(set(counts)) == 1:
        return "all seeds of the reference took as many recommendations; record it with a smaller --eval_every"
    return None


def markdown(verdicts, reference):
    """The comparison in Markdown: a list of a heading, a sentence and a table; `reference` is the file's path."""
    return ["## Compared with %s" % reference, "Recommendations to the target, the mean of all runs. A group is faster "
            "where a one-sided test says so at %.0f%%, which it says of one honest group in %.0f." % (
                100 * LEVEL, 1 / LEVEL),
            table(SETTING_HEADERS + ["verdict", "recommendations", "reference", "p"], [
                setting_cells(verdict.group) + [verdict.text] + list(map(count_cell, verdict.means))
                + ["-" if verdict.p is None else "%.3g" % verdict.p] for verdict in verdicts], figures=3)]


def require_honest(verdicts, path):
    """Raises UserError where a group is faster than its reference, or none has one that it can be compared with."""
    faster = [verdict for verdict in verdicts if verdict.is_faster]
    if faster:
        raise UserError("faster than %s: %s; on a benchmark it means that something is wrong: look for a leak of the "
                        "label, other data, or other hyperparameters" % (path, ", ".join(
                            "%s with %s recommendations to the target, not %s" % (
                                verdict.group.label, *map(count_cell, verdict.means)) for verdict in faster)))
    if all(verdict.obstacle for verdict in verdicts):
        raise UserError("nothing could be compared with %s: %s; record the reference of these runs, or name another: "
                        "--reference FILE" % (path, ", ".join(dict.fromkeys(verdict.obstacle for verdict in verdicts))))
