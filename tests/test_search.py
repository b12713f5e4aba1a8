"""The hyperparameter search: which trials are trained how far, what chooses the best, what an interruption loses."""
import json
import os
import subprocess
import sys

import pytest

from tests.helpers import Folder, random_dataset, results_of
from tests.rows import TRAIN, error_of
from utils import models, search
from utils.commands import train_parser
from utils.dataset import write_dataset
from utils.files import UserError
from utils.results import POINT, SEARCH_COLUMNS, add_rows, csv_name, read_rows
from utils.runs import trial, unfinished
from utils.runs.identity import fresh_state, unknown_part
from utils.runs.locks import acquire
from utils.script_arguments import check_arguments

DATASET = random_dataset()
VALIDATED = ("--batch_size", 64, "--epochs", 2, "--eval_every", 7, "--selection", "validation")


class Trainings:
    """Stands in for the trials' processes: leaves what train.py does, a curve with a GAUC that `gaucs` has by trial.

    `calls` has (trial, epochs, whether the test set is left out) of each; `failures` the errors of trials.
    """

    def __init__(self, gaucs, failures=()):
        self.gaucs, self.failures, self.calls, self.interrupted_at = gaucs, dict(failures), [], None

    def __call__(self, command, folder, log_path, lock):
        words = train_parser(folder, "", "sgd", dict.fromkeys(search.LEARNING_RATES, 1.0)).parse_args(command[2:])
        number = int(words.save_path.rpartition("_")[2])
        if len(self.calls) == self.interrupted_at:
            self.interrupted_at = None
            raise KeyboardInterrupt
        self.calls.append((number, words.epochs, words.skip_test))
        if (number, words.epochs) in self.failures:
            return self.failures[number, words.epochs]
        points = [dict.fromkeys(POINT, 0.0)] + [
            dict(dict.fromkeys(POINT, 0.5), step=epoch, recommendations=epoch * self.examples,
                 gauc=self.gaucs[number] + 0.001 * epoch) for epoch in range(1, words.epochs + 1)]
        with open(os.path.join(words.save_path, "state.json"), "w") as file:
            json.dump({"run": {"parts": [unknown_part({})]}, "state": dict(fresh_state(), step=words.epochs),
                       "curve": points}, file)
        if not words.skip_test:
            with open(os.path.join(os.path.dirname(words.save_path), search.SETTINGS)) as file:
                data = json.load(file)["data"]
            add_rows(words.results, {"curves": [], "train": [dict(
                TRAIN, dataset_fingerprint=data, optimizer=words.optimizer, learning_rate=words.lr,
                batch_size=words.batch_size, eval_every=words.eval_every, epochs=words.epochs, steps=words.epochs,
                best_step=words.epochs, selected_on="validation", validation_gauc="%.6f" % points[-1]["gauc"])]})
        return None


@pytest.fixture
def searching(tmp_path, monkeypatch):
    """A function of trials' GAUCs that makes Trainings, which the searches in `run` then have."""
    write_dataset(str(tmp_path / "dataset.pkl"), DATASET)
    monkeypatch.setattr(models.Place, "save_path", property(lambda _: str(tmp_path / "save_path")))

    def start(*gaucs, **failures):
        trainings = Trainings(gaucs, **failures)
        trainings.examples = len(search.hold_out_validation(DATASET)[0].train.items)
        monkeypatch.setattr(trial, "run_process", trainings)
        return trainings

    def run(trials, epochs=3, halving=3, seed=0):
        search.search("din", trials, epochs, halving, seed, str(tmp_path / "dataset.pkl"), str(tmp_path / "results"))
        return read_rows(str(tmp_path / "results"), "search")
    start.run = run
    return start


