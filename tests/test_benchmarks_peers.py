"""The benchmark beside DeepCTR: what both sides are given, the figures, the environment, the errors."""
import itertools
import json
import os
import sys

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.peer_deepctr import inputs_of, padded, width_of
from benchmarks.train import batches
from tests.helpers import random_dataset, run_script
from utils.dataset import write_dataset
from utils.files import UserError

DATASET = random_dataset(users=80)

# Stands in for a Python: says its version, makes an environment of itself, and its pip logs what it is told.
PYTHON = """#!/bin/sh
case "$*" in
  -c*) echo {version} ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo made >>{log} ;;
  *) echo "$*" >>{log}; exit {pip_status} ;;
esac
"""


@pytest.fixture
def data(tmp_path):
    write_dataset(str(tmp_path / "dataset.pkl"), DATASET)
    return str(tmp_path / "dataset.pkl")


@pytest.fixture
def fake_python(tmp_path):
    """A function of a version and of pip's exit status; returns the path of a stand-in for such a Python."""
    def make(version="3 10", pip_status=0):
        path = tmp_path / "fake_python"
        path.write_text(PYTHON.format(version=version, pip_status=pip_status, log=tmp_path / "log"))
        path.chmod(0o755)
        return str(path)
    return make


def log_of(folder):
    """The lines that the stand-in logged, in order, and a log that is empty again."""
    path = folder / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    path.write_text("")
    return lines


def histories_of(train):
    return [train.history_items[offset:offset + length].tolist()
            for offset, length in zip(train.offsets, train.lengths)]


# ---- what the sides are given ----------------------------------------------------------------------------------------

def test_a_cut_leaves_the_last_items_of_each_history_in_order_and_nothing_else_changes():
    cut = peers.cut_histories(DATASET, 5)
    assert histories_of(cut.train) == [history[-5:] for history in histories_of(DATASET.train)]
    assert max(DATASET.train.lengths) > 5 and cut.test is DATASET.test
    np.testing.assert_array_equal(cut.train.items, DATASET.train.items)
    assert histories_of(peers.cut_histories(DATASET, 0).train) == histories_of(DATASET.train)


@pytest.mark.parametrize("cut", [0, 5])
def test_the_padded_arrays_hold_the_histories_candidates_and_labels_of_the_batch_that_this_project_trains_on(cut):
    dataset = peers.cut_histories(DATASET, cut)
    batch = next(batches(dataset, 16))
    categories = np.append(0, dataset.cate_list + 1)
    width = width_of(batch.lengths.tolist(), int(dataset.train.lengths.max()))
    inputs, labels = inputs_of(json.loads(json.dumps(peers.as_lists(batch))), width, categories)
    flat = np.split(batch.history, np.cumsum(batch.lengths)[:-1])
    assert inputs["hist_item"].shape == inputs["hist_cate"].shape == (16, width)
    for row, history in enumerate(flat):
        padding = [0] * (width - len(history))
        assert inputs["hist_item"][row].tolist() == (history + 1).tolist() + padding
        assert inputs["hist_cate"][row].tolist() == (dataset.cate_list[history] + 1).tolist() + padding
    np.testing.assert_array_equal(inputs["item"], batch.candidates + 1)
    np.testing.assert_array_equal(inputs["cate"], dataset.cate_list[batch.candidates] + 1)
    np.testing.assert_array_equal(labels, batch.labels)


def test_item_0_is_told_from_padding():
    assert padded([0, 3, 0], [1, 2], 3).tolist() == [[1, 0, 0], [4, 1, 0]]


def test_a_batch_is_padded_to_its_longest_history_in_steps_of_8_and_never_beyond_the_longest_of_all():
    assert [width_of(lengths, 20) for lengths in ([1, 8], [9, 2], [17], [20])] == [8, 16, 20, 20]


# ---- figures ---------------------------------------------------------------------------------------------------------

class FakeOurs:
    """This project's side, with rounds of known seconds."""

    def __init__(self, calls, seconds):
        self.calls, self.seconds = calls, iter(seconds)

    def learn(self, steps):
        return np.linspace(0.7, 0.5, steps).tolist()

    def steps_that_last(self, seconds):
        return int(10 * seconds)

    def measure(self, steps):
        self.calls.append(("ours", steps))
        return next(self.seconds)


