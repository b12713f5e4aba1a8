"""Checkpoints: runs that stop and resume, runs that start anew, and checkpoints that inference takes or refuses."""
import glob
import json
import os

import numpy as np
import pytest

from tests.helpers import TWO_EPOCHS, Folder, Graph, golden, random_dataset, results_of, run_script
from utils.batches import test_batches as batches_of_test
from utils.batches import train_batches
from utils.dataset import write_dataset
from utils.files import UserError
from utils.models import names
from utils.results import POINT
from utils.runs.checkpoints import Checkpoints
from utils.runs.locks import acquire
from utils.tf1 import tf

DATASET = random_dataset()
STEPS_PER_EPOCH = -(-len(DATASET.train.items) // 64)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("num_accelerators", [1, 2])
def test_a_run_that_stops_and_resumes_gives_what_an_uninterrupted_one_gives(tmp_path, optimizer, num_accelerators):
    flags = ("--epochs", 2, "--eval_every", 7, "--batch_size", 64 // num_accelerators, "--optimizer", optimizer,
             "--num_accelerators", num_accelerators)
    whole, parts = Folder(tmp_path / "whole"), Folder(tmp_path / "parts")
    uninterrupted = whole.train(*flags)
    for steps in (3, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 9):  # inside an epoch and at its end
        parts.train(*flags, "--max_steps", steps, "--resume")
    resumed = parts.train(*flags, "--resume")
    for name in ("final_loss", "final_gauc", "final_auc", "steps", "recommendations"):
        assert resumed[name] == uninterrupted[name]
    expected = whole.latest_variables()
    for name, value in parts.latest_variables().items():
        np.testing.assert_array_equal(value, expected[name], name)


def test_a_script_resumes_what_is_unfinished_and_starts_anew_what_is_not(folder, capfd):
    """By --resume unfinished; a run is unfinished where its state does not say that it is finished."""
    whole = folder.train(*TWO_EPOCHS, "--resume", "unfinished")
    assert "resuming" not in capfd.readouterr().out
    folder.train(*TWO_EPOCHS, "--max_steps", 7, "--resume", "unfinished")
    output = capfd.readouterr().out
    assert "the earlier run in " in output and "resuming" not in output
    state_path = os.path.join(folder.save_path, "state.json")
    with open(state_path) as file:
        state = json.load(file)
    assert state.pop("finished")
    state["run"]["max_steps"] = state["run"]["parts"][0]["max_steps"] = 0  # as if it had been killed there
    with open(state_path, "w") as file:
        json.dump(state, file)
    assert results_of(folder.train(*TWO_EPOCHS, "--resume", "unfinished")) == results_of(whole)
    assert "resuming after step 7\n" in capfd.readouterr().out


@pytest.mark.parametrize("name, content", [("state.json", "{"), ("state.json", "{}"), ("latest.index", "")])
def test_a_script_starts_anew_where_the_checkpoint_is_of_no_use(folder, name, content):
    whole = folder.train(*TWO_EPOCHS)
    folder.train(*TWO_EPOCHS, "--max_steps", 7)
    with open(os.path.join(folder.save_path, name), "w") as file:
        file.write(content)
    assert results_of(folder.train(*TWO_EPOCHS, "--resume", "unfinished")) == results_of(whole)


def test_checkpoints_keep_the_permissions_that_they_were_given(folder):
    folder.train(*TWO_EPOCHS, "--max_steps", 7)
    paths = [os.path.join(folder.save_path, name) for name in ("ckpt.index", "latest.index", "state.json")]
    for path in paths:
        os.chmod(path, 0o600)
    folder.train(*TWO_EPOCHS, "--resume")
    assert [os.stat(path).st_mode & 0o777 for path in paths] == [0o600] * 3


def test_a_second_run_in_the_same_folder_is_refused(folder):
    with acquire(os.path.join(folder.save_path, ".lock")):
        done = run_script("din/train.py", "--dataset", os.path.join(folder.path, "dataset.pkl"),
                          "--save_path", folder.save_path, "--results", os.path.join(folder.path, "results"))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1] == "error: process %d is at work in %s; wait until it has ended" % (
        os.getpid(), folder.save_path)
    assert sorted(os.listdir(folder.path)) == ["dataset.pkl", "save_path"]
    folder.train("--max_steps", 1)


def test_resuming_with_other_flags_is_refused_and_touches_nothing(folder):
    folder.train(*TWO_EPOCHS)
    before = sorted(os.listdir(folder.save_path))
    with pytest.raises(UserError, match=r"its seed is 1234, not 9; give its flags, or another --save_path"):
        folder.train(*TWO_EPOCHS, "--seed", 9, "--resume")
    assert sorted(os.listdir(folder.save_path)) == before


