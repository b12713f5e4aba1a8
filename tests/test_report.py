"""The report: what its page holds, what its plots draw, how it takes results that are missing, mixed or hostile."""
import csv
import io
import os
import re
import shutil
import subprocess
import sys

import matplotlib.axes
import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest

from tests.pages import Page, curve
from tests.rows import ROWS, error_of, write_rows
from utils import report
from utils.files import ROOT
from utils.reports import figures
from utils.reports.names import heading
from utils.results import COLUMNS, PUBLISHED, RESULTS, TRAINING, csv_name

HOSTILE = '<script>alert("1")</script>&$\\frac{$_^%'


@pytest.fixture
def plot_log(monkeypatch):
    """Two lists that fill up: the lines of the plots, (label, x, y) each, and the plots' titles."""
    lines, titles = [], []

    def plot(axis, x, y, label, **style):
        lines.append((label, list(x), list(y)))
        return original_plot(axis, x, y, label=label, **style)

    def suptitle(figure, text, **options):
        titles.append(text)
        return original_suptitle(figure, text, **options)
    original_plot, original_suptitle = matplotlib.axes.Axes.plot, matplotlib.figure.Figure.suptitle
    monkeypatch.setattr(matplotlib.axes.Axes, "plot", plot)
    monkeypatch.setattr(matplotlib.figure.Figure, "suptitle", suptitle)
    return lines, titles


def write_all(folder):
    """Results of two models at two batch sizes."""
    runs = [{"model": model, "batch_size": size, "system_recommendations_per_second": "%d.5" % rate}
            for model, size, rate in (("din", "256", 100), ("din", "1024", 300),
                                      ("pnn", "256", 200), ("pnn", "1024", 500))]
    write_rows(folder, "train", *runs)
    write_rows(folder, "infer", *[dict(run, trained_batch_size=run["batch_size"]) for run in runs])
    write_rows(folder, "curves", *[row for run in runs for row in curve(
        (0.5, 0.61, 0.7), model=run["model"], batch_size=run["batch_size"])])