class FakeDeepCTR:
    """DeepCTR's side, the same; keeps the batches that it is given."""

    def __init__(self, calls, seconds):
        self.calls, self.seconds = calls, seconds

    def learn(self, given):
        self.learnt = given
        return np.linspace(0.7, 0.8, len(given)).tolist()

    def choose(self, given):
        return {"fit": 30.0, "train_on_batch": 20.0, "function": 40.0}

    def load(self, rounds):
        self.rounds = rounds

    def measure(self, number):
        self.calls.append(("deepctr", number))
        return self.seconds[number]


@pytest.fixture
def compared():
    """(the result of three rounds of fake sides with batches of 8, DeepCTR's side, the calls in order)."""
    calls = []
    deepctr = FakeDeepCTR(calls, [10.0, 4.0, 8.0])
    result = peers.compare(FakeOurs(calls, [2.0, 1.0, 4.0]), deepctr, batches(DATASET, 8), 8, rounds=3, seconds=2.0)
    return result, deepctr, calls


def test_throughputs_are_medians_over_the_rounds_and_the_ratio_is_taken_within_each(compared):
    """20 steps of 8 in 2, 1 and 4 seconds beside 10 in 10, 4 and 8."""
    result, _, _ = compared
    assert result["steps"] == {"ours": 20, "deepctr": 10}
    assert (result["ours"], result["deepctr"], result["ratio"]) == (80, 10, 8)
    assert result["spread"] == {"ours": [40, 160], "deepctr": [8, 20], "ratio": [4, 10]}
    assert (result["way"], result["ways"]["fit"]) == ("function", 30)


def test_the_sides_take_turns(compared):
    assert compared[2] == [(side, value) for number in range(3) for side, value in (("ours", 20), ("deepctr", number))]


def test_deepctr_is_given_the_batches_that_this_project_learns_on_and_the_first_of_each_of_its_rounds(compared):
    _, deepctr, _ = compared
    stream = [peers.as_lists(batch) for batch in itertools.islice(batches(DATASET, 8), peers.LEARNING_STEPS + 60)]
    assert deepctr.learnt == stream[:peers.LEARNING_STEPS]
    starts = [peers.LEARNING_STEPS + 20 * number for number in range(3)]
    assert deepctr.rounds == [stream[start:start + 10] for start in starts]


def test_a_side_that_does_not_learn_is_warned_of(compared):
    result, lines = compared[0], []
    assert result["loss"]["ours"][1] < 0.6 < result["loss"]["ours"][0]
    peers.warn_of_losses(type("Table", (), {"title": lines.append}), result)
    assert len(lines) == 1 and lines[0].startswith("warning: the loss of deepctr did not fall in 80 steps (0.71")


def test_this_projects_side_answers_from_a_process_of_its_own_and_learns(data):
    command = [sys.executable, "-m", "benchmarks.peers", "--work"]
    with peers.Side("this project", command, "din", data, 5, 16) as side:
        losses = side.learn(60)
        described, steps, seconds = side.describe(), side.steps_that_last(0.02), side.measure(3)
    assert np.mean(losses[-20:]) < np.mean(losses[:20])
    assert described["parameters"] > 64 * (50 + 7) and "CPU" in described["device"]
    assert steps >= 1 and seconds > 0


# ---- DeepCTR's environment -------------------------------------------------------------------------------------------

def test_the_environment_is_made_once_and_again_when_its_requirements_change(tmp_path, fake_python, monkeypatch):
    folder, python = str(tmp_path / "environment"), fake_python()
    peers.make_environment(folder, python)
    made, installed = log_of(tmp_path)
    assert made == "made" and installed.endswith("install --quiet -r " + peers.REQUIREMENTS)
    peers.make_environment(folder, python)
    assert log_of(tmp_path) == []
    (tmp_path / "requirements.txt").write_text("deepctr==0.0.0\n")
    (tmp_path / "environment" / "of_the_earlier").write_text("")
    monkeypatch.setattr(peers, "REQUIREMENTS", str(tmp_path / "requirements.txt"))
    peers.make_environment(folder, python)
    assert log_of(tmp_path)[0] == "made" and not (tmp_path / "environment" / "of_the_earlier").exists()


def test_where_pip_fails_that_is_said_and_the_next_run_makes_the_environment_anew(tmp_path, fake_python):
    folder = str(tmp_path / "environment")
    with pytest.raises(UserError) as raised:
        peers.make_environment(folder, fake_python(pip_status=1))
    assert str(raised.value) == "pip can't install requirements/peers.txt, see above; mend that and run this again"
    assert not peers.is_complete(folder)
    log_of(tmp_path)
    peers.make_environment(folder, fake_python())
    assert log_of(tmp_path)[0] == "made" and peers.is_complete(folder)


