"""Whether a comparison tells a difference from noise: over seeds, over the test users of two runs, or not at all."""
import base64

import numpy as np
import pytest
from scipy import stats

from tests.comparisons import Comparison
from utils.reports.statistics import CONFIDENCE, mcnemar, welch
from utils.results import is_learnt
from utils.runs.outcomes import store_outcomes

TABLE = "Training, differences from A"
GAUCS = ("0.9243", "0.9251", "0.9238", "0.9247")
MISSING = "not tested: no outcomes in "


@pytest.fixture
def comparison(tmp_path, monkeypatch, capsys):
    return Comparison(tmp_path, monkeypatch, capsys)


def seeds(first_seed, gaucs=GAUCS, **changes):
    """Rows of training that differ in their seed and best GAUC alone."""
    return [dict(changes, seed=str(first_seed + index), best_gauc=gauc) for index, gauc in enumerate(gaucs)]


def store(comparison, name, right):
    """Stores the outcomes `right`, bool [U], in a folder; returns what a row says of them."""
    text = base64.b64encode(np.packbits(right).tobytes()).decode()
    outcomes = store_outcomes(str(comparison.folder / name), text, len(right))
    return {"best_gauc": "%.6f" % right.mean(), "outcomes": outcomes}


def two_runs(comparison, gauc, other_gauc, users=4000, **changes):
    """Writes a run into folder a and one into b, of independent outcomes with about these GAUCs; returns outcomes."""
    random = np.random.RandomState(5)
    right = [random.uniform(size=users) < share for share in (gauc, other_gauc)]
    comparison.write("a", [dict(store(comparison, "a", right[0]), seed="1")], ())
    comparison.write("b", [dict(store(comparison, "b", right[1]), seed="2", **changes)], ())
    return right


def row_of(rows, column="best_gauc"):
    row, = [row for row in rows if row["column"] == column]
    return row


def test_no_difference_is_seen_between_folders_that_differ_in_the_seed_alone(comparison):
    comparison.write("a", seeds(1), ())
    comparison.write("b", seeds(5, ("0.9245", "0.9236", "0.9253", "0.9249")), ())
    row = row_of(comparison.run("a", "b"))
    assert (row["verdict"], row["test"], row["flags"]) == ("no difference seen", "Welch, over seeds", "")
    assert (row["first_seeds"], row["other_seeds"]) == ("4", "4")
    assert float(row["low"]) < 0 < float(row["high"])
    cells, = comparison.tables()[TABLE]
    assert cells["best GAUC, 95% interval"].startswith("no difference seen (-0.00") and cells["seeds"] == "4 and 4"
    assert "higher" not in comparison.text


@pytest.mark.parametrize("order, letter, higher", [("ab", "B", "other higher"), ("ba", "A", "first higher")])
def test_a_difference_that_seeds_do_not_explain_is_seen(comparison, order, letter, higher):
    gaucs = "0.9305", "0.9312", "0.9301"
    comparison.write("a", seeds(1), ())
    comparison.write("b", seeds(1, gaucs), ())
    row = row_of(comparison.run(*order))
    means = np.mean([float(gauc) for gauc in GAUCS]), np.mean([float(gauc) for gauc in gaucs])
    sign = 1 if order == "ab" else -1
    assert float(row["difference"]) == pytest.approx(sign * (means[1] - means[0]), abs=1e-6)
    assert float(row["first_value"]) == pytest.approx(means[order[0] == "b"])
    low, high = sorted(abs(float(row[bound])) for bound in ("low", "high"))
    assert row["verdict"] == higher and 0.004 < low < 0.0061 < high < 0.009
    cells, = comparison.tables()[TABLE]
    assert cells["best GAUC, 95% interval"] == "%s higher by %.4f to %.4f" % (letter, low, high)
    assert cells["best AUC, 95% interval"].startswith("no difference seen")


def test_no_difference_over_users_is_seen_between_two_runs_that_are_as_good(comparison):
    two_runs(comparison, 0.9, 0.9)
    row = row_of(comparison.run("a", "b"))
    assert (row["verdict"], row["test"]) == ("no difference seen", "McNemar, over users")
    assert "about these two runs alone and not about the models" in comparison.text
    assert "higher" not in comparison.text


