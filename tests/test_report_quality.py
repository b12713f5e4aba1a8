"""The report on quality: several seeds as one line, validation apart from test, the floor, what has not learnt."""
import matplotlib.axes
import pytest

from tests.pages import Page, curve
from tests.rows import ROWS, write_rows
from utils import report
from utils.reports import figures, plots
from utils.reports.page import FOR_QUALITY
from utils.reports.seeds import seed_groups, seeds_text

SAMPLE = ": sample_small (generated sample, no real data)"


class Log:
    """What was drawn: lines (label, x, y), spreads (x, lowest, highest), levels (label, y), legends (labels)."""

    def __init__(self, monkeypatch):
        self.lines, self.spreads, self.levels, self.legends, self.y_labels = [], [], [], [], []

        def wrap(owner, name, record):
            original = getattr(owner, name)
            monkeypatch.setattr(owner, name, lambda *args, **options: [record(*args, **options), original(
                *args, **options)][1])
        wrap(matplotlib.axes.Axes, "plot", lambda axis, x, y, label, **style: self.lines.append(
            (label, list(x), pytest.approx(list(y)))))
        wrap(plots, "spread", lambda axis, x, summaries, colour, is_band: self.spreads.append(
            (list(x), [each.lowest for each in summaries], [each.highest for each in summaries])))
        wrap(plots, "level", lambda axis, y, label, *style: self.levels.append((label, y)))
        wrap(plots, "legend", lambda figure, lines: self.legends.append([line.get_label() for line in lines]))
        wrap(matplotlib.axes.Axes, "set_ylabel", lambda axis, label, *style, **options: self.y_labels.append(label))


@pytest.fixture
def log(monkeypatch):
    return Log(monkeypatch)


def curves(*runs):
    """The rows of curves of `runs`, pairs of GAUCs and what differs from the sample rows."""
    return [dict(ROWS["curves"], **row) for gaucs, changes in runs for row in curve(gaucs, **changes)]


@pytest.fixture
def page_of(tmp_path, monkeypatch):
    """A function that makes the report of rows by stage, what differs from the sample rows, and returns its page.

    It leaves out the plots, which take long.
    """
    def make(**rows):
        for stage, changes in rows.items():
            write_rows(tmp_path, stage, *changes)
        report.make_report(str(tmp_path))
        return Page(tmp_path)
    monkeypatch.setattr(figures, "plots_of", lambda results: [])
    return make


# ---- plots -----------------------------------------------------------------------------------------------------------

def test_seeds_are_one_line_against_batch_size_with_bars_from_the_lowest_to_the_highest(log):
    rows = [dict(ROWS["train"], seed=seed, batch_size=size, system_recommendations_per_second=rate)
            for size, rates in (("256", "136"), ("512", "268")) for seed, rate in zip("123", rates)]
    plot, = figures.plots_of({"train": rows, "infer": [], "curves": []})
    assert log.lines[0] == ("din", [256, 512], [10 / 3, 16 / 3])
    assert log.spreads[0] == ([256, 512], [1, 2], [6, 8])
    assert log.legends == [["din", "mean of 3 seeds, lowest to highest"]]


def test_lines_with_bars_stand_side_by_side(log):
    rows = [dict(ROWS["train"], seed=seed, model=model) for model in ("din", "pnn") for seed in "12"]
    list(figures.plots_of({"train": rows, "infer": [], "curves": []}))
    (_, (din,), _), (_, (pnn,), _) = log.lines[:2]
    assert 256 / 1.05 < din < 256 < pnn < 256 * 1.05
    assert [x for x, _, _ in log.spreads[:2]] == [[din], [pnn]]


@pytest.mark.parametrize("seeds, sizes", [(("1", "2"), ("256", "512")), (("1-2", "1"), ("256", "512"))])
def test_other_seeds_at_another_batch_size_are_no_part_of_a_line(log, seeds, sizes):
    rows = [dict(ROWS["train"], seed=seed, batch_size=size) for text, size in zip(seeds, sizes)
            for seed in text.split("-")]
    list(figures.plots_of({"train": rows, "infer": [], "curves": []}))
    mean = ", mean of 2 seeds, lowest to highest"
    assert sorted(log.legends[0]) == sorted("din, seed %s%s" % (text, mean * ("-" in text)) for text in seeds)


def test_curves_of_seeds_are_their_mean_in_a_band(log):
    list(figures.learning_curves(curves(((0.5, 0.6, 0.7), {"seed": "1"}), ((0.5, 0.8, 0.8), {"seed": "2"}))))
    assert log.lines[0] == ("din", [0, 100, 200], [0.5, 0.7, 0.75])
    assert log.lines[1] == ("din", [0.5, 1.5, 2.5], [0.5, 0.7, 0.75])
    assert log.spreads[0] == ([0, 100, 200], [0.5, 0.6, 0.7], [0.5, 0.8, 0.8])
    assert log.legends == [["din", "mean of 2 seeds, lowest to highest", "item popularity alone"]]


