"""The page of the report, HTML that needs no other file: what was measured where and when, plots and tables."""
import base64
import html
import os
import string
import time
from operator import itemgetter

from utils.reports.names import dataset_label, heading, is_sample, kinds_of, machines_of
from utils.reports.seeds import seed_groups
from utils.reports.statistics import summary, welch
from utils.reports.verdicts import INTERVAL, OVER_SEEDS, Verdict
from utils.results import (
    CLOCK_RATES,
    FLAGS,
    NOT_LEARNT,
    PLACES,
    SELECTION,
    STEADY,
    TARGET,
    TEXTS,
    csv_name,
    gauc_column,
    is_learnt,
    whole_batch,
)

# The tables' columns; the data set is in their titles. What is read first comes first: a telephone shows three.
RUN = ("model", "batch_size", "num_accelerators")
RATES = CLOCK_RATES + STEADY
CLOCKS = ("recommendations", "system_seconds", "accelerator_seconds")
BEST = ("best_gauc", "best_auc")
SELECTED = ("popularity_gauc", "selected_on", "validation_gauc", "validation_auc")
FINAL = ("best_step", "final_gauc", "final_auc", "final_loss", "steps") + TARGET + ("evaluation_seconds",) + tuple(
    flag for flag in FLAGS["train"] if flag not in SELECTED)
WORKERS = ("num_workers",)
STEPS = ("step_ms_p50", "step_ms_p99")
INFERENCE = RUN + RATES + ("steady_half_width", "latency_ms_p50", "latency_ms_p99") + CLOCKS + (
    "gauc", "auc", "popularity_gauc", "checkpoint_step") + tuple(
        flag for flag in FLAGS["infer"] if flag not in FLAGS["train"])
STATISTICS = {"mean": "mean", "deviation": "standard deviation", "lowest": "lowest", "highest": "highest"}
FOR_QUALITY = 'SEEDS="1 2 3 4 5" EPOCHS=5 BATCH_SIZES=256 ./run.sh --optimizer adam --selection validation'
SEARCH = ("model", "trial", "validation_gauc", "validation_auc", "popularity_gauc", "optimizer", "learning_rate",
          "batch_size", "epochs", "best_step", "error", "steps", "recommendations", "seconds", "eval_every",
          "search_seed", "dataset_fingerprint") + PLACES["train"]
PUBLISHED_TABLE = ("model", "metric", "value", "settings", "source", "data")

PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>DeepInterest: benchmark results</title>
<style>
body { margin: 0 auto; max-width: 72rem; padding: 1rem; color: #111; background: #fff;
       font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h3 { margin: 1.5rem 0 0; break-after: avoid; font-size: 1rem; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; border-bottom: 2px solid #111; font-size: 1.3rem; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; overflow-wrap: anywhere; }
.sample { padding: .4rem .8rem; border-left: .4rem solid #d55e00; background: #fdf0e6; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; break-inside: avoid; }
img { display: block; max-width: 100%; height: auto; }
.table { margin-bottom: 1.5rem; overflow-x: auto; }
table { width: max-content; border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { max-width: 24rem; padding: .3rem .6rem; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top; }
th { max-width: 10rem; border-bottom: 1px solid #111; line-height: 1.25; vertical-align: bottom; }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff; }
.figure { text-align: right; }
@page { size: landscape; margin: 1.2cm; }
@media print { body { max-width: none; padding: 0; font-size: .8rem; } .table { overflow: visible; }
               table { width: auto; font-size: .5rem; } th, td { padding: .15rem .25rem; } }
</style>
</head>
<body>
<h1>DeepInterest: benchmark results</h1>
$head
<p>System figures count the wall clock of the whole script, start-up and evaluation included; accelerator figures only \
the time inside the session's training or scoring calls; steady figures are the median over steps, the warm-up left \
out. GAUC is the share of test users whose purchase scores higher than their negative. A line joins runs with the same \
flags; those that differ in their seed alone are one run, with their mean, lowest and highest.</p>
$body
</body>
</html>
""")


def page(folder, results, sections, published):
    """The HTML of a report on `results`, rows by stage of the CSVs in `folder`; `sections` are HTML by data set."""
    head, body = [], list(sections.values())
    samples = [dataset for dataset in sections if is_sample(dataset)]
    if samples:
        head.append('<p class="sample" role="note"><strong>%s sample data.</strong> %s: generated, so their figures '
                    "can be compared with each other, and not with published ones.</p>" % (
                        "Only" if len(samples) == len(sections) else "Partly", html.escape(", ".join(samples))))
    items = ["Machine: %s" % machine for machine in machines_of(results["train"] + results["infer"])]
    for stage, rows in results.items():
        if rows:
            date = time.localtime(os.path.getmtime(os.path.join(folder, csv_name(stage))))
            items.append("%s of %s: %d row%s" % (
                csv_name(stage), time.strftime("%Y-%m-%d %H:%M", date), len(rows), "" if len(rows) == 1 else "s"))
    head.append("<ul>%s</ul>" % "".join("<li>%s</li>" % html.escape(item) for item in items))
    if published:
        title = "Published, " + ", ".join(dict.fromkeys(_data_name(row["data"]) for row in published))
        body += ["<h2>Published figures</h2>", "<p>None of these was measured here.</p>",
                 _table(title, _columns(PUBLISHED_TABLE, published))]
    return PAGE.substitute(head="\n".join(head), body="\n".join(body))


def section(dataset, results, figures, published):
    """The HTML of one data set: its rows by stage, `results`, and its Plots, `figures`."""
    label = dataset_label(dataset)
    parts = ["<h2>%s</h2>" % html.escape(label), '<div class="plots">']
    for plot in figures:
        source = csv_name("curves") if plot.name.startswith("gauc") else "the tables below"
        parts.append('<figure><img src="data:image/png;base64,%s" alt="%s"></figure>' % (
            base64.b64encode(plot.png).decode(),
            html.escape("%s: %s. The figures are in %s." % (plot.title, label, source))))
    groups = [group for group in seed_groups(results["train"], "train") if len(group.runs) > 1]
    parts += ["</div>"] + _advice(results, groups)
    parts += [_table("%s: %s" % (title, label), columns) for title, columns in _tables(results, groups, published)]
    return "\n".join(parts)


def _advice(results, groups):
    """What the rows of a data set do not tell of quality, and the command that does: a paragraph, in a list, or none.

    `groups` are the SeedGroups of training that have several seeds.
    """
    sentences = []
    if not all(map(is_learnt, results["train"] + results["infer"])):
        sentences.append("Not learnt yet: the GAUC is less than %g above what item popularity alone gives. Such a row "
                         "says how fast a model is, and not how good." % NOT_LEARNT)
    if results["train"] and not any(group.row["selected_on"] == "validation" for group in groups):
        sentences.append("No run was selected on validation with several seeds, so differences of GAUC may be chance.")
    if not sentences:
        return []
    return ["<p>%s For quality run <code>%s</code>.</p>" % (html.escape(" ".join(sentences)), html.escape(FOR_QUALITY))]


def _tables(results, groups, published):
    """Yields (title, columns) of each table of a data set; the arguments are those of `section` and `_advice`."""
    train, infer = results["train"], results["infer"]
    if groups:
        yield "Over seeds", _over_seeds(groups)
    comparisons = list(_comparisons(groups))
    if comparisons:
        headers = ("model", "compared with", "batch size", "selected on", "best GAUC difference", INTERVAL)
        yield "Over seeds, each model compared with the best", [
            (header, texts, header in ("batch size", "best GAUC difference"))
            for header, texts in zip(headers, zip(*comparisons))]
    if train:
        yield "Training, how fast", (
            _columns(RUN + RATES + STEPS + CLOCKS, train) + _published_columns(["seconds_per_epoch"], train, published)
            + _columns(FLAGS["train"] + PLACES["train"] + WORKERS, train))
        yield "Training, how good", (
            _columns(RUN + BEST + SELECTED, train) + _published_columns(BEST, train, published)
            + _columns(FINAL, train))
    if infer:
        trained = [("trained with: " + header, texts, is_figure) for header, texts, is_figure in _columns(
            [flag for flag in FLAGS["infer"] if flag in FLAGS["train"]], infer)]
        yield "Inference", _columns(INFERENCE, infer) + trained + _columns(PLACES["infer"] + WORKERS, infer)
    if results["search"]:  # the trials of each search, the best first
        yield "Search, on the validation set", _columns(SEARCH, results["search"])


def _comparisons(groups):
    """Yields the cells of each of the SeedGroups `groups`, compared with the one of its kind with the highest GAUC.

    Of a kind are runs of one batch size and selected on the same set. Those that a target ended are left out.
    """
    kinds = {}
    for group in groups:
        if not float(group.row["target_gauc"]):
            kinds.setdefault((whole_batch(group.row), group.row["selected_on"]), []).append(group)
    for (batch_size, selected_on), similar_groups in sorted(kinds.items()):
        made_with = kinds_of([group.row for group in similar_groups], "train", besides=("seed",))
        names = [", ".join(filter(None, (group.row["model"], text))) for group, text in zip(similar_groups, made_with)]
        figures = list(zip(names, ([float(row["best_gauc"]) for row in group.rows] for group in similar_groups)))
        best, best_gaucs = max(figures, key=lambda figure: summary(figure[1]).mean)
        for name, gaucs in figures:
            if name != best:
                interval = welch(best_gaucs, gaucs)
                yield (name, best, str(batch_size), selected_on, "%+.6f" % interval.difference,
                       Verdict(OVER_SEEDS, interval).with_interval(best, name))


def _over_seeds(groups):
    """The columns of the table of training over several seeds, a row for each of the SeedGroups `groups`."""
    rows = [dict(group.row, popularity_gauc=max(row["popularity_gauc"] for row in group.rows)) for group in groups]
    differing = [column for column in FLAGS["train"] + PLACES["train"] + WORKERS
                 if column not in SELECTION + ("seed",) and len({row[column] for row in rows}) > 1]
    columns = _columns(RUN, rows) + [("number of seeds", [str(len(group.runs)) for group in groups], True),
                                     ("seeds", [row["seed"] for row in rows], True)]
    columns += _columns(SELECTION[:1], rows)
    for column, template, names in (("best_gauc", "%.6f", STATISTICS), ("best_auc", "%.6f", STATISTICS),
                                    (STEADY[0], "%.1f", list(STATISTICS)[:2])):
        figures = [[float(row[column]) for row in group.rows if row[column]] for group in groups]
        for name in names if any(figures) else ():
            texts = [template % getattr(summary(values), name) if values else "" for values in figures]
            if (column, name) == ("best_gauc", "mean"):
                texts = [_cell(dict(row, best_gauc=text), column)
                         + " (ended at the target)" * (float(row["target_gauc"]) > 0) for row, text in zip(rows, texts)]
            columns.append(("%s, %s" % (heading(column), STATISTICS[name]), texts, True))
    return columns + _columns(("popularity_gauc",) + SELECTION[1:] + tuple(differing), rows)


def _table(title, columns):
    """A table below its title, in a box that scrolls; of each column: header, texts, and whether they are figures."""
    headers, texts, kinds = zip(*columns)

    def line(tag, cells):
        return "<tr>%s</tr>" % "".join("<%s%s>%s</%s>" % (
            tag, ' class="figure"' if is_figure else "", html.escape(cell), tag[:2])
            for cell, is_figure in zip(cells, kinds))
    return "\n".join(["<h3>%s</h3>" % html.escape(title), '<div class="table" tabindex="0"><table>',
                      "<thead>%s</thead>" % line('th scope="col"', headers), "<tbody>"]
                     + [line("td", cells) for cells in zip(*texts)] + ["</tbody>", "</table></div>"])


def _columns(names, rows):
    """The columns of a table that show columns of rows, but for those that are empty in all."""
    return [(heading(name), [_cell(row, name) for row in rows], name not in TEXTS) for name in names
            if any(row[name] for row in rows)]


def _cell(row, column):
    """What a table shows of a column of a row: its text, and beside a GAUC whether it is one of a model that learnt."""
    return row[column] + (" (not learnt yet)" if column == gauc_column(row) and not is_learnt(row) else "")


def _published_columns(metrics, rows, published):
    """The columns of the published figures of each row's model, one for each metric, data and source."""
    kind_of = itemgetter("metric", "data", "source")
    return [("%s published, %s (%s)" % (heading(metric), _data_name(data), source), [
        ", ".join(figure["value"] for figure in published
                  if figure["model"] == row["model"] and kind_of(figure) == (metric, data, source)) for row in rows
    ], True) for metric, data, source in dict.fromkeys(map(kind_of, published)) if metric in metrics]


def _data_name(data):
    """What headers call the data of a published figure."""
    return data.replace("_", " ").title()