def test_a_difference_over_users_is_seen_and_is_of_their_outcomes(comparison):
    right, other = two_runs(comparison, 0.85, 0.9)
    row = row_of(comparison.run("a", "b"))
    assert float(row["difference"]) == pytest.approx(other.mean() - right.mean(), abs=2e-6)
    assert row["verdict"] == "other higher"
    assert 0 < float(row["low"]) < float(row["difference"]) < float(row["high"]) < float(row["low"]) + 0.04
    cells, = comparison.tables()[TABLE]
    assert cells["best GAUC, 95% interval"] == "B higher by %.4f to %.4f" % (float(row["low"]), float(row["high"]))
    assert "best AUC, 95% interval" not in cells, "outcomes say nothing of AUC"


def test_bounds_over_seeds_are_where_welchs_test_gives_one_in_twenty():
    random = np.random.RandomState(1)
    for _ in range(50):
        first, other = (random.normal(0.9, random.uniform(1e-4, 1e-2), random.randint(2, 8)) for _ in range(2))
        interval = welch(first, other)
        for bound in (interval.low, interval.high):
            assert stats.ttest_ind(other - bound, first, equal_var=False).pvalue == pytest.approx(1 - CONFIDENCE)
        assert interval.leaves_out_zero == (stats.ttest_ind(other, first, equal_var=False).pvalue < 1 - CONFIDENCE)


def test_a_difference_over_users_is_seen_just_where_the_exact_binomial_test_sees_one():
    random, seen = np.random.RandomState(2), []
    for _ in range(200):
        first, other = (random.uniform(size=300) < random.uniform(0.8, 0.9) for _ in range(2))
        only_other, only_first = np.sum(other & ~first), np.sum(first & ~other)
        interval = mcnemar(first, other)
        assert interval.difference == pytest.approx(other.mean() - first.mean())
        assert interval.low <= interval.difference <= interval.high
        p = stats.binomtest(int(only_other), int(only_other + only_first)).pvalue
        assert interval.leaves_out_zero == (p < 1 - CONFIDENCE)
        seen.append(interval.leaves_out_zero)
    assert 0 < sum(seen) < len(seen)


def test_of_seeds_of_the_same_one_comparison_in_twenty_sees_a_difference():
    draws = np.random.RandomState(3).normal(0.92, 0.001, (2000, 2, 5))
    share = np.mean([welch(first, other).leaves_out_zero for first, other in draws])
    assert 0.03 < share < 0.065


def test_one_run_against_several_seeds_is_not_tested(comparison):
    comparison.write("a", seeds(1, GAUCS[:1]), ())
    comparison.write("b", seeds(2), ())
    row = row_of(comparison.run("a", "b"))
    assert (row["verdict"], row["test"], row["low"]) == ("not tested: two seeds needed on both sides", "", "")
    assert float(row["difference"]) == pytest.approx(np.mean([float(gauc) for gauc in GAUCS]) - float(GAUCS[0]))
    assert "both sides need two seeds; train the one again with another --seed." in comparison.text


def test_runs_without_their_outcomes_are_not_tested_and_it_is_said_what_to_do(comparison):
    two_runs(comparison, 0.9, 0.9)
    (comparison.folder / "b" / "outcomes").rename(comparison.folder / "b" / "moved")
    assert row_of(comparison.run("a", "b"))["verdict"] == MISSING + "B"
    assert "For a test over users, copy the folder outcomes of the results" in comparison.text
    comparison.write("b", [{"outcomes": ""}], ())
    assert row_of(comparison.run("a", "b"))["verdict"] == "not tested: no outcomes"
    assert "An earlier version did not write which users a run ranked right" in comparison.text


def test_runs_on_other_data_are_not_tested_over_users(comparison):
    two_runs(comparison, 0.85, 0.9, dataset_fingerprint="fedcba9876543210")
    row = row_of(comparison.run("a", "b", "--anyway"))
    assert (row["verdict"], row["test"]) == ("not tested: other data", "") and row["difference"]