def test_a_mean_ends_with_the_first_of_its_seeds_and_the_others_go_on_as_they_are(log):
    list(figures.learning_curves(curves(
        ((0.5, 0.9), {"seed": "1"}), ((0.5, 0.7, 0.8), {"seed": "2"}), ((0.5, 0.5, 0.6, 0.7), {"seed": "3"}))))
    assert log.lines[:3] == [("din", [0, 100], [0.5, 0.7]), ("", [100, 200], [0.7, 0.8]),
                             ("", [100, 200, 300], [0.5, 0.6, 0.7])]
    assert "seeds that went on when another had ended" in log.legends[0]


def test_a_line_of_one_seed_beside_one_of_several_is_told_from_it(log):
    list(figures.learning_curves(curves(((0.5, 0.6), {"seed": "1"}), ((0.5, 0.8), {"seed": "2"}),
                                        ((0.5, 0.8), {"seed": "2", "model": "pnn"}))))
    assert log.legends[0][:2] == ["din, seed 1-2, mean of 2 seeds, lowest to highest", "pnn, seed 2"]
    assert len(log.spreads) == 2  # of one line, in two panels


def test_curves_on_validation_are_in_plots_of_their_own_that_say_so(log):
    made = list(figures.learning_curves(curves(
        ((0.5, 0.6), {"selected_on": "validation", "popularity_gauc": "0.55"}), ((0.5, 0.8), {}))))
    assert [(plot.name, plot.title) for plot in made] == [
        ("gauc_batch_256", "GAUC during training, batch size 256"),
        ("gauc_validation_batch_256", "GAUC on validation during training, batch size 256")]
    assert [y for _, y in log.levels] == [0.6975, 0.6975, 0.55, 0.55]
    assert log.y_labels == ["GAUC on the test set"] * 2 + ["GAUC on the validation set"] * 2


@pytest.mark.parametrize("targets, levels", [
    (("0", "0"), []), (("0.9", "0.9"), [("target GAUC 0.9", 0.9)]), (("0.9", "0.8"), []), (("0.9", "0"), [])])
