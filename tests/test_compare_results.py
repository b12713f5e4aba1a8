"""The comparison of folders of results: its figures, what it refuses to compare, and what it writes."""
import csv
import os

import pytest

from tests.comparisons import Comparison
from tests.rows import INFER, TRAIN
from utils.reports.pairs import DIFFERENCES, RATIOS
from utils.results import KEY, csv_name

FASTER = {"train": {"system_recommendations_per_second": "25756.0",
                    "accelerator_recommendations_per_second": "7135.1",
                    "best_gauc": "0.925000", "device": "NVIDIA H200", "tensorflow": "2.13.1"},
          "infer": {"system_recommendations_per_second": "3448.3", "latency_ms_p50": "1.785",
                    "latency_ms_p99": "15.708", "gauc": "0.924000", "device": "NVIDIA H200", "tensorflow": "2.13.1"}}


@pytest.fixture
def comparison(tmp_path, monkeypatch, capsys):
    return Comparison(tmp_path, monkeypatch, capsys)


def test_ratios_and_differences_are_those_of_the_figures(comparison):
    comparison.write("a")
    comparison.write("b", [FASTER["train"]], [FASTER["infer"]])
    rows = comparison.run("a", "b")
    figures = {(row["stage"], row["column"]): row for row in rows}
    assert len(figures) == len(rows) == sum(len(RATIOS[stage] + DIFFERENCES[stage]) for stage in RATIOS)
    for stage, first in (("train", TRAIN), ("infer", INFER)):
        other = dict(first, **FASTER[stage])
        for column in RATIOS[stage] + DIFFERENCES[stage]:
            row = figures[stage, column]
            assert (row["first_value"], row["other_value"], row["flags"]) == (first[column], other[column], "")
            assert (os.path.basename(row["first"]), os.path.basename(row["other"])) == ("a", "b")
            assert all(row[name] == first[name] for name in KEY)
        for column in RATIOS[stage]:
            assert float(figures[stage, column]["ratio"]) == pytest.approx(
                float(other[column]) / float(first[column]), rel=1e-5)
        for column in DIFFERENCES[stage]:
            assert float(figures[stage, column]["difference"]) == pytest.approx(
                float(other[column]) - float(first[column]), abs=1e-6)
    tables = comparison.tables()
    (train,), (infer,) = tables["Training, ratios to A"], tables["Inference, ratios to A"]
    assert train["system recommendations / second"] == "2.00"
    assert train["accelerator recommendations / second"] == "0.250"
    assert (infer["latency ms p50"], infer["latency ms p99"]) == ("0.500", "2.00")
    assert (train["dataset"], train["folder"]) == ("sample_small (generated)", "B")
    (train,), (infer,) = tables["Training, differences from A"], tables["Inference, differences from A"]
    assert (train["best GAUC difference"], train["final GAUC difference"]) == ("+0.000700", "+0.000000")
    assert infer["GAUC difference"] == "-0.000300"
    assert (train["dataset"], train["folder"]) == ("sample_small (generated)", "B")


def test_machines_are_shown_and_the_files_hold_what_is_printed(comparison):
    comparison.write("a")
    comparison.write("b", [FASTER["train"]], [FASTER["infer"]])
    comparison.run("a", "b")
    assert [list(row.values())[2:] for row in comparison.tables()["Comparison of results"]] == [
        ["CPU AMD EPYC (2 cores)", "2.21.0"], ["NVIDIA H200", "2.13.1"]]
    out = comparison.folder / "out"
    written = (out / "comparison.md").read_text(encoding="utf-8")
    assert comparison.text.startswith(written[:written.index("![")]) and written.endswith("](comparison.png)\n")
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("column, value", [
    ("epochs", "3"), ("optimizer", "sgd"), ("learning_rate", "1.0"), ("steps", "600"),
    ("recommendations", "1000"), ("max_steps", "5"), ("eval_every", "5"), ("profile", "yes"),
    ("dataset_fingerprint", "fedcba9876543210"), ("selected_on", "validation"), ("patience", "3"),
    ("target_gauc", "0.85")])