@pytest.fixture(scope="module")
def report_folder(tmp_path_factory):
    """A folder with results and their report, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("made")
    write_all(folder)
    assert report.make_report(str(folder)) == str(folder / "report.html")
    return folder


@pytest.fixture
def folder_copy(report_folder, tmp_path):
    """A copy of `report_folder`, which a test may change."""
    for path in report_folder.iterdir():
        shutil.copy(str(path), str(tmp_path))
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_page_is_well_formed_and_whole_in_itself(report_folder):
    page = Page(report_folder)
    assert page.source.startswith("<!DOCTYPE html>\n")
    assert not page.tags & {"script", "link", "iframe", "object", "base"} and "url(" not in page.source
    assert "@import" not in page.source and not re.search(r"(?:https?:)?//", re.sub(r"base64,[^\"]*", "", page.source))
    for _, name, value in page.attributes:
        assert name not in ("src", "href", "srcset", "action") or value.startswith("data:image/png;base64,")
    assert all(value for tag, name, value in page.attributes if name == "alt")


def test_the_page_embeds_the_plots_that_lie_beside_it(report_folder):
    pngs = {path.name: path.read_bytes() for path in report_folder.glob("*.png")}
    assert set(pngs) == {name + "_sample_small.png" for name in (
        "throughput_training", "throughput_inference", "latency", "gauc_batch_256", "gauc_batch_1024")}
    assert sorted(Page(report_folder).images()) == sorted(pngs.values())
    for png in pngs.values():
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        pixels = (matplotlib.image.imread(io.BytesIO(png))[:, :, :3] * 255).round()
        assert min(pixels.shape[:2]) > 500
        for colour in (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00):  # of the two models
            assert (pixels == np.array(colour)).all(axis=2).sum() > 100


def test_the_tables_hold_the_csvs(report_folder):
    page = Page(report_folder)
    mark = ": sample_small (generated sample, no real data)"
    for stage, titles in (("train", ("Training, how fast", "Training, how good")), ("infer", ("Inference",))):
        with open(str(report_folder / csv_name(stage)), newline="") as file:
            rows = list(csv.DictReader(file))
        table_rows = [dict(item for title in titles for item in page.rows(title + mark)[index].items())
                      for index in range(len(rows))]
        for row, cells in zip(rows, table_rows):
            for column in COLUMNS[stage]:
                trained = "trained with: " * (stage == "infer" and column in TRAINING)
                shown = "" if column in ("dataset", "outcomes") else row[column]
                assert cells.get(trained + heading(column), "") == shown, column
        assert [len(page.rows(title + mark)) for title in titles] == [len(rows)] * len(titles)


def test_inference_shows_the_flags_of_the_training_that_made_its_checkpoint(tmp_path):
    """Not those of another training whose best GAUC came at the same step."""
    write_rows(tmp_path, "train", {"optimizer": "adam", "seed": "77"})
    write_rows(tmp_path, "infer", {"optimizer": "sgd", "learning_rate": "1.0", "seed": "5"})
    report.make_report(str(tmp_path))
    row, = Page(tmp_path).rows("Inference: sample_small (generated sample, no real data)")
    trained_with = {"trained with: " + name: value for name, value in (
        ("epochs", "2"), ("optimizer", "sgd"), ("learning rate", "1.0"), ("seed", "5"))}
    assert {name: row[name] for name in trained_with} == trained_with


def test_published_figures_stand_beside_what_was_measured_and_say_what_they_are(tmp_path):
    write_rows(tmp_path, "train", {"model": "din"}, {"model": "pnn"})
    report.make_report(str(tmp_path))  # elsewhere than the project's results
    page = Page(tmp_path)
    with open(os.path.join(RESULTS, PUBLISHED), newline="") as file:
        published = list(csv.DictReader(file))
    assert page.rows("Published, Amazon Electronics") == [
        {heading(column): value for column, value in row.items()} for row in published]
    din, pnn = page.rows("Training, how good: sample_small (generated sample, no real data)")
    authors, fuxictr = ("best GAUC published, Amazon Electronics (%s)" % source for source in (
        "authors' DeepInterestNetwork repository", "FuxiCTR / BARS benchmark"))
    assert (din[authors], pnn[authors], din[fuxictr], pnn[fuxictr]) == ("0.8698", "0.8679", "0.8835", "")
    speed = page.rows("Training, how fast: sample_small (generated sample, no real data)")[0]
    assert speed["seconds per epoch published, Amazon Electronics (authors' DeepInterestNetwork repository)"] == (
        "1009, 1337")


def test_a_line_joins_the_batch_sizes_of_a_model_and_a_curve_the_evaluations_of_a_run(tmp_path, plot_log):
    write_all(tmp_path)
    report.make_report(str(tmp_path))
    lines, _ = plot_log
    assert lines[:2] == [("din", [256, 1024], [100.5, 300.5]), ("pnn", [256, 1024], [200.5, 500.5])]
    assert lines[4] == ("din", [256, 1024], [52000.0, 52000.0])  # steady
    assert lines.count(("din", [256, 1024], [3.57, 3.57])) == 1  # p50
    for model in ("din", "pnn"):
        assert lines.count((model, [0, 100, 200], [0.5, 0.61, 0.7])) == 2  # at each batch size
        assert lines.count((model, [0.5, 1.5, 2.5], [0.5, 0.61, 0.7])) == 2


def test_one_model_at_several_batch_sizes_has_its_curves_in_one_plot(tmp_path, plot_log):
    write_rows(tmp_path, "curves", *(curve((0.5, 0.6), batch_size="1024") + curve((0.5, 0.7), batch_size="256")
                                     + curve((0.5, 0.8), batch_size="256", num_accelerators="2")))
    report.make_report(str(tmp_path))
    assert [path.name for path in tmp_path.glob("*.png")] == ["gauc_din_sample_small.png"]
    assert plot_log[0][:3] == [("256", [0, 100], [0.5, 0.7]), ("256 x 2 accelerators", [0, 100], [0.5, 0.8]),
                               ("1024", [0, 100], [0.5, 0.6])]


@pytest.mark.parametrize("stage, column, value", [
    ("train", "num_accelerators", "2"), ("train", "optimizer", "sgd"), ("train", "seed", "5"), ("train", "epochs", "9"),
    ("train", "learning_rate", "0.5"), ("train", "device", "H200"), ("train", "tensorflow", "1.15.5"),
    ("train", "max_steps", "5"), ("train", "eval_every", "5"), ("train", "profile", "yes"), ("infer", "num_ads", "100"),
    ("infer", "optimizer", "sgd"), ("infer", "duration", "5"), ("infer", "max_steps", "5")])
def test_runs_that_were_made_otherwise_are_no_part_of_a_line(tmp_path, plot_log, stage, column, value):
    write_rows(tmp_path, stage, {}, {"batch_size": "512", "trained_batch_size": "512", column: value},
               {"model": "pnn"})
    report.make_report(str(tmp_path))
    labels = {"din, %s %s" % (heading(column), text): x for text, x in ((ROWS[stage][column], [256]), (value, [512]))}
    lines = [(label, x) for label, x, _ in plot_log[0][:9]]  # of the throughputs
    assert {label: x for label, x in lines if label.startswith("din")} == labels
    assert sum(label.startswith("pnn") for label, _ in lines) == 3  # a line in each panel


def test_the_inference_of_a_script_is_one_line_although_each_size_has_its_training(tmp_path, plot_log):
    write_rows(tmp_path, "infer", *[{"batch_size": size, "trained_batch_size": size} for size in ("256", "512")])
    report.make_report(str(tmp_path))
    assert plot_log[0][0][:2] == ("din", [256, 512])


@pytest.mark.parametrize("stage, column", [("train", "max_steps"), ("infer", "num_ads")])
def test_rows_of_an_earlier_version_that_differ_in_what_was_counted_are_no_line(tmp_path, plot_log, stage, column):
    """A training of 1,032 steps and one of 5; inference with 2 and with 100 candidates."""
    write_rows(tmp_path, stage, {column: ""}, {column: "", "batch_size": "512", "recommendations": "1280"})
    report.make_report(str(tmp_path))
    assert [x for _, x, _ in plot_log[0][:2]] == [[512], [256]]


def test_curves_of_runs_that_were_made_otherwise_have_lines_of_their_own(tmp_path, plot_log):
    write_rows(tmp_path, "curves", *(curve((0.5, 0.6)) + curve((0.5, 0.7), optimizer="sgd")))
    report.make_report(str(tmp_path))
    assert plot_log[0][:2] == [("din, optimizer adam", [0, 100], [0.5, 0.6]), ("din, optimizer sgd", [0, 100],
                                                                                [0.5, 0.7])]


def test_data_sets_are_kept_apart_and_samples_are_marked(tmp_path, plot_log):
    for stage in COLUMNS:
        write_rows(tmp_path, stage, {"dataset": "amazon_electronics"}, {"batch_size": "1024"})
    report.make_report(str(tmp_path))
    lines, titles = plot_log
    assert lines and all(len(x) == 1 for _, x, _ in lines)
    page = Page(tmp_path)
    marked, unmarked = "sample_small (generated sample, no real data)", "amazon_electronics"
    assert "Partly sample data. sample_small: " in page.text
    assert page.headings == [
        unmarked, "Training, how fast: " + unmarked, "Training, how good: " + unmarked, "Inference: " + unmarked,
        "Search, on the validation set: " + unmarked,
        marked, "Training, how fast: " + marked, "Training, how good: " + marked, "Inference: " + marked,
        "Search, on the validation set: " + marked, "Published figures", "Published, Amazon Electronics"]
    assert [title.splitlines()[1] for title in titles] == [unmarked] * 4 + [marked] * 4
    assert len([path for path in tmp_path.glob("*_sample_small.png")]) == 4


def test_real_data_alone_has_no_banner_of_a_sample(tmp_path):
    write_rows(tmp_path, "train", {"dataset": "amazon_electronics"})
    report.make_report(str(tmp_path))
    assert "sample" not in re.sub(r"base64,[^\"]*|<style>.*</style>", "", Page(tmp_path).source, flags=re.DOTALL)


@pytest.mark.parametrize("stages", [("train",), ("infer",), ("curves",), ("train", "infer"), ("train", "curves"),
                                    ("infer", "curves")])
def test_any_csv_may_be_missing_or_have_one_row(tmp_path, stages):
    for stage in stages:
        write_rows(tmp_path, stage, {})
    report.make_report(str(tmp_path))
    page = Page(tmp_path)
    assert len(page.images()) == sum({"train": 1, "infer": 2, "curves": 1}[stage] for stage in stages)
    assert [stage for stage in COLUMNS if csv_name(stage) + " of " in page.text] == [
        stage for stage in COLUMNS if stage in stages]


def test_the_page_says_which_machine_and_when(tmp_path):
    write_rows(tmp_path, "train", {}, {"batch_size": "512", "device": "NVIDIA H200"})
    os.utime(str(tmp_path / "results_train.csv"), (1e9, 1e9))
    report.make_report(str(tmp_path))
    text = Page(tmp_path).text
    assert "Machine: CPU AMD EPYC (2 cores), TensorFlow 2.21.0" in text
    assert "Machine: NVIDIA H200, TensorFlow 2.21.0" in text
    assert re.search(r"results_train.csv of 2001-09-\d\d \d\d:\d\d: 2 rows", text)


@pytest.mark.filterwarnings("error")
def test_hostile_text_is_shown_letter_by_letter(tmp_path):
    names = {"model": "_" + HOSTILE, "dataset": "../" + HOSTILE + "\n\x00数", "device": HOSTILE, "tensorflow": HOSTILE}
    for stage in COLUMNS:
        write_rows(tmp_path, stage, *[
            {column: value + ending for column, value in names.items() if column in COLUMNS[stage]}
            for ending in ("", "?")])
    if sys.version_info < (3, 11):  # whose csv module takes no NUL
        for stage in COLUMNS:
            path = tmp_path / csv_name(stage)
            path.write_bytes(path.read_bytes().replace(b"\0", b"\1"))
    report.make_report(str(tmp_path))
    page = Page(tmp_path)
    assert "script" not in page.tags and {name for _, name, _ in page.attributes} <= {
        "lang", "charset", "name", "content", "class", "role", "src", "alt", "tabindex", "scope"}
    assert [row["model"] for title in page.tables if title.startswith("Training, how") for row in page.rows(title)] == [
        "_" + HOSTILE] * 2 + ["_" + HOSTILE + "?"] * 2
    assert len(list(tmp_path.glob("*.png"))) == len(page.images()) == 8
    assert len(list(tmp_path.iterdir())) == 8 + 1 + len(COLUMNS)


@pytest.mark.parametrize("stage, column, value", [
    ("train", "system_recommendations_per_second", "fast"), ("train", "batch_size", "0"),
    ("infer", "num_workers", "1.0"), ("infer", "batch_size", "256.0"),
    ("infer", "latency_ms_p99", "nan"), ("infer", "gauc", "-0.5"), ("curves", "seconds", "inf"), ("curves", "step", ""),
    ("train", "final_loss", "1e300")])
def test_a_report_that_fails_leaves_the_old_one(folder_copy, monkeypatch, stage, column, value):
    write_rows(folder_copy, stage, {}, {column: value})
    before = contents(folder_copy)
    assert error_of(report.main, monkeypatch, "--results", folder_copy) == (
        "error: %s has %r as a %s; mend it or move it away" % (folder_copy / csv_name(stage), value, column))
    assert contents(folder_copy) == before


def test_a_report_that_can_not_be_drawn_leaves_the_old_one(folder_copy, monkeypatch):
    write_rows(folder_copy, "infer", {"batch_size": "2048"})
    before = contents(folder_copy)
    monkeypatch.setattr(figures, "learning_curves", lambda rows: 1 / 0)  # the last of the plots
    with pytest.raises(ZeroDivisionError):
        report.make_report(str(folder_copy))
    assert contents(folder_copy) == before


def test_no_results_at_all_is_an_error(tmp_path, monkeypatch):
    assert error_of(report.main, monkeypatch, "--results", tmp_path / "none") == (
        "error: no results in %s; run ./run.sh, or name their folder: --results FOLDER" % (tmp_path / "none"))
    assert not list(tmp_path.iterdir())


def test_the_users_matplotlibrc_changes_nothing(tmp_path):
    write_rows(tmp_path, "train", {})
    report.make_report(str(tmp_path))
    before = (tmp_path / "throughput_training_sample_small.png").read_bytes()
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\nbackend: TkAgg\n")
    subprocess.run([sys.executable, "-m", "utils.report", "--results", str(tmp_path)], check=True, cwd=ROOT,
                   env=dict(os.environ, MATPLOTLIBRC=str(tmp_path)))
    assert (tmp_path / "throughput_training_sample_small.png").read_bytes() == before


def test_training_and_inference_do_without_matplotlib():
    subprocess.run([sys.executable, "-c", "import sys, utils.commands, utils.train_loop, utils.infer_loop\n"
                    "sys.exit('matplotlib' in sys.modules)"], check=True, cwd=ROOT)