def test_the_target_is_a_line_where_all_runs_have_the_same(log, targets, levels):
    list(figures.learning_curves(curves(*[((0.5, 0.6), {"target_gauc": target, "model": model})
                                          for target, model in zip(targets, ("din", "pnn"))])))
    assert log.levels[:len(log.levels) // 2] == [("item popularity alone", 0.6975)] + levels
    assert log.legends[0][2:] == [label for label, _ in log.levels[:len(log.levels) // 2]]


def test_curves_of_an_earlier_version_have_no_floor(log):
    list(figures.learning_curves(curves(((0.5, 0.6), {"popularity_gauc": ""}))))
    assert not log.levels and log.legends == [["din"]]


def test_a_line_that_the_last_panel_lacks_is_in_the_legend(log):
    """As that of rows of an earlier version, which have no steady figures."""
    steady = "steady_recommendations_per_second"
    rows = [dict(ROWS["train"], **change) for change in ({"model": "din", steady: ""}, {"model": "pnn"})]
    list(figures.plots_of({"train": rows, "infer": [], "curves": []}))
    assert log.legends == [["din", "pnn"]]


# ---- groups ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seeds, text", [
    (["1"], "1"), (["2", "1"], "1-2"), (["10", "9", "8", "77", "1"], "1, 8-10, 77"), (["", "1.0"], "1.0, unknown")])
def test_seeds_are_named_in_order_neighbours_as_a_range(seeds, text):
    assert seeds_text(seeds) == text


def test_checkpoints_of_one_seed_before_and_after_more_training_are_no_seeds():
    rows = [dict(ROWS["infer"], seed=seed, trained_steps=steps) for seed, steps in (
        ("1", "500"), ("1", "1032"), ("2", "1032"))]
    assert [group.rows for group in seed_groups(rows, "infer")] == [[row] for row in rows]


def test_seeds_whose_training_patience_ended_at_other_steps_are_one_group():
    rows = [dict(ROWS["infer"], seed=seed, trained_steps=steps) for seed, steps in (("1", "500"), ("2", "1032"))]
    group, = seed_groups(rows, "infer")
    assert group.rows == rows and group.row["seed"] == "1-2"


# ---- tables ----------------------------------------------------------------------------------------------------------

def test_the_table_over_seeds_has_their_statistics_and_what_tells_groups_apart(page_of):
    runs = [dict(selected_on=selected_on, learning_rate=rate, seed=seed, best_gauc=gauc, best_auc="0.9",
                 steady_recommendations_per_second=speed)
            for selected_on, rate in (("test", "0.001"), ("validation", "0.002"))
            for seed, gauc, speed in (("1", "0.80", "100"), ("2", "0.82", "300"), ("4", "0.84", ""))]
    rows = page_of(train=runs + [{"model": "pnn"}]).rows("Over seeds" + SAMPLE)
    assert [(row["selected on"], row["learning rate"]) for row in rows] == [
        ("test", "0.001"), ("validation", "0.002")]
    for row in rows:
        assert {header: row[header] for header in row if header.startswith(("best", "steady"))} == {
            "best GAUC, mean": "0.820000", "best GAUC, standard deviation": "0.020000",
            "best GAUC, lowest": "0.800000", "best GAUC, highest": "0.840000",
            "best AUC, mean": "0.900000", "best AUC, standard deviation": "0.000000",
            "best AUC, lowest": "0.900000", "best AUC, highest": "0.900000",
            "steady recommendations / second, mean": "200.0",
            "steady recommendations / second, standard deviation": "141.4"}
        assert (row["model"], row["batch size"], row["number of seeds"], row["seeds"], row["popularity GAUC"]) == (
            "din", "256", "3", "1-2, 4", "0.697500")
        assert not {"optimizer", "epochs", "device"} & set(row)  # in which the groups are alike


def test_models_of_several_seeds_are_compared_with_the_best_of_their_kind(page_of):
    """Welch's interval of 0.8 and 0.82 less 0.9 and 0.92, two degrees of freedom: 4.303 times the root of 0.0002."""
    def runs(model, gaucs, **changes):
        return [dict(changes, model=model, seed=seed, best_gauc=gauc) for seed, gauc in zip("12", gaucs)]
    page = page_of(train=runs("din", ("0.90", "0.92")) + runs("pnn", ("0.80", "0.82"))
                   + runs("deepFM", ("0.89", "0.91")) + runs("pnn", ("0.99", "0.99"), target_gauc="0.99")
                   + runs("din", ("0.7", "0.8"), batch_size="512"))
    rows = page.rows("Over seeds, each model compared with the best" + SAMPLE)
    assert [list(row.values()) for row in rows] == [
        ["pnn", "din", "256", "test", "-0.100000", "din higher by 0.0392 to 0.1608"],
        ["deepFM", "din", "256", "test", "-0.010000", "no difference seen (-0.0708 to +0.0508)"]]
    means = [row["best GAUC, mean"] for row in page.rows("Over seeds" + SAMPLE)]
    assert "0.990000 (ended at the target)" in means and "0.910000" in means


def test_seeds_that_ended_too_soon_for_a_steady_figure_are_left_out_of_its_plot(tmp_path):
    write_rows(tmp_path, "train", *[{"seed": seed, "steady_recommendations_per_second": speed, "target_gauc": "0.5"}
                                    for seed, speed in (("1", ""), ("2", "31984.2"))])
    report.make_report(str(tmp_path))
    assert (tmp_path / "throughput_training_sample_small.png").exists()


def test_a_trial_that_has_not_learnt_is_marked(page_of):
    page = page_of(search=[{}, {"trial": "4", "validation_gauc": "0.7"}, {"trial": "5", "validation_gauc": ""}])
    assert [row["validation GAUC"] for row in page.rows("Search, on the validation set" + SAMPLE)] == [
        "0.905100", "0.7 (not learnt yet)", ""]


def test_single_seeds_have_no_table_over_seeds(page_of):
    assert "Over seeds" + SAMPLE not in page_of(train=[{}, {"batch_size": "512"}]).tables


@pytest.mark.parametrize("gauc, popularity, text", [
    ("0.707499", "0.697500", "0.707499 (not learnt yet)"), ("0.5", "0.697500", "0.5 (not learnt yet)"),
    ("0.707501", "0.697500", "0.707501"), ("0.5", "", "0.5")])
def test_a_gauc_next_to_that_of_popularity_is_marked(page_of, gauc, popularity, text):
    page = page_of(train=[{"best_gauc": gauc, "popularity_gauc": popularity}],
                   infer=[{"gauc": gauc, "popularity_gauc": popularity}])
    assert page.rows("Training, how good" + SAMPLE)[0]["best GAUC"] == text
    assert page.rows("Inference" + SAMPLE)[0]["GAUC"] == text
    assert ("Not learnt yet: " in page.text) == ("not learnt" in text)


def test_over_seeds_the_mean_says_whether_it_is_learnt(page_of):
    page = page_of(train=[{"model": model, "seed": seed, "best_gauc": gauc} for model, gaucs in (
        ("din", ("0.7", "0.9")), ("pnn", ("0.6", "0.72"))) for seed, gauc in zip("12", gaucs)])
    assert [row["best GAUC, mean"] for row in page.rows("Over seeds" + SAMPLE)] == [
        "0.800000", "0.660000 (not learnt yet)"]


@pytest.mark.parametrize("runs, is_advised", [
    ([{}], True), ([{"seed": "1"}, {"seed": "2"}], True), ([{"selected_on": "validation"}], True),
    ([{"selected_on": "validation", "seed": "1"}, {"selected_on": "validation", "seed": "2"}], False),
    ([{"selected_on": "validation", "seed": seed, "best_gauc": "0.7"} for seed in "12"], True)])
def test_the_report_says_what_to_run_for_quality_where_nobody_did(page_of, runs, is_advised):
    assert (FOR_QUALITY in page_of(train=runs).text) == is_advised