def test_a_trials_flags_follow_from_the_searchs_seed_and_its_number_and_are_of_the_space():
    drawn = [search.flags_of(7, number, ["adam", "sgd"], 10000) for number in range(200)]
    assert drawn[:50] == [search.flags_of(7, number, ["adam", "sgd"], 10000) for number in range(50)]
    assert drawn[0] != search.flags_of(8, 0, ["adam", "sgd"], 10000)
    assert {flags["batch_size"] for flags in drawn} == set(search.BATCH_SIZES)
    for optimizer in ("adam", "sgd"):
        low, high = search.LEARNING_RATES[optimizer]
        rates = [flags["learning_rate"] for flags in drawn if flags["optimizer"] == optimizer]
        assert low <= min(rates) < low * 1.5 and high / 1.5 < max(rates) <= high
        assert abs(sum(rate < (low * high) ** 0.5 for rate in rates) / len(rates) - 0.5) < 0.2


@pytest.mark.parametrize("trials, epochs, halving, rungs", [
    (20, 9, 3, [(1, 20), (3, 6), (9, 2)]), (20, 9, 1, [(9, 20)]), (4, 10, 3, [(1, 4), (3, 1), (10, 1)]),
    (8, 2, 3, [(2, 8)]), (8, 8, 2, [(1, 8), (2, 4), (4, 2), (8, 1)])])
def test_each_rung_has_a_share_of_the_trials_and_a_multiple_of_the_epochs(trials, epochs, halving, rungs):
    assert search.rungs_of(trials, epochs, halving) == rungs


def test_the_best_on_validation_go_on_and_the_best_of_them_alone_is_tested(searching, capsys):
    trainings = searching(0.6, 0.5, 0.7, 0.65)
    rows = searching.run(4, epochs=4, halving=2)
    assert trainings.calls == [(0, 1, True), (1, 1, True), (2, 1, True), (3, 1, True), (2, 2, True), (3, 2, True),
                               (2, 4, True), (2, 4, False)]
    assert [(row["trial"], row["epochs"], row["validation_gauc"]) for row in rows] == [
        ("2", "4", "0.704000"), ("3", "2", "0.652000"), ("0", "1", "0.601000"), ("1", "1", "0.501000")]
    output = capsys.readouterr().out
    flags = search.flags_of(0, 2, sorted(search.LEARNING_RATES), trainings.examples)
    assert "The best is trial 2: validation GAUC 0.7040, test GAUC %.4f; " % float(TRAIN["best_gauc"]) in output
    assert 'SEEDS="1 2 3 4 5" BATCH_SIZES=%d EPOCHS=4 MODELS=din ./train.sh --optimizer %s --lr %s ' % (
        flags["batch_size"], flags["optimizer"], flags["learning_rate"]) in output


def test_a_trial_that_fails_is_a_row_without_a_figure_and_ends_nothing(searching):
    failures = {(0, 1): "the loss is nan at step 3", (2, 3): "killed"}
    trainings = searching(0.6, 0.5, 0.7, 0.4, 0.3, 0.2, failures=failures)
    rows = searching.run(6)
    assert [(row["trial"], row["validation_gauc"], row["error"]) for row in rows] == [
        ("1", "0.503000", ""), ("3", "0.401000", ""), ("4", "0.301000", ""), ("5", "0.201000", ""),
        ("0", "", "the loss is nan at step 3"), ("2", "", "killed")]
    calls = list(trainings.calls)
    assert searching.run(6) == rows and trainings.calls == calls


def test_a_search_without_any_trial_that_ends_says_why(searching, tmp_path):
    searching(0.6, 0.6, failures={(0, 1): "the first reason", (1, 1): "another"})
    with pytest.raises(UserError, match="no trial of 2 came to its end, the first for this: the first reason; see "):
        searching.run(2, epochs=1)
    assert [row["error"] for row in read_rows(str(tmp_path / "results"), "search")] == ["the first reason", "another"]