def test_rows_that_were_made_otherwise_are_listed_and_not_compared(comparison, column, value):
    comparison.write("a", [{}, {"model": "pnn"}], ())
    comparison.write("b", [{column: value}, {"model": "pnn"}], ())
    rows = comparison.run("a", "b")
    name = column.replace("_", " ").replace("gauc", "GAUC")
    text = "%s %s and %s" % (name, TRAIN[column], value)
    assert {(row["model"], row["flags"]) for row in rows} == {("din", text), ("pnn", "")}
    for row in rows:
        assert bool(row["ratio"] or row["difference"]) == (row["model"] == "pnn")
    tables = comparison.tables()
    assert [row["model"] for row in tables["Training, ratios to A"]] == ["pnn"]
    assert [row["A's and the folder's"] for row in tables["Not comparable"]] == [text]

    rows = comparison.run("a", "b", "--anyway")
    assert all(row["ratio"] or row["difference"] for row in rows)
    tables = comparison.tables()
    for heading in ("Training, ratios to A", "Training, differences from A"):
        assert [row["folder"] for row in tables[heading]] == ["B (not comparable)", "B"]
    assert len(tables["Not comparable"]) == 1


def flags_of_inference(comparison, *arguments):
    """{model: why the rows of inference are not comparable}."""
    return {row["model"]: row["flags"] for row in comparison.run("a", "b", *arguments) if row["stage"] == "infer"}


def test_inference_with_another_training_is_not_compared_whether_the_training_is_there_or_not(comparison):
    """Adam and SGD had their best GAUC at the same step: best steps are multiples of --eval_every."""
    for trained in ({}, {"optimizer": "sgd", "learning_rate": "1.0"}):
        comparison.write("a", [dict(trained, seed="77")], [{"model": "din"}, {"model": "pnn", "epochs": "4"}])
        comparison.write("b", (), [dict(trained, model="din"), {"model": "pnn", "epochs": "5"}])
        assert flags_of_inference(comparison) == {
            "din": trained and "trained with optimizer adam and sgd; trained with learning rate 0.001 and 1.0" or "",
            "pnn": "trained with epochs 4 and 5"}


@pytest.mark.parametrize("changes, flags", [
    ({"num_ads": "100", "recommendations": "1000000"}, "ads 2 and 100; recommendations 20000 and 1000000"),
    ({"candidate_seed": "5"}, "candidate seed none and 5"), ({"duration": "5"}, "duration steady and 5"),
    ({"trained_batch_size": "512"}, "trained batch size 256 and 512"),
    ({"trained_steps": "100"}, "trained steps 1032 and 100"), ({"eval_every": "5"}, "trained with eval every "
                                                                        "1000 and 5")])
def test_inference_that_was_made_otherwise_is_not_compared(comparison, changes, flags):
    comparison.write("a", (), [{}])
    comparison.write("b", (), [changes])
    assert flags_of_inference(comparison)["din"].startswith(flags)


def test_inference_of_the_same_duration_is_compared_however_much_was_scored(comparison):
    comparison.write("a", (), [{"duration": "5", "recommendations": "520512"}])
    comparison.write("b", (), [{"duration": "5", "recommendations": "502560"}])
    assert flags_of_inference(comparison) == {"din": ""}


def test_inference_on_each_machine_with_what_was_trained_there_is_compared(comparison):
    comparison.write("a", (), [{}])
    comparison.write("b", (), [{"device": "NVIDIA H100", "trained_on": "NVIDIA H100, TensorFlow 2.21.0"}])
    assert flags_of_inference(comparison) == {"din": ""}


def test_earlier_inference_takes_its_flags_from_no_training_of_this_version(comparison):
    comparison.write("a", [{"epochs": "7"}], [{}])
    cut_columns(comparison.folder / "a" / csv_name("infer"), 17)
    comparison.write("b", (), [{}])
    assert flags_of_inference(comparison)["din"].startswith("trained with epochs unknown and 2; ")