def test_a_folder_with_other_things_is_left_alone(tmp_path, fake_python):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("text")
    with pytest.raises(UserError, match="thesis holds other things than DeepCTR's environment; name a new folder"):
        peers.make_environment(str(tmp_path / "thesis"), fake_python())
    assert os.listdir(str(tmp_path / "thesis")) == ["chapter"]


@pytest.mark.parametrize("version, fits", [("3 8", False), ("3 9", True), ("3 11", True), ("3 12", False)])
def test_a_python_that_deepctrs_tensorflow_is_not_made_for_is_refused(tmp_path, fake_python, version, fits):
    python, folder = fake_python(version), str(tmp_path / "environment")
    if fits:
        return peers.make_environment(folder, python)
    with pytest.raises(UserError) as raised:
        peers.make_environment(folder, python)
    assert str(raised.value) == (
        "%s is Python %s, which DeepCTR's TensorFlow 2.15 is not made for; name a Python 3.9 to 3.11 with "
        "--base_python, for example --base_python python3.11" % (python, version.replace(" ", ".")))
    assert not os.path.exists(folder)


# ---- the command -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("flags, error", [
    (["--environment", "new", "--base_python", "python9"],
     "python9 can't be run; name a Python 3.9 to 3.11 with --base_python, for example --base_python python3.11"),
    (["--batch_sizes", "5000"], "a batch of 5000 is larger than the %d examples of random; lower --batch_sizes"
     % len(DATASET.train.items)),
    (["--model", "pnn"], "argument --model: invalid choice: 'pnn'"),
    (["--cut", "-1"], "argument --cut: -1 is less than 0"),
    (["--data", "nowhere"], "no dataset.pkl at nowhere; give small, full, a dataset.pkl or a folder with one"),
])
def test_errors_are_one_line(tmp_path, data, monkeypatch, flags, error):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["peers", "--data", data] + flags)
    with pytest.raises(UserError) as raised:
        peers.main()
    assert str(raised.value).startswith(error) and "\n" not in str(raised.value)


def test_a_side_that_dies_is_an_error_of_one_line_and_exit_status_1(tmp_path, data, fake_python):
    """The stand-in ends at once, as DeepCTR's process does where memory runs out."""
    done = run_script("-m", "benchmarks.peers", "--data", data, "--batch_sizes", 8, "--environment", tmp_path / "peer",
                      "--base_python", fake_python())
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1, "error: the process of DeepCTR ended with status 0, see above; where memory ran out lower --batch_sizes or "
        "--cut")


def test_deepctr_itself_is_measured_beside_this_project_and_both_learn_that_nearly_all_is_bought(
        data, capsys, monkeypatch):
    if not peers.is_complete(peers.ENVIRONMENT):
        pytest.skip("DeepCTR's environment is not there; python -m benchmarks.peers makes it")
    bought = (DATASET.train.items >= 5).astype(np.int32)
    write_dataset(data, DATASET._replace(train=DATASET.train._replace(labels=bought)))
    flags = "--batch_sizes 64 --cut 0 5 --rounds 2 --seconds 0.05 --json".split()
    monkeypatch.setattr(sys, "argv", ["peers", "--data", data] + flags)
    peers.main()
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(result["histories"], result["longest"]) for result in results] == [
        ("uncut", DATASET.train.lengths.max()), ("5", 5)]
    for result in results:
        assert all(last < 0.8 * first for first, last in result["loss"].values()), result["loss"]
        assert result["loss"]["ours"] == pytest.approx(result["loss"]["deepctr"], rel=0.2)
        assert set(result["ways"]) == {"fit", "train_on_batch", "function"}
        for figure in ("ours", "deepctr", "ratio"):
            low, high = result["spread"][figure]
            assert 0 < low <= result[figure] <= high
        # Tables, attention, the MLP on [candidate, user vector]; DeepCTR's tables have a row more, for padding.
        tables, attention = 64 * (50 + 7), 512 * 80 + 80 + 80 * 40 + 40 + 40 + 1
        assert result["parameters"]["deepctr"] == (
            tables + 64 * 2 + attention + 256 * 80 + 80 + 80 * 40 + 40 + 40 + 1)
        assert result["parameters"]["ours"] == (
            tables + attention + 50 + 128 * 128 + 3 * 128 + 2 * 384 + 384 * 80 + 80 + 80 * 40 + 40 + 40 + 1)