@pytest.mark.parametrize("interrupted_at", [0, 2, 4, 6])
def test_an_interrupted_search_goes_on_with_what_is_left(searching, interrupted_at):
    whole = searching(0.6, 0.5, 0.7, 0.65, 0.1, 0.2)
    whole.interrupted_at = interrupted_at
    with pytest.raises(KeyboardInterrupt):
        searching.run(6)
    rows = searching.run(6)
    assert whole.calls == [(number, 1, True) for number in range(6)] + [(2, 3, True), (3, 3, True), (2, 3, False)]
    assert [row["trial"] for row in rows[:2]] == ["2", "3"]


def test_a_trial_that_was_left_inside_an_epoch_is_first_trained_to_its_end(searching, tmp_path):
    """Its checkpoint may be of a step that its whole epochs do not have."""
    trainings = searching(0.6, 0.7)
    searching.run(2, epochs=1, halving=1)
    path = tmp_path / "save_path" / "search" / "trial_0" / "state.json"
    saved = json.loads(path.read_text())
    saved["curve"].append(dict(saved["curve"][-1], step=2, recommendations=trainings.examples + 5))
    path.write_text(json.dumps(saved))
    trainings.calls.clear()
    searching.run(2, epochs=3, halving=3)
    assert trainings.calls[0] == (0, 2, True)


def test_a_trial_that_was_killed_goes_on_the_next_time(searching):
    trainings = searching(0.6, 0.7, failures={(0, 1): "killed by signal 9"})
    rows = searching.run(2, epochs=1, halving=1)
    assert [row["error"] for row in rows] == ["", "killed by signal 9"]
    trainings.failures.clear()
    assert [row["error"] for row in searching.run(2, epochs=1, halving=1)] == ["", ""]


def test_more_trials_and_more_epochs_add_to_those_that_are_there(searching, tmp_path):
    trainings = searching(0.6, 0.5, 0.7, 0.8)
    searching.run(3, epochs=1)
    del trainings.calls[:]
    rows = searching.run(4, epochs=3)
    assert trainings.calls == [(3, 1, True), (3, 3, True), (3, 3, False)]
    assert [row["trial"] for row in rows] == ["3", "2", "0", "1"]
    with pytest.raises(UserError, match="has trained trial 3 for more than 2 epochs; give more --epochs, or move"):
        searching.run(4, epochs=2)


def test_a_search_with_another_seed_or_space_moves_the_earlier_trials_aside(searching, tmp_path, monkeypatch, capsys):
    searching(0.6, 0.5)
    searching.run(2, epochs=1)
    assert {row["search_seed"] for row in searching.run(2, epochs=1, seed=1)} == {"0", "1"}
    assert "the earlier search, of another seed, is in " in capsys.readouterr().out
    earlier, = tmp_path.glob("save_path/search_*")
    assert (earlier / "trial_1" / "state.json").exists()
    monkeypatch.setattr(search, "BATCH_SIZES", (64,))
    assert len(searching.run(2, epochs=1, seed=1)) == 4
    assert "the earlier search, of another space, is in " in capsys.readouterr().out
    replaced, = tmp_path.glob("results_*")
    assert os.listdir(str(replaced)) == [csv_name("search")]


def test_two_searches_of_a_model_at_a_time_are_refused(searching, tmp_path):
    searching(0.6)
    with acquire(str(tmp_path / "save_path" / "search" / ".lock")), pytest.raises(UserError, match="is at work in "):
        searching.run(1)


def test_a_trial_with_damaged_files_is_named(searching, tmp_path):
    searching(0.6, 0.5)
    searching.run(2, epochs=1)
    (tmp_path / "save_path" / "search" / "trial_1" / "state.json").write_text("{}")
    with pytest.raises(UserError, match="files of trial 1 in .*trial_1 are damaged; delete that folder"):
        searching.run(2, epochs=1)


@pytest.mark.parametrize("code, error", [
    ("print('error: as of before'); import sys; sys.exit('error: lower --lr')", "lower --lr"), ("", None),
    ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"), ("raise ValueError('x')", "ValueError: x"),
    ("import sys; sys.exit(3)", "exit status 3")])