def test_inference_with_checkpoints_of_unknown_trainings_is_not_compared(comparison):
    unknown = {"epochs": "", "optimizer": "", "learning_rate": "", "seed": ""}
    for folder in "ab":
        comparison.write(folder, (), [unknown])
    assert flags_of_inference(comparison)["din"].startswith("trained with epochs unknown and unknown; trained")
    assert flags_of_inference(comparison, "--anyway")["din"] != ""


SWEEP = [{"optimizer": optimizer, "eval_every": spacing, "best_gauc": "0.%s%s" % (spacing, len(optimizer))}
         for optimizer in ("sgd", "adam") for spacing in ("1", "2")]


def test_each_run_of_a_sweep_is_compared_with_its_like(comparison):
    comparison.write("a", SWEEP, ())
    comparison.write("b", SWEEP[::-1] + [{"optimizer": "sgd", "eval_every": "3"}], ())
    rows = [row for row in comparison.run("a", "b") if row["column"] == "best_gauc"]
    assert [row["run"] for row in rows] == ["optimizer adam, eval every 2", "optimizer adam, eval every 1",
                                            "optimizer sgd, eval every 2", "optimizer sgd, eval every 1"]
    assert all(row["first_value"] == row["other_value"] and row["flags"] == "" for row in rows)
    tables = comparison.tables()
    assert [row["run"] for row in tables["Training, ratios to A"]] == [row["run"] for row in rows]
    assert [row["where"] for row in tables["Not in every folder"]] == ["only in B, with optimizer sgd, eval every 3"]


def test_runs_that_the_first_folder_lacks_are_told_apart_by_their_flags(comparison):
    comparison.write("a", [{"model": "pnn"}], ())
    comparison.write("b", [{}, {"model": "pnn"}], ())
    comparison.write("c", [{"patience": "3", "device": "NVIDIA H100"}, {"model": "pnn"}], ())
    comparison.run("a", "b", "c")
    assert [row["where"] for row in comparison.tables()["Not in every folder"]] == [
        "only in B, with patience 0", "only in C, with patience 3"]


def test_the_rows_of_two_machines_in_one_folder_are_both_compared(comparison):
    comparison.write("a", infer=())
    comparison.write("b", [{"device": "NVIDIA H100"}, {"device": "NVIDIA H200"}], ())
    rows = [row for row in comparison.run("a", "b") if row["column"] == "best_gauc"]
    assert [(row["run"], row["flags"]) for row in rows] == [("device NVIDIA H100", ""), ("device NVIDIA H200", "")]
    rows = [row for row in comparison.run("b", "a") if row["column"] == "best_gauc"]
    assert [row["run"] for row in rows] == ["device NVIDIA H100"]
    assert comparison.tables()["Not in every folder"][0]["where"] == "only in A, with device NVIDIA H200"


def test_other_data_are_not_compared(comparison):
    comparison.write("a", infer=())
    comparison.write("b", [{"dataset": "amazon_electronics"}], ())
    assert comparison.run("a", "b") == []
    assert [(row["dataset"], row["where"]) for row in comparison.tables()["Not in every folder"]] == [
        ("amazon_electronics", "only in B; A has it on sample_small"),
        ("sample_small (generated)", "only in A; B has it on amazon_electronics")]


def test_a_comparison_of_nothing_removes_the_plot_of_an_earlier_one(comparison):
    comparison.write("a")
    comparison.write("b")
    comparison.write("c", [{"epochs": "5"}], ())
    comparison.run("a", "b")
    comparison.run("a", "c")
    assert sorted(os.listdir(str(comparison.folder / "out"))) == ["comparison.csv", "comparison.md"]


def test_each_of_several_folders_is_compared_with_the_first_and_lone_rows_are_listed(comparison):
    comparison.write("a", [{"model": model} for model in ("din", "pnn")])
    comparison.write("b", [{"model": model} for model in ("din", "wide_deep")], ())
    comparison.write("c", [{"model": "wide_deep"}, {"model": "din", "system_recommendations_per_second": "12878.0"}])
    rows = comparison.run("b", "a", "c")
    assert {(os.path.basename(row["first"]), os.path.basename(row["other"]), row["model"]) for row in rows} == {
        ("b", "a", "din"), ("b", "c", "din"), ("b", "c", "wide_deep")}
    assert [(row["stage"], row["model"], row["where"]) for row in comparison.tables()["Not in every folder"]] == [
        ("training", "pnn", "only in B"), ("training", "wide_deep", "only in A and C"),
        ("inference", "din", "only in B and C")]


