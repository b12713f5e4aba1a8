"""The tables of a comparison of folders of results, in Markdown and CSV."""
from utils.reports.markdown import dataset_cell, table
from utils.reports.names import heading
from utils.reports.pairs import DIFFERENCES, RATIOS, STAGES
from utils.reports.statistics import CONFIDENCE
from utils.reports.verdicts import INTERVAL, OVER_SEEDS, OVER_USERS
from utils.results import FLAGS, KEY, MACHINE, NOT_LEARNT, texts_of

CSV_COLUMNS = ("stage",) + KEY + (
    "column", "first", "first_value", "other", "other_value", "ratio", "difference", "flags", "run",
    "first_seeds", "other_seeds", "low", "high", "verdict", "test")


def csv_rows(pairs):
    """Yields a row of CSV_COLUMNS for each figure of `pairs`.

    The values are means over the seeds; `low` and `high` bound the difference of the two, of ratios, too.
    """
    for pair in pairs:
        for column in RATIOS[pair.stage] + DIFFERENCES[pair.stage]:
            value = pair.figure(column) if pair.is_compared else None
            row = dict(zip(KEY, pair.key), stage=pair.stage, column=column, flags="; ".join(pair.flags), run=pair.run)
            for side, runs in (("first", pair.first), ("other", pair.other)):
                row.update({side: runs.folder.label, side + "_value": _mean_text(runs, column),
                            side + "_seeds": len(runs.figures(column))})
            if value is not None:
                row["ratio" if column in RATIOS[pair.stage] else "difference"] = "%.6g" % value
            verdict = pair.verdict(column)
            row.update(verdict=verdict.higher("first", "other"), test=verdict.test)
            if verdict.test:
                row.update(low="%.6g" % verdict.interval.low, high="%.6g" % verdict.interval.high)
            yield row


def _mean_text(runs, column):
    """The mean of a column of `Runs`; of one run the text of its CSV."""
    if len(runs.rows) == 1:
        return runs.rows[0][column]
    mean = runs.mean(column)
    return "" if mean is None else "%.10g" % mean


def markdown(folders, pairs, lone_runs):
    """The comparison in Markdown: a list of headings, sentences and tables."""
    first = folders[0].letter
    machines = [[folder.letter, folder.label, *machine] for folder in folders for machine in sorted(
        {texts_of(row, MACHINE) for rows in folder.rows.values() for row in rows})]
    blocks = ["# Comparison of results", table(["", "folder", "device", "TensorFlow"], machines)]
    unknown = ", ".join(map(heading, _unknown_flags(pair for pair in pairs if pair.is_compared)))
    if unknown:
        blocks.append("An earlier version did not write these, which are taken for the same: %s." % unknown)
    if any(len(runs.rows) > 1 for pair in pairs for runs in (pair.first, pair.other) if pair.is_compared):
        blocks.append("Figures of several seeds are means.")
    for stage, name in STAGES.items():
        compared = [pair for pair in pairs if pair.stage == stage and pair.is_compared]
        if compared:
            blocks += ["## %s, ratios to %s" % (name.capitalize(), first), *_ratios(first, stage, compared),
                       "## %s, differences from %s" % (name.capitalize(), first), *_differences(first, stage, compared)]
    flag_rows = [(pair.stage, pair.key, pair.other.folder.letter, "; ".join(pair.flags))
                 for pair in pairs if pair.flags]
    for title, headers, rows in (("Not comparable", ["folder", "%s's and the folder's" % first], flag_rows),
                                 ("Not in every folder", ["where"], lone_runs)):
        if rows:
            blocks += ["## " + title, table(["stage"] + list(map(heading, KEY)) + headers, [
                [STAGES[stage]] + _cells(key) + texts for stage, key, *texts in rows])]
    return blocks


