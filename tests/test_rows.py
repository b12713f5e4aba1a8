"""Rows of results: each says what it was made with, and takes the place of none but the same run's."""
import glob
import json
import os
import re

import numpy as np
import pytest

from tests.helpers import TWO_EPOCHS, Folder, random_dataset, results_of
from tests.rows import write_rows
from utils import train_loop
from utils.cluster import workers
from utils.files import UserError
from utils.results import INFER_COLUMNS, TRAIN_COLUMNS, add_rows, csv_name, read_rows
from utils.tf1 import tf

DATASET = random_dataset()
STEPS_PER_EPOCH = -(-len(DATASET.train.items) // 64)
FLAGS = ("--batch_size", 64, "--epochs", 1)


def with_state(folder, change):
    """Changes state.json in the save_path of `folder` by `change`, a function of its content."""
    path = os.path.join(folder.save_path, "state.json")
    with open(path) as file:
        saved = json.load(file)
    change(saved)
    with open(path, "w") as file:
        json.dump(saved, file)


# ---- inference says which training made its checkpoint ---------------------------------------------------------------

def test_a_row_of_inference_has_the_flags_of_its_checkpoints_training_not_of_another(folder):
    """Both trainings have their best, and only, evaluation at the same step."""
    paths = {optimizer: os.path.join(folder.path, optimizer) for optimizer in ("sgd", "adam")}
    for optimizer, path in paths.items():
        trained = folder.train(*FLAGS, "--optimizer", optimizer, "--max_steps", 9, "--eval_every", 100, "--seed",
                               len(optimizer), "--save_path", path)
        assert trained["best_step"] == "9"
    for optimizer, path in paths.items():
        row = folder.infer("--batch_size", 16, "--save_path", path)
        assert [row[name] for name in ("optimizer", "learning_rate", "seed", "epochs", "max_steps", "eval_every",
                                       "trained_batch_size", "num_ads", "candidate_seed", "duration")] == [
            optimizer, {"sgd": "1.0", "adam": "0.001"}[optimizer], str(len(optimizer)), "1", "9", "100", "64", "2", "",
            "0"]
    assert len(folder.rows("infer")) == 2, "they are two rows, although model and batch size are the same"


def test_a_checkpoint_of_unknown_training_leaves_its_flags_empty(folder):
    folder.train(*FLAGS, "--max_steps", 3)
    os.remove(os.path.join(folder.save_path, "state.json"))
    row = folder.infer("--batch_size", 16, "--num_ads", 5, "--seed", 7)
    assert {row[name] for name in ("optimizer", "learning_rate", "seed", "epochs", "trained_batch_size")} == {""}
    assert (row["num_ads"], row["candidate_seed"]) == ("5", "7") and row["dataset_fingerprint"]


# ---- a row is replaced by the same run alone -------------------------------------------------------------------------

@pytest.mark.parametrize("flags", [
    ("--optimizer", "adam"), ("--lr", 0.5), ("--seed", 5), ("--epochs", 2), ("--max_steps", 5), ("--eval_every", 3),
    ("--profile",)])
def test_runs_with_other_flags_stand_beside_each_other(folder, flags):
    folder.train(*FLAGS, "--max_steps", 4)
    folder.train(*FLAGS, "--max_steps", 4, *flags)
    assert len(folder.rows("train")) == 2
    assert len({json.dumps([point[name] for name in ("optimizer", "learning_rate", "seed", "epochs", "max_steps",
                                                     "eval_every", "profile")])
                for point in folder.rows("curves")}) == 2
    assert not glob.glob(os.path.join(folder.path, "results_*"))


def test_a_run_that_is_made_again_replaces_its_row_and_the_earlier_one_is_copied(folder):
    rows = [folder.train(*FLAGS, "--seed", seed) for seed in (5, 6, 5)]
    assert [row["seed"] for row in folder.rows("train")] == ["6", "5"]
    assert results_of(rows[0]) == results_of(rows[2])
    copy, = glob.glob(os.path.join(folder.path, "results_*"))
    assert sorted(os.listdir(copy)) == ["outcomes", "results_curves.csv", "results_train.csv"]
    add_rows(os.path.join(folder.path, "results"), {"train": [rows[2]]})
    assert glob.glob(os.path.join(folder.path, "results_*")) == [copy]


@pytest.mark.parametrize("column, value", [("device", "NVIDIA H100"), ("tensorflow", "1.15.5"),
                                           ("dataset_fingerprint", "of other data")])
def test_another_machine_or_version_or_other_data_of_the_same_name_replace_nothing(tmp_path, column, value):
    row = dict(dict.fromkeys(TRAIN_COLUMNS, "1"), parts="")
    for changed in ({}, {column: value}, {}):
        add_rows(str(tmp_path / "results"), {"train": [dict(row, **changed)]})
    assert [row[column] for row in read_rows(str(tmp_path / "results"), "train")] == [value, "1"]


def test_a_row_is_added_to_an_earlier_versions_file(tmp_path):
    earlier = TRAIN_COLUMNS[:22]
    os.makedirs(str(tmp_path / "results"))
    (tmp_path / "results" / csv_name("train")).write_text("%s\n%s\n" % (",".join(earlier), ",".join("1" * 22)))
    add_rows(str(tmp_path / "results"), {"train": [dict.fromkeys(TRAIN_COLUMNS, "1")]})
    first, second = read_rows(str(tmp_path / "results"), "train")
    assert first == dict(dict.fromkeys(TRAIN_COLUMNS, ""), num_workers="1", selected_on="test", patience="0",
                         target_gauc="0", **dict.fromkeys(earlier, "1"))
    assert set(second.values()) == {"1"}


SHEETS = {  # what a spreadsheet makes of a CSV: (the file again, what is wrong with it)
    "a byte order mark": (lambda text: text.encode("utf-8-sig"), None),
    "other ends of lines": (lambda text: text.replace("\r\n", "\n").encode(), None),
    "semicolons": (lambda text: text.replace(",", ";").encode("utf-8-sig"),
                   "has semicolons between its columns, as Excel may write them; save it with commas, or move it away"),
    "tabs": (lambda text: text.replace(",", "\t").encode(),
             "has tabs between its columns, as Excel may write them; save it with commas, or move it away"),
    "UTF-16": (lambda text: text.encode("utf-16"), "is not UTF-8 text; save it as CSV in UTF-8, or move it away"),
    "another header": (lambda text: text.replace("model", "models").encode(),
                       "has other columns than this version writes; move it away")}


@pytest.mark.parametrize("name", SHEETS)
def test_a_csv_that_went_through_a_spreadsheet_is_read_or_its_error_says_what_it_is(tmp_path, name):
    change, fault = SHEETS[name]
    write_rows(tmp_path, "train", {})
    path = tmp_path / csv_name("train")
    before = read_rows(str(tmp_path), "train")
    path.write_bytes(change(path.read_bytes().decode()))
    if fault is None:
        assert read_rows(str(tmp_path), "train") == before
        return
    content = path.read_bytes()
    for use in (lambda: read_rows(str(tmp_path), "train"), lambda: add_rows(str(tmp_path), {"train": before})):
        with pytest.raises(UserError) as error:
            use()
        assert str(error.value) == "%s %s" % (path, fault)
        assert path.read_bytes() == content


def test_the_first_columns_are_those_that_others_scripts_rely_on():
    assert ",".join(TRAIN_COLUMNS).startswith(
        "model,dataset,batch_size,num_accelerators,epochs,steps,recommendations,system_seconds,"
        "system_recommendations_per_second,accelerator_seconds,accelerator_recommendations_per_second,final_loss,"
        "final_gauc,final_auc,best_gauc,best_auc,best_step,optimizer,learning_rate,seed,device,tensorflow,num_workers,")
    assert ",".join(INFER_COLUMNS).startswith(
        "model,dataset,batch_size,num_accelerators,recommendations,system_seconds,system_recommendations_per_second,"
        "accelerator_seconds,accelerator_recommendations_per_second,latency_ms_p50,latency_ms_p99,gauc,auc,"
        "checkpoint_step,device,tensorflow,num_workers,")


# ---- a resumed run is credited to all that made it -------------------------------------------------------------------

def resumed_row(folder, monkeypatch, first, second, devices=("A", "A")):
    """The row of a run whose first 5 steps are made with the flags `first` on one machine, the others otherwise."""
    for flags, device in ((first, devices[0]), (second, devices[1])):
        monkeypatch.setattr(train_loop, "describe_device", lambda _, device=device: device)
        row = folder.train(*FLAGS, "--resume", *flags)
    return row


def test_a_run_on_two_machines_names_both(folder, monkeypatch):
    row = resumed_row(folder, monkeypatch, ("--max_steps", 5), (), ("CPU A (2 cores)", "CPU A (4 cores)"))
    assert row["device"] == "CPU A (2 cores) + CPU A (4 cores)"
    assert row["parts"] == ("steps 1-5: max_steps 5, device CPU A (2 cores); steps 6-: max_steps 0, device CPU A (4 "
                            "cores)")
    assert {point["device"] for point in folder.rows("curves")} >= {row["device"]}
    assert folder.infer("--batch_size", 16)["parts"] == row["parts"]


def test_a_run_on_two_versions_of_tensorflow_names_both(folder, monkeypatch):
    monkeypatch.setattr(tf, "__version__", "1.0")
    folder.train(*FLAGS, "--max_steps", 5)
    monkeypatch.setattr(tf, "__version__", "2.0")
    assert folder.train(*FLAGS, "--resume")["tensorflow"] == "1.0 + 2.0"


@pytest.mark.parametrize("first, second, parts", [
    (("--eval_every", 3), ("--eval_every", 4),
     "steps 1-5: eval_every 3, max_steps 5; steps 6-: eval_every 4, max_steps 0"),
    (("--profile",), (), "steps 1-5: max_steps 5, profile yes; steps 6-: max_steps 0, profile no"),
    (("--batch_size", 32, "--num_accelerators", 2), ("--batch_size", 64),
     "steps 1-5: batch_size 32, num_accelerators 2, max_steps 5; "
     "steps 6-: batch_size 64, num_accelerators 1, max_steps 0")])
def test_a_run_that_was_resumed_with_other_flags_says_so(folder, monkeypatch, first, second, parts):
    row = resumed_row(folder, monkeypatch, first + ("--max_steps", 5), second)
    assert (row["parts"], row["device"]) == (parts, "A")


def test_a_run_resumed_with_the_same_flags_on_the_same_machine_is_a_run_like_any(folder, tmp_path, monkeypatch):
    whole = Folder(tmp_path / "whole").train(*FLAGS, "--eval_every", 5, "--max_steps", 9)
    monkeypatch.setattr(train_loop.Run, "_epoch", stopped_after(5, train_loop.Run._epoch))
    with pytest.raises(KeyboardInterrupt):
        folder.train(*FLAGS, "--eval_every", 5, "--max_steps", 9)
    monkeypatch.undo()
    assert results_of(folder.train(*FLAGS, "--eval_every", 5, "--max_steps", 9, "--resume")) == results_of(whole)
    assert whole["parts"] == ""


def stopped_after(steps, epoch):
    """`epoch`, of a `Run`, which Ctrl-C ends after so many steps."""
    def stopped(run, number):
        save = run.recorder.save

        def save_and_stop(*arguments):
            save(*arguments)
            if run.state["step"] == steps:
                raise KeyboardInterrupt
        run.recorder.save = save_and_stop
        epoch(run, number)
    return stopped


def test_a_run_that_was_made_longer_is_another_than_one_that_was_as_long_at_once(folder):
    """It was evaluated where it ended at first, and may have had its best there."""
    for steps in (4, 8):
        row = folder.train(*FLAGS, "--eval_every", 3, "--max_steps", steps, "--resume")
    assert row["parts"] == "steps 1-4: max_steps 4; steps 5-: max_steps 8"


def test_a_run_that_is_through_is_not_credited_to_where_it_is_resumed_in_vain(folder, monkeypatch):
    row = folder.train(*FLAGS, "--batch_size", 32, "--num_accelerators", 2)
    monkeypatch.setattr(train_loop, "describe_device", lambda _: "another")
    again = folder.train(*FLAGS, "--profile", "--resume")
    assert results_of(again) == results_of(row) and len(folder.rows("train")) == 1


def test_a_run_whose_first_part_was_an_earlier_versions_does_not_claim_it(folder):
    folder.train(*FLAGS, "--max_steps", 5)
    with_state(folder, lambda saved: (saved["run"].pop("parts"), saved["state"].pop("step_seconds")))
    row = folder.train(*FLAGS, "--resume")
    assert row["device"].startswith("unknown + CPU ") and row["parts"].startswith("steps 1-5: eval_every unknown, ")


def test_a_run_of_an_earlier_version_is_resumed_again_and_again_and_its_rows_are_read(folder):
    folder.train(*FLAGS, "--max_steps", 5)
    with_state(folder, lambda saved: (saved["run"].pop("parts"), saved["state"].pop("step_seconds")))
    for steps in (5, 7, 9):
        row = folder.train(*FLAGS, "--resume", "--max_steps", steps)
        assert row["eval_every"] == ("" if steps == 5 else "1000")
    assert len(read_rows(os.path.join(folder.path, "results"), "train")) == 4


def test_the_machines_of_all_workers_are_named(folder, monkeypatch):
    monkeypatch.setattr(workers.Alone, "all_gather",
                        lambda self, value: ["GPU X", "GPU Y", "GPU X"] if type(value) is str else [value])
    assert folder.train(*FLAGS, "--max_steps", 2)["device"] == "GPU X + GPU Y"


def test_fewer_epochs_than_are_done_are_refused(folder):
    before = folder.train(*TWO_EPOCHS)
    with pytest.raises(UserError, match="the checkpoint in .*save_path is of step %d, after the last of these flags, "
                       "%d; give more --epochs or --max_steps, or another --save_path" % (
                           2 * STEPS_PER_EPOCH, STEPS_PER_EPOCH)):
        folder.train(*TWO_EPOCHS, "--epochs", 1, "--resume")
    assert folder.rows("train") == [before]


@pytest.mark.parametrize("change, reason", [
    (lambda saved: saved["state"].update(step=-1), "state.json in .* is damaged"),
    (lambda saved: saved["run"].update(seed=9), "its seed is 9, not 1234"),
    (lambda saved: saved["run"].update(parts=[{}]), "state.json in .* is damaged"),
    (lambda saved: saved["run"].update(epochs=7), "is of another command: its epochs is 7, not 1"),
    (lambda saved: saved["run"].update(max_steps=7), "is of another command: its max_steps is 7, not 5"),
    (lambda saved: saved["run"]["parts"][-1].update(eval_every=7), "another command: its eval_every is 7, not 1000"),
    (lambda saved: saved.update(curve=[]), "state.json in .* is damaged"),
    (lambda saved: saved["state"].update(step_seconds={"x": 1}), "state.json in .* is damaged"),
    (lambda saved: saved["state"].update(step_seconds={"1": 10 ** 30}), "state.json in .* is damaged"),
    (lambda saved: saved["state"].update(recommendations=10 ** 400), "state.json in .* is damaged"),
    (lambda saved: saved["state"].update(best_gauc=5), "state.json in .* is damaged"),
    (lambda saved: saved["state"].update(accelerator_seconds=-1e300), "state.json in .* is damaged"),
    (lambda saved: saved["state"].update(step=10 ** 6), "is of step 1000000, after the last")])
def test_a_script_says_why_it_does_not_go_on_with_a_run(folder, capfd, change, reason):
    folder.train(*FLAGS, "--max_steps", 5)
    with_state(folder, lambda saved: (saved.pop("finished"), change(saved)))
    capfd.readouterr()
    folder.train(*FLAGS, "--max_steps", 5, "--resume", "unfinished")
    lines = capfd.readouterr().out.splitlines()
    assert re.search("starting from the beginning: .*" + reason, lines[0])
    assert lines[1].startswith("the earlier run in ")


def test_a_run_that_is_through_keeps_its_clocks_when_it_is_resumed_in_vain(folder, capfd):
    folder.train(*FLAGS, "--max_steps", 5)
    with_state(folder, lambda saved: saved["state"].update(system_seconds=2.0, accelerator_seconds=1.0))
    capfd.readouterr()
    row = folder.train(*FLAGS, "--max_steps", 5, "--resume")
    assert (row["system_seconds"], row["accelerator_seconds"]) == ("2.000", "1.000")
    assert capfd.readouterr().out.startswith("resuming after step 5: nothing is left to train\n")


def test_inference_in_the_midst_of_a_training_and_at_its_end_are_two_rows(folder, monkeypatch):
    flags = FLAGS + ("--eval_every", 5, "--max_steps", 9)
    monkeypatch.setattr(train_loop.Run, "_epoch", stopped_after(5, train_loop.Run._epoch))
    with pytest.raises(KeyboardInterrupt):
        folder.train(*flags)
    monkeypatch.undo()
    first = folder.infer()
    folder.train(*flags, "--resume")
    assert (first["trained_steps"], folder.infer()["trained_steps"]) == ("5", "9") and len(folder.rows("infer")) == 2


def test_inference_with_checkpoints_of_two_machines_are_two_rows(folder, monkeypatch):
    for device in ("CPU A (1 cores)", "CPU A (2 cores)"):
        monkeypatch.setattr(train_loop, "describe_device", lambda _, device=device: device)
        folder.train(*FLAGS, "--max_steps", 5)
        assert folder.infer()["trained_on"] == "%s, TensorFlow %s" % (device, tf.__version__)
    assert len(folder.rows("infer")) == 2


def test_inference_with_two_checkpoints_from_elsewhere_are_two_rows(folder):
    for steps in (3, 9, 9):
        folder.train(*FLAGS, "--max_steps", steps, "--eval_every", 100)
        os.remove(os.path.join(folder.save_path, "state.json"))
        folder.infer()
    assert [row["checkpoint_step"] for row in folder.rows("infer")] == ["3", "9"]


@pytest.mark.parametrize("change", [
    {"seed": "abc"}, {"parts": 5}, {"parts": [{}]}, {"parts": []}, {"epochs": None}, {"lr": "1"}])
def test_inference_refuses_a_checkpoint_whose_run_is_damaged(folder, change):
    folder.train(*FLAGS, "--max_steps", 3)
    with_state(folder, lambda saved: saved["run"].update(change))
    with pytest.raises(UserError, match="state.json in .*save_path is damaged; train again"):
        folder.infer()


@pytest.mark.parametrize("column, value", [("device", 5), ("profile", 1), ("eval_every", None), ("step", "0")])
def test_inference_refuses_a_checkpoint_with_a_damaged_part_of_its_run(folder, column, value):
    folder.train(*FLAGS, "--max_steps", 3)
    with_state(folder, lambda saved: saved["run"]["parts"][0].update({column: value}))
    with pytest.raises(UserError, match="state.json in .*save_path is damaged; train again"):
        folder.infer()


# ---- clocks ----------------------------------------------------------------------------------------------------------

def test_a_resumed_runs_clocks_go_on(folder):
    folder.train(*FLAGS, "--max_steps", 5)
    with_state(folder, lambda saved: saved["state"].update(
        system_seconds=1e6, training_seconds=2e6, accelerator_seconds=3e5, step_seconds={"0": 500}))
    row = folder.train(*FLAGS, "--resume")
    assert 1e6 < float(row["system_seconds"]) < 1.1e6 and 3e5 < float(row["accelerator_seconds"]) < 3.1e5
    assert all((float(point["seconds"]) > 2e6) == (int(point["step"]) > 5) for point in folder.rows("curves")
               if point["max_steps"] == "0")
    assert row["steady_recommendations_per_second"] == "64.0" and row["step_ms_p50"] == "1000.000"


def test_steady_steps_are_whole_batches_after_the_warm_up(folder, capfd):
    row = folder.train(*TWO_EPOCHS, "--eval_every", 1000)
    whole_batches = len(DATASET.train.items) // 64
    assert "(%d steps, p50 " % (2 * whole_batches - 10) in capfd.readouterr().out
    p10, median, p90 = (float(row["steady_recommendations_per_second" + name]) for name in ("_p10", "", "_p90"))
    assert 0 < p10 <= median <= p90
    assert median == pytest.approx(64000 / float(row["step_ms_p50"]), rel=1e-3)
    assert float(row["step_ms_p50"]) <= float(row["step_ms_p99"])


def test_a_run_of_few_steps_has_no_steady_figure(folder):
    row = folder.train(*FLAGS, "--max_steps", 12)
    assert row["steady_recommendations_per_second"] == row["step_ms_p99"] == ""
    assert np.isfinite(float(row["accelerator_recommendations_per_second"]))
