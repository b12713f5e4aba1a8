"""Training and inference: the log, the CSVs, several accelerators, and what goes wrong."""
import glob
import os
import re
import runpy
import sys

import numpy as np
import pytest

from tests.helpers import TWO_EPOCHS, Folder, random_dataset, results_of, run_script
from tests.rows import error_line
from utils import towers, train_loop
from utils.dataset import Dataset, build_sets
from utils.files import ROOT, UserError
from utils.results import CURVES_COLUMNS, INFER_COLUMNS, TRAIN_COLUMNS
from utils.tf1 import tf

DATASET = random_dataset()
EXAMPLES, USERS = len(DATASET.train.items), len(DATASET.test.users)
STEPS_PER_EPOCH = -(-EXAMPLES // 64)


def test_the_log_has_the_fixed_lines_in_order(folder, capfd):
    row = folder.train(*TWO_EPOCHS)
    output = capfd.readouterr().out
    number = r"\d+\.\d{4}"
    evaluation = r"Epoch (\d+) Global_step (\d+)\tTrain_loss: %s\tEval_GAUC: %s\tEval_AUC: %s\n" % ((number,) * 3)
    assert re.match(
        r"test_gauc: {n}\t test_auc: {n}\npopularity_gauc: {n}\t.*\n(({e})+Epoch \d+ DONE\tCost time: \d+\.\d\d\n){{2}}"
        r"best test_gauc: {n}\n(Not learnt yet: .*\n)?Total recommendations: {total}\n"
        r"Approximate accelerator time in seconds: \d+\.\d+\n"
        r"Approximate accelerator performance in recommendations/second: \d+\.\d+\n"
        r"System time in milliseconds is: \d+\nSystem performance in recommendations/second is: \d+\.\d+\n"
        r"Steady performance in recommendations/second: median \d+\.\d, .*\n$".format(
            n=number, e=evaluation, total=2 * EXAMPLES), output), output
    steps = [int(step) for _, step in re.findall(r"Epoch (\d+) Global_step (\d+)", output)]
    assert steps == sorted(set(range(7, 2 * STEPS_PER_EPOCH, 7)) | {STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH})
    assert "best test_gauc: %.4f" % float(row["best_gauc"]) in output


def test_the_csv_counts_every_recommendation(folder):
    row = folder.train(*TWO_EPOCHS)
    assert tuple(row) == TRAIN_COLUMNS
    assert (row["model"], row["dataset"], row["batch_size"], row["epochs"]) == ("din", "random", "64", "2")
    assert int(row["recommendations"]) == 2 * EXAMPLES
    assert int(row["steps"]) == 2 * STEPS_PER_EPOCH
    assert float(row["accelerator_seconds"]) < float(row["system_seconds"])
    for clock in ("system", "accelerator"):
        assert float(row[clock + "_recommendations_per_second"]) == pytest.approx(
            2 * EXAMPLES / float(row[clock + "_seconds"]), rel=0.05, abs=0.05)  # they have three decimals, and one
    assert (row["optimizer"], row["learning_rate"], row["seed"]) == ("sgd", "1.0", "1234")
    assert row["tensorflow"] == tf.__version__ and row["device"].startswith("CPU ")


def test_the_curves_have_a_row_for_each_evaluation_of_every_run(folder):
    row = folder.train(*TWO_EPOCHS, "--max_steps", 9)
    folder.train(*TWO_EPOCHS, "--max_steps", 9, "--batch_size", 32, "--eval_every", 100)
    curves = folder.rows("curves")
    assert tuple(curves[0]) == CURVES_COLUMNS
    assert [(point["batch_size"], point["step"], point["recommendations"]) for point in curves] == [
        ("64", "0", "0"), ("64", "7", "448"), ("64", "9", "576"), ("32", "0", "0"), ("32", "9", "288")]
    assert [point["train_loss"] == "" for point in curves] == [True, False, False, True, False]
    last = curves[2]
    assert [last["train_loss"], last["gauc"], last["auc"]] == [row["final_loss"], row["final_gauc"], row["final_auc"]]
    seconds = [float(point["seconds"]) for point in curves[:3]] + [float(row["system_seconds"])]
    assert 0 < seconds[0] < seconds[1] < seconds[2] < seconds[3]
    folder.train(*TWO_EPOCHS, "--max_steps", 9)
    assert [(point["batch_size"], point["step"]) for point in folder.rows("curves")] == [
        ("32", "0"), ("32", "9"), ("64", "0"), ("64", "7"), ("64", "9")]


def test_one_seed_gives_one_result_and_another_seed_another(tmp_path):
    first, again, other = (Folder(tmp_path / name).train(*TWO_EPOCHS, "--seed", seed)
                           for name, seed in (("first", 5), ("again", 5), ("other", 6)))
    assert results_of(first) == results_of(again)
    assert first["final_loss"] != other["final_loss"]


@pytest.mark.parametrize("batch_size", [1, 16, USERS])
def test_inference_gives_the_training_runs_best(folder, batch_size):
    trained = folder.train(*TWO_EPOCHS, "--optimizer", "adam", "--lr", 0.01)
    assert trained["best_step"] != trained["steps"], "the best is to differ from the latest, else this shows little"
    row = folder.infer("--batch_size", batch_size)
    assert tuple(row) == INFER_COLUMNS
    assert float(row["gauc"]) == pytest.approx(float(trained["best_gauc"]), abs=1e-6)
    assert float(row["auc"]) == pytest.approx(float(trained["best_auc"]), abs=1e-5)
    assert row["checkpoint_step"] == trained["best_step"]
    assert int(row["recommendations"]) == 2 * USERS
    assert 0 < float(row["latency_ms_p50"]) <= float(row["latency_ms_p99"])


SEVEN_USERS = random_dataset(users=7)  # fewer to test than 8 devices
SEVERAL = ("--epochs", 2, "--eval_every", 1, "--optimizer", "adam", "--lr", 0.01)
FIGURES = ("steps", "recommendations", "best_step", "final_gauc", "best_gauc", "final_auc", "best_auc", "final_loss")


def assert_same_figures(row, expected):
    """Equal but for rounding in the last places; `recommendations` counts each once, whatever the number of devices."""
    for name in FIGURES:
        assert float(row[name]) == pytest.approx(float(expected[name]), abs=2e-6), name


@pytest.fixture(scope="module")
def trained_on_one(tmp_path_factory):
    """(a folder in which pnn was trained with batches of 24 on one accelerator, its row)."""
    folder = Folder(tmp_path_factory.mktemp("one"), SEVEN_USERS, "pnn")
    return folder, folder.train("--batch_size", 24, *SEVERAL)


@pytest.mark.parametrize("num_accelerators", [2, 3, 8])
def test_several_accelerators_train_as_one_with_the_whole_batch_and_infer_as_one(
        tmp_path, trained_on_one, num_accelerators):
    one, trained = trained_on_one
    several = Folder(tmp_path, SEVEN_USERS, "pnn")
    row = several.train("--batch_size", 24 // num_accelerators, "--num_accelerators", num_accelerators, *SEVERAL)
    assert_same_figures(row, trained)
    assert row["num_accelerators"] == str(num_accelerators)
    assert row["device"] == trained["device"] + " as %d logical devices" % num_accelerators
    # A checkpoint does not know how many wrote it.
    inferences = [several.infer("--batch_size", 2)]
    if num_accelerators <= 7:  # users, of whom a batch needs one for each
        inferences.append(one.infer("--batch_size", 1, "--num_accelerators", num_accelerators))
    for inferred in inferences:
        for name, expected in (("gauc", "best_gauc"), ("auc", "best_auc"), ("checkpoint_step", "best_step")):
            assert float(inferred[name]) == pytest.approx(float(trained[expected]), abs=2e-6), name
        assert inferred["recommendations"] == "14"


def test_a_run_resumes_on_another_number_of_accelerators_with_the_same_whole_batch(tmp_path, trained_on_one):
    parts = Folder(tmp_path, SEVEN_USERS, "pnn")
    for num_accelerators, steps in ((1, 3), (3, 8), (2, 0)):
        row = parts.train("--batch_size", 24 // num_accelerators, "--num_accelerators", num_accelerators, *SEVERAL,
                          "--max_steps", steps, "--resume")
    assert_same_figures(row, trained_on_one[1])
    with pytest.raises(UserError, match="its global_batch_size is 24, not 48"):
        parts.train("--batch_size", 24, "--num_accelerators", 2, *SEVERAL, "--resume")


@pytest.mark.parametrize("command", ["train", "infer"])
def test_fewer_gpus_than_asked_for_ends_the_command(folder, monkeypatch, command):
    monkeypatch.setattr(towers, "gpu_names", lambda: ("Test GPU", "Test GPU"))
    monkeypatch.setattr(sys, "argv", [command + ".py", "--num_accelerators", "3", "--save_path", folder.save_path,
                                      "--dataset", os.path.join(folder.path, "dataset.pkl")])
    script = os.path.join(ROOT, "din", command + ".py")
    assert error_line(lambda: runpy.run_path(script, run_name="__main__")) == (
        "error: 3 accelerators asked for, 2 GPUs found; lower NUM_ACCELERATORS, or see that CUDA_VISIBLE_DEVICES shows "
        "TensorFlow the others")
    assert not glob.glob(os.path.join(folder.save_path, "*"))


LEARNING = ("--batch_size", 32, "--epochs", 4, "--optimizer", "adam", "--lr", 0.01)  # flags that suffice for it


def learnable():
    """A data set whose users buy in one category only; most of what they don't buy is in another."""
    random = np.random.RandomState(0)
    items = np.concatenate([user % 2 * 100 + random.permutation(100)[:12] for user in range(200)])
    train_set, test_set = build_sets(np.repeat(np.arange(200), 12), items, 200)
    return Dataset(train_set, test_set, (np.arange(200) >= 100).astype(np.int32), 200, 200, 2, "learnable")


def test_trivially_learnable_data_is_learnt(tmp_path):
    dataset = learnable()
    row = Folder(tmp_path, dataset).train(*LEARNING)
    same_category = np.mean(dataset.cate_list[dataset.test.positives] == dataset.cate_list[dataset.test.negatives])
    # Where the negative is of the same category as the positive nothing tells it apart: half of those are lost.
    assert float(row["best_gauc"]) > 1 - same_category / 2 - 0.05


def test_a_loss_that_is_not_finite_ends_the_run_without_a_row(folder):
    with pytest.raises(UserError, match=r"the loss is nan at step \d+; lower --lr \(there is no checkpoint yet\)"):
        folder.train(*TWO_EPOCHS, "--lr", 1e38)
    assert not os.path.exists(os.path.join(folder.path, "results"))


@pytest.mark.parametrize("step", [12, 13])  # 13 is the step before an evaluation: its scores are the first to show it
def test_a_run_that_diverges_keeps_its_last_good_checkpoint(folder, monkeypatch, step):
    monkeypatch.setattr(train_loop, "learning_rate_at",
                        lambda *arguments: float("nan") if arguments[-1] == step else 1.0)
    with pytest.raises(UserError,
                       match=r" at step \d+; lower --lr \(the checkpoint of step 7 is kept in .*save_path\)"):
        folder.train(*TWO_EPOCHS)
    assert all(np.isfinite(value).all() for value in folder.latest_variables().values())
    assert folder.infer()["checkpoint_step"] in ("7", "0")


def test_a_model_that_learns_nothing_is_warned_of_once(tmp_path, capfd):
    """First the labels have nothing to do with the items, then they do."""
    Folder(tmp_path / "noise").train("--batch_size", 64, "--epochs", 6, "--lr", 1e-6)
    warning, = capfd.readouterr().err.splitlines()
    assert re.match(r"warning: after step %d the GAUC is at chance level \(0\.\d{4}\) for the second time; "
                    % (2 * STEPS_PER_EPOCH), warning)
    Folder(tmp_path / "learnable", learnable()).train(*LEARNING)
    assert "warning" not in capfd.readouterr().err


def test_a_batch_larger_than_the_test_set_is_refused(folder):
    """Its row would have the latency of fewer users than it says."""
    folder.train("--batch_size", 64, "--max_steps", 1)
    for flags in (("--batch_size", USERS + 1), ("--batch_size", USERS // 2 + 1, "--num_accelerators", 2)):
        with pytest.raises(UserError, match="a batch of %d is larger than the test set of %d users; lower --batch_size"
                           % (flags[1] * (1 + (len(flags) > 2)), USERS)):
            folder.infer(*flags)
    assert not os.path.exists(os.path.join(folder.path, "results", "results_infer.csv"))


def test_scores_that_overflow_are_an_error_and_no_row(folder):
    """Each variable is finite; the item bias and the last layer's together are not."""
    folder.train("--batch_size", 64, "--max_steps", 1)
    path = os.path.join(folder.save_path, "ckpt")
    with tf.Graph().as_default(), tf.Session() as session:
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            value = reader.get_tensor(name)
            tf.get_variable(name, initializer=np.full_like(value, 3e38) if name in ("item_b", "f3/bias") else value)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, path)
    with pytest.raises(UserError, match="scores of the checkpoint in .*save_path are not finite; train again: python "
                                        "train.py"):
        folder.infer()
    assert not os.path.exists(os.path.join(folder.path, "results", "results_infer.csv"))


def test_a_batch_larger_than_the_data_is_refused(folder):
    with pytest.raises(UserError, match="a batch of %d is larger than the training set of %d"
                       % (EXAMPLES + 1, EXAMPLES)):
        folder.train("--batch_size", EXAMPLES + 1)


@pytest.mark.parametrize("flags, error", [
    (["--batch_size", "0"], "argument --batch_size: 0 is less than 1; see train.py --help"),
    (["--batch_size", "-1"], "argument --batch_size: -1 is less than 1; see train.py --help"),
    (["--batch_size", "many"], "argument --batch_size: invalid whole number value: 'many'; see train.py --help"),
    (["--num_accelerators", "0"], "argument --num_accelerators: 0 is less than 1; see train.py --help"),
    (["--lr", "nan"], "argument --lr: nan is not a number above 0; see train.py --help"),
    (["--seed", "-3"], "argument --seed: -3 is not in 0 .. 2147483647; see train.py --help"),
    (["--optimizer", "magic"], "argument --optimizer: invalid choice: 'magic' (choose from "),
    (["--dataset", "nowhere.pkl"], "nowhere.pkl not found; run python build_dataset.py to make it"),
])
def test_bad_flags_are_one_line_and_exit_status_1(flags, error):
    done = run_script("din/train.py", *flags)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: " + error)
    assert done.stderr.count("\n") == 1