def test_a_resumed_run_has_the_whole_curve(tmp_path):
    whole, parts = Folder(tmp_path / "whole"), Folder(tmp_path / "parts")
    whole.train(*TWO_EPOCHS)
    parts.train(*TWO_EPOCHS, "--max_steps", 7)
    parts.train(*TWO_EPOCHS, "--resume")

    def without_clock(folder):
        return [[point[name] for name in POINT if not name.startswith("seconds")] for point in whole_curve(folder)]

    def whole_curve(folder):
        return [point for point in folder.rows("curves") if point["max_steps"] == "0"]
    assert without_clock(parts) == without_clock(whole)
    seconds = [float(point["seconds"]) for point in whole_curve(parts)]
    assert seconds == sorted(seconds)


def test_an_earlier_run_is_set_aside_not_overwritten(folder):
    folder.train(*TWO_EPOCHS)
    with open(os.path.join(folder.save_path, "ckpt.data-00000-of-00001"), "rb") as file:
        earlier = file.read()
    folder.train(*TWO_EPOCHS, "--seed", 9)
    earlier_folder, = glob.glob(os.path.join(folder.save_path, "earlier_*"))
    with open(os.path.join(earlier_folder, "ckpt.data-00000-of-00001"), "rb") as file:
        assert file.read() == earlier
    assert [row["seed"] for row in folder.rows("train")] == ["1234", "9"]


def test_inference_without_a_checkpoint_says_to_train_first(folder):
    with pytest.raises(UserError, match=r"no checkpoint .*save_path/ckpt; train first: python train.py"):
        folder.infer()
    assert not os.path.exists(os.path.join(folder.path, "results"))


def test_inference_refuses_a_checkpoint_of_another_model_or_data_set(folder):
    folder.train(*TWO_EPOCHS)
    folder.model = "pnn"
    with pytest.raises(UserError, match="its model is din, not pnn"):
        folder.infer()
    folder.model = "din"
    write_dataset(os.path.join(folder.path, "dataset.pkl"), random_dataset(seed=1))
    with pytest.raises(UserError, match="its dataset_fingerprint is"):
        folder.infer()


def test_inference_refuses_a_damaged_checkpoint(folder):
    folder.train(*TWO_EPOCHS)
    path = os.path.join(folder.save_path, "ckpt.data-00000-of-00001")
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)
    with pytest.raises(UserError, match="does not fit or is damaged"):
        folder.infer()


def test_a_checkpoint_that_a_killed_run_left_ready_is_taken(folder):
    trained = folder.train(*TWO_EPOCHS)
    ready = os.path.join(folder.save_path, ".ready")
    os.makedirs(ready)
    for name in os.listdir(folder.save_path):
        if name.startswith(("ckpt.data", "latest.", "state.json")):  # ckpt.index was moved before the run was killed
            os.rename(os.path.join(folder.save_path, name), os.path.join(ready, name))
    assert folder.infer()["checkpoint_step"] == trained["best_step"]


def test_steps_scores_and_checkpoints_add_nothing_to_the_graph(tmp_path):
    with Graph("din", DATASET) as graph:
        graph.tf_graph.finalize()  # whatever adds an operation from here on raises
        checkpoints = Checkpoints(str(tmp_path), graph.saver)
        for batch, _ in zip(train_batches(DATASET.train, 32, seed=1, epoch=0), range(2)):
            graph.train(batch, 1.0)
            graph.score(batch)
            checkpoints.save(graph.session, {"run": {}, "state": {}}, best=True)
            checkpoints.restore(graph.session, "ckpt")


@pytest.mark.parametrize("name", names())
def test_a_checkpoint_of_the_originals_variables_is_loaded(tmp_path, name):
    """Dead variables and the counter of epochs included, without a state.json."""
    dataset = random_dataset(items=20, categories=5)
    folder = Folder(tmp_path / name, dataset, model=name)
    with tf.Graph().as_default(), tf.Session() as session:
        for variable, shape in golden(name)["expected"]["variables"].items():
            tf.get_variable(variable, shape, initializer=tf.random_uniform_initializer(-1, 1, seed=len(variable)))
        tf.Variable(168000, trainable=False, name="global_step", dtype=tf.int64)
        tf.Variable(3, trainable=False, name="global_epoch_step")
        session.run(tf.global_variables_initializer())
        values = session.run({variable.op.name: variable for variable in tf.global_variables()})
        os.makedirs(folder.save_path)
        tf.train.Saver().save(session, os.path.join(folder.save_path, "ckpt"))
    row = folder.infer("--batch_size", 16)
    assert row["checkpoint_step"] == "168000"
    with Graph(name, dataset) as graph:
        graph.load(values)
        scores = np.concatenate([graph.score(batch) for batch in batches_of_test(dataset.test, 16)])
    assert float(row["gauc"]) == pytest.approx(np.mean(scores[:, 0] > scores[:, 1]), abs=1e-6)