def test_a_figure_of_0_has_no_ratio(comparison):
    comparison.write("a", (), [{"latency_ms_p50": "0.000"}])
    comparison.write("b", (), [{}])
    rows = comparison.run("a", "b")
    assert [row["column"] for row in rows if not row["ratio"] + row["difference"]] == ["latency_ms_p50"]
    assert comparison.tables()["Inference, ratios to A"][0]["latency ms p50"] == "-"


def test_hostile_text_breaks_no_table(comparison):
    hostile = {"model": "<b>|`$x^{$\\|", "dataset": "*a*\n| [b](c)", "device": "<script>\n\x1b[31m"}
    comparison.write("a", [hostile], [hostile])
    comparison.write("b", [hostile], [hostile])
    rows = comparison.run("a", "b")
    assert {row["model"] for row in rows} == {hostile["model"]}
    row, = comparison.tables()["Training, ratios to A"]
    assert row["model"] == r"&lt;b&gt;\|\`$x^{$\\\|" and row["dataset"] == r"\*a\* \| \[b\](c)"
    assert "<" not in comparison.text and "\x1b" not in comparison.text


def test_errors_are_one_line_and_write_nothing(comparison):
    comparison.write("a")
    (comparison.folder / "empty").mkdir()
    comparison.write("twice", [{}, {"best_gauc": "0.5"}])
    comparison.write("damaged", [{"best_gauc": "good"}])
    path = str(comparison.folder) + os.sep
    names = "name folders with results_train.csv or results_infer.csv"
    assert comparison.error("a") == "error: there is one folder; name two or more to compare"
    assert comparison.error("a", "none") == "error: there is no folder %snone; %s" % (path, names)
    assert comparison.error("a", "empty") == "error: there are no results in %sempty; %s" % (path, names)
    assert comparison.error("a", "a") == "error: the same folder is given twice; name different folders"
    assert comparison.error("a", "twice") == (
        "error: %stwice/results_train.csv has two rows of one run, with the same flags on the same machine; leave one"
        % path)
    assert comparison.error("a", "damaged") == (
        "error: %sdamaged/results_train.csv has 'good' as a best_gauc; mend it or move it away" % path)
    assert not (comparison.folder / "out").exists()


def cut_columns(path, count, *names):
    """Leaves the first `count` columns of a CSV, without those named, as an earlier version wrote it."""
    with open(str(path), newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [column for column in list(rows[0])[:count] if column not in names]
    with open(str(path), "w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("dropped", [[], ["num_workers"]])
def test_results_of_earlier_versions_are_compared_with_each_other(comparison, dropped):
    for folder in "ab":
        comparison.write(folder, [{}, {"model": "pnn", "best_gauc": "0.9"}], [{}, {"model": "pnn"}])
        cut_columns(comparison.folder / folder / csv_name("train"), 23, *dropped)
        cut_columns(comparison.folder / folder / csv_name("infer"), 17, *dropped)
    rows = comparison.run("a", "b")
    assert {row["num_workers"] for row in rows} == {"1"}
    assert {(row["stage"], row["model"]) for row in rows if not row["flags"]} == {
        ("train", "din"), ("train", "pnn"), ("infer", "din")}, "pnn's training had its best at that step, but another"
    assert [row["steady recommendations / second"] for row in comparison.tables()["Training, ratios to A"]] == ["-"] * 2
    assert ("\nAn earlier version did not write these, which are taken for the same: max steps, eval every, parts, "
            "dataset fingerprint, profile, ads, candidate seed, duration.\n") in comparison.text
    comparison.write("b")
    assert {row["flags"] for row in comparison.run("a", "b") if row["stage"] == "train"} == {
        "max steps unknown and 0; eval every unknown and 1000; parts unknown and none; dataset fingerprint unknown and "
        "0123456789abcdef; profile unknown and no"}
    assert "An earlier version" not in comparison.text