def _ratios(first, stage, pairs):
    """The blocks of throughputs and latencies: sentences, a table."""
    columns = RATIOS[stage]
    sentences = ["Each figure divided by %s's." % first + " Of latencies, less is better." * (stage == "infer")]
    verdicts = [pair.verdict(column) for pair in pairs for column in columns if pair.figure(column) is not None]
    if any(verdict.may_be_noise for verdict in verdicts):
        sentences.append("A ratio with ~ before it may be noise: over the seeds, Welch's %s of the difference includes "
                         "zero." % INTERVAL)
    if not all(verdict.test for verdict in verdicts):
        sentences.append("Where a side has one run alone, no ratio is tested.")
    headers, labels = _labels(pairs, [[]] * len(pairs))
    return " ".join(sentences), table(headers + list(map(heading, columns)), [
        label + [pair.cell(column) for column in columns] for label, pair in zip(labels, pairs)], len(columns))


def _differences(first, stage, pairs):
    """The blocks of GAUC and AUC: sentences, a table that has the verdict on a difference beside it."""
    columns = [column for column in DIFFERENCES[stage] if any(pair.figure(column) is not None for pair in pairs)]
    figures = {}  # the table's by its headers
    for column in columns:
        figures[heading(column) + " difference"] = [pair.cell(column) for pair in pairs]
        verdicts = [pair.verdict(column).with_interval(first, pair.other.folder.letter) for pair in pairs]
        if any(verdicts):
            figures["%s, %s" % (heading(column), INTERVAL)] = [verdict or "-" for verdict in verdicts]
    not_learnt = [pair.not_learnt() for pair in pairs]
    headers, labels = _labels(pairs, [["not learnt yet: " + " and ".join(letters)] * bool(letters)
                                      for letters in not_learnt])
    sentences = ["Each figure less %s's." % first] + _evidence(pairs, columns)
    if any(not_learnt):
        sentences.append("Not learnt yet is a GAUC that is not %g above what item popularity alone gives; train to the "
                         "end before you quote it." % NOT_LEARNT)
    return " ".join(sentences), table(headers + list(figures), [
        label + list(cells) for label, cells in zip(labels, zip(*figures.values()))], len(figures))


def _evidence(pairs, columns):
    """Sentences: what the differences of `columns` were tested over, and what to do where they were not."""
    verdicts = [pair.verdict(column) for pair in pairs for column in columns]
    tests = {verdict.test for verdict in verdicts}
    sentences = []
    if OVER_SEEDS in tests:
        sentences.append("Where both sides have two seeds or more, the interval is Welch's, over the seeds.")
    if OVER_USERS in tests:
        sentences.append("Where both have one run, the interval is McNemar's, of GAUC over the test users. It is about "
                         "these two runs alone and not about the models, since other seeds give other runs.")
    if tests - {""}:
        sentences.append("No difference is seen where the interval includes zero. Of two things that are the same, one "
                         "test in %.0f sees a difference." % (1 / (1 - CONFIDENCE)))
    return sentences + list(filter(None, dict.fromkeys(verdict.advice for verdict in verdicts)))


def _labels(pairs, marks):
    """What says which pairs a table's rows are of: (headers, lists of cells); `marks` are lists of texts for each."""
    has_runs = any(pair.run for pair in pairs)
    has_seeds = any(len(runs.rows) > 1 for pair in pairs for runs in (pair.first, pair.other))
    headers = list(map(heading, KEY)) + ["run"] * has_runs + ["seeds"] * has_seeds + ["folder"]
    labels = []
    for pair, texts in zip(pairs, marks):
        texts = ["not comparable"] * bool(pair.flags) + texts
        labels.append(_cells(pair.key) + [pair.run] * has_runs
                      + ["%d and %d" % (len(pair.first.rows), len(pair.other.rows))] * has_seeds
                      + [pair.other.folder.letter + (" (%s)" % "; ".join(texts) if texts else "")])
    return headers, labels


def _unknown_flags(pairs):
    """The flags that neither side of one of `pairs` has, since an earlier version made them: {column: None}."""
    return dict.fromkeys(column for pair in pairs for column in FLAGS[pair.stage]
                         if pair.first.text(column) == pair.other.text(column) == "unknown")


def _cells(key):
    """The cells of a key, the data set with the mark of a sample."""
    return [key[0], dataset_cell(key[1])] + list(key[2:])