def test_outcomes_that_cannot_be_compared_end_in_one_line_and_write_nothing(comparison):
    two_runs(comparison, 0.9, 0.9)
    comparison.write("b", [store(comparison, "b", np.ones(40, bool))], ())
    paths = str(comparison.folder / "a"), str(comparison.folder / "b")
    assert comparison.error("a", "b") == ("error: %s and %s have outcomes of 4000 and 40 users of the same data; train "
                                          "or infer one of them again" % paths)
    for path in (comparison.folder / "b" / "outcomes").iterdir():
        path.write_bytes(b"PK damaged")
    assert comparison.error("a", "b").endswith("move it away")
    assert not (comparison.folder / "out").exists()


def test_a_ratio_that_may_be_noise_is_marked_and_one_that_is_none_is_not(comparison):
    column, steady = "system_recommendations_per_second", "steady_recommendations_per_second"
    comparison.write("a", [{"seed": "1", column: "10000", steady: "50000"}, {"seed": "2", column: "12000"}], ())
    comparison.write("b", [{"seed": "3", column: "10500", steady: "50100"},
                           {"seed": "4", column: "12600", steady: "104400"}], ())
    rows = comparison.run("a", "b")
    assert [row_of(rows, name)["verdict"] for name in (column, steady)] == ["no difference seen"] * 2
    row = row_of(rows, column)
    assert float(row["ratio"]) == pytest.approx(11550 / 11000, rel=1e-5) and row["difference"] == ""
    assert float(row["low"]) < 550 < float(row["high"])
    cells, = comparison.tables()["Training, ratios to A"]
    assert cells["system recommendations / second"] == "~1.05" and "A ratio with ~ before it" in comparison.text

    comparison.write("b", [{"seed": seed, column: rate} for seed, rate in (("3", "99000"), ("4", "98000"))], ())
    assert row_of(comparison.run("a", "b"), column)["verdict"] == "other higher"
    cells, = comparison.tables()["Training, ratios to A"]
    assert cells["system recommendations / second"] == "8.95"
    comparison.write("b", infer=())
    comparison.run("a", "b")
    assert "~" not in comparison.text and "no ratio is tested" in comparison.text


def test_a_comparison_of_runs_that_have_not_learnt_is_marked(comparison):
    floors = [{"popularity_gauc": floor} for floor in ("0.914300", "0.914301")]
    comparison.write("a", floors[:1], [{"gauc": "0.924300"}])
    comparison.write("b", floors[1:], [{"gauc": "0.700000"}])
    comparison.run("a", "b")
    tables = comparison.tables()
    assert tables[TABLE][0]["folder"] == "B (not learnt yet: B)"
    assert tables["Inference, differences from A"][0]["folder"] == "B (not learnt yet: B)"
    assert tables["Training, ratios to A"][0]["folder"] == "B"
    assert "Not learnt yet is a GAUC that is not 0.01 above what item popularity alone gives" in comparison.text
    assert is_learnt({"best_gauc": "0.5", "popularity_gauc": ""}), "an earlier version did not write it"


@pytest.mark.parametrize("ends", [{"patience": "3"}, {"target_gauc": "0.9"}])
def test_trainings_that_end_early_are_compared_however_many_steps_they_took(comparison, ends):
    ended = dict(ends, steps="800", recommendations="204800")
    comparison.write("a", [dict(ends, seed="1"), dict(ended, seed="2")], [dict(ends, seed="1")])
    comparison.write("b", [dict(ended, seed="3")], [dict(ends, seed="3", trained_steps="800")])
    rows = comparison.run("a", "b")
    assert {(row["stage"], row["flags"]) for row in rows} == {("train", ""), ("infer", "")}
    assert row_of([row for row in rows if row["stage"] == "train"])["first_seeds"] == "2"


def test_inference_is_compared_over_the_seeds_of_its_training(comparison):
    for name, first_seed in (("a", 1), ("b", 3)):
        comparison.write(name, (), [{"seed": str(first_seed + index), "gauc": gauc, "checkpoint_step": str(index)}
                                    for index, gauc in enumerate(GAUCS[:2])])
    row = row_of(comparison.run("a", "b"), "gauc")
    assert (row["first_seeds"], row["other_seeds"], row["flags"]) == ("2", "2", "")
    assert (row["verdict"], row["difference"]) == ("no difference seen", "0")
    assert "Not in every folder" not in comparison.tables()