def test_why_a_process_failed_is_the_last_line_that_it_wrote(tmp_path, code, error):
    with acquire(str(tmp_path / ".lock")) as lock:
        for _ in range(2):
            reason = trial.run_process([sys.executable, "-c", code], str(tmp_path), str(tmp_path / "log.txt"), lock)
            assert reason == error


def test_a_process_that_ctrl_c_ended_is_an_interruption(tmp_path):
    with acquire(str(tmp_path / ".lock")) as lock, pytest.raises(KeyboardInterrupt):
        trial.run_process([sys.executable, "-c", "import sys; sys.exit(130)"], str(tmp_path),
                          str(tmp_path / "log.txt"), lock)


def test_a_training_that_skips_the_test_set_is_scored_by_resuming_it_without(tmp_path):
    whole, skipping = Folder(tmp_path / "whole", DATASET), Folder(tmp_path / "skipping", DATASET)
    expected = whole.train(*VALIDATED)
    with pytest.raises(FileNotFoundError):
        skipping.train(*VALIDATED, "--skip_test")
    assert not os.path.exists(os.path.join(skipping.path, "results"))
    assert results_of(skipping.train(*VALIDATED, "--resume")) == results_of(expected)


def test_skipping_the_test_set_needs_another_to_select_on(folder):
    with pytest.raises(UserError, match="--skip_test leaves nothing to select on; give --selection validation"):
        folder.train("--skip_test")
    with pytest.raises(UserError, match="--skip_test leaves no row in the results, which are what train.sh is for"):
        check_arguments("train.sh", ["din"], ["256"], 1, ["--selection", "validation", "--skip_test"])


def test_a_new_benchmark_leaves_what_a_search_gave(tmp_path):
    add_rows(str(tmp_path / "results"), {"search": [dict.fromkeys(SEARCH_COLUMNS, "1")], "train": [TRAIN]})
    unfinished.begin(str(tmp_path / "results"), "run", "settings")
    assert set(os.listdir(str(tmp_path / "results"))) - {".csv.lock", unfinished.MARKS} == {csv_name("search")}


@pytest.mark.parametrize("flags, error", [
    (("--model", "dim"), "error: no model dim; there are "), (("--trials", 3), "the following arguments are required"),
    (("--model", "din", "--trials", 0), "argument --trials: 0 is less than 1"),
    (("--model", "din", "--dataset", "nowhere.pkl"), "nowhere.pkl")])
def test_bad_arguments_are_one_line(flags, error, monkeypatch, tmp_path):
    monkeypatch.setattr(models.Place, "save_path", property(lambda _: str(tmp_path / "save_path")))
    assert error in error_of(search.main, monkeypatch, *flags)
    assert not os.listdir(str(tmp_path))


def test_a_search_through_train_py_itself(project):
    write_dataset(str(project / "din" / "dataset.pkl"), random_dataset(users=150))
    command = [sys.executable, "-m", "utils.search", "--model", "din_dice", "--trials", "2", "--epochs", "1"]
    done = subprocess.run(command, cwd=str(project), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = str(project / "results")
    rows, (best,) = read_rows(results, "search"), read_rows(results, "train")
    assert [row["error"] for row in rows] == ["", ""]
    assert rows[0]["validation_gauc"] >= rows[1]["validation_gauc"]
    for column in ("model", "optimizer", "learning_rate", "batch_size", "steps", "validation_gauc", "best_step"):
        assert rows[0][column] == best[column], column
    assert best["selected_on"] == "validation" and best["best_gauc"]
    folder = project / "din" / "save_path" / "dice" / "search" / ("trial_" + rows[0]["trial"])
    assert (folder / "ckpt.index").exists()
    assert done.stdout.splitlines()[-1] == (
        'SEEDS="1 2 3 4 5" BATCH_SIZES=%(batch_size)s EPOCHS=1 MODELS=din_dice ./run.sh --optimizer %(optimizer)s '
        "--lr %(learning_rate)s --eval_every %(eval_every)s --selection validation" % best)
