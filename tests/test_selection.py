"""Selection on validation, patience, a target of GAUC, what popularity alone gives, and outcomes by user."""
import glob
import io
import json
import os
import pickle
import re

import numpy as np
import pytest

from tests.helpers import TWO_EPOCHS, Folder, random_dataset, results_of
from tests.rows import INFER, TRAIN
from utils.data.popularity import popularity_gauc
from utils.data.validation import hold_out_validation
from utils.dataset import Dataset, build_sets, read_dataset
from utils.files import UserError
from utils.results import TRAIN_COLUMNS, add_rows, check_folder, read_rows, write_csv
from utils.runs.outcomes import outcomes_of, read_outcomes, store_outcomes
from utils.runs.stopping import (
    advice_on_evaluations,
    reaching_point,
    reason_to_end,
    step_to_end_at,
    target_columns,
    wider_spacing,
)
from utils.runs.unfinished import begin

VALIDATION = TWO_EPOCHS + ("--selection", "validation", "--optimizer", "adam", "--lr", 0.01)


def examples_of(train):
    """The examples of a TrainSet as the original's tuples: (user, history, candidate, label)."""
    return [(user, train.history_items[offset:offset + length].tolist(), item, label)
            for user, offset, length, item, label in zip(*map(np.ndarray.tolist, train[1:]))]


# ---- the validation set ----------------------------------------------------------------------------------------------

def test_the_validation_set_is_each_users_last_purchase_but_one_and_training_is_what_came_before():
    dataset = random_dataset()
    trained, validation = hold_out_validation(dataset)
    examples = examples_of(dataset.train)
    purchases = {user: dataset.test.history_items[offset:offset + length].tolist()  # without the last, the test's
                 for user, offset, length in zip(*map(np.ndarray.tolist, dataset.test[1:4]))}
    held_out = {user: (items[:-1], items[-1]) for user, items in purchases.items() if len(items) > 1}
    assert sorted(validation.users.tolist()) == sorted(held_out)
    for user, offset, length, positive, negative in zip(*map(np.ndarray.tolist, validation[1:])):
        history = validation.history_items[offset:offset + length].tolist()
        assert (history, positive) == held_out[user]
        assert (user, history, negative, 0) in examples
    assert examples_of(trained.train) == [
        example for example in examples if len(example[1]) < len(held_out[example[0]][0])]  # in the same order
    assert trained.test is dataset.test


def test_the_counts_on_real_purchases(beauty):
    dataset = read_dataset(str(beauty / "dataset.pkl"))
    trained, validation = hold_out_validation(dataset)
    assert [len(trained.train.items), len(validation.users), len(trained.test.users)] == [262826, 22363, 22363]
    assert popularity_gauc(dataset, dataset.test) == pytest.approx(0.656, abs=0.0005)


def test_users_of_two_purchases_have_no_validation_example():
    train, test = build_sets([0, 0, 1, 1, 1, 1, 2, 2, 2, 2], [0, 1, 2, 3, 4, 5, 0, 2, 4, 5], 9)
    dataset = Dataset(train, test, np.zeros(9, np.int32), 3, 9, 1, "few")
    trained, validation = hold_out_validation(dataset)
    assert sorted(validation.users) == [1, 2] and sorted(trained.test.users) == [0, 1, 2]


def test_data_without_whole_pairs_or_with_nothing_left_to_train_on_is_refused():
    dataset = random_dataset()
    train = dataset.train
    last = np.lexsort((train.labels, train.lengths, train.users))[-1]
    one_less = train._replace(**{name: np.delete(column, last) for name, column in train._asdict().items()
                                 if name != "history_items"})
    with pytest.raises(UserError, match="users without one purchase and one negative after the longest history"):
        hold_out_validation(dataset._replace(train=one_less))
    train, test = build_sets([0, 0, 0, 1, 1, 1], [0, 1, 2, 2, 3, 4], 9)
    with pytest.raises(UserError, match="nothing is left to train on"):
        hold_out_validation(Dataset(train, test, np.zeros(9, np.int32), 2, 9, 1, "few"))


# ---- training with it ------------------------------------------------------------------------------------------------

def test_the_best_checkpoint_is_chosen_on_validation_and_the_test_set_scored_once_with_it(folder, capfd):
    row = folder.train(*VALIDATION)
    lines = capfd.readouterr().out.splitlines()
    curve = [point for point in folder.rows("curves") if point["step"] != "0"]
    best = max(curve, key=lambda point: float(point["gauc"]))
    assert (row["best_step"], row["validation_gauc"], row["validation_auc"]) == (
        best["step"], best["gauc"], best["auc"])
    assert row["selected_on"] == "validation" and row["final_gauc"] == row["final_auc"] == ""
    inferred = folder.infer()
    assert (inferred["checkpoint_step"], inferred["gauc"], inferred["auc"]) == (
        row["best_step"], row["best_gauc"], row["best_auc"])
    assert (inferred["selected_on"], inferred["outcomes"]) == ("validation", row["outcomes"])
    assert lines[0].startswith("validation_gauc: ")
    assert [line for line in lines if "test_" in line] == ["best test_gauc: %.4f" % float(row["best_gauc"])]
    assert "best validation_gauc: %.4f" % float(best["gauc"]) in lines


def test_the_test_set_changes_nothing_but_its_score(tmp_path):
    dataset = random_dataset()
    test = dataset.test
    swapped = dataset._replace(test=test._replace(positives=test.negatives, negatives=test.positives))
    rows, curves = [], []
    for name, data in (("as it is", dataset), ("swapped", swapped)):
        folder = Folder(tmp_path / name, data)
        rows.append(folder.train(*VALIDATION))
        curves.append([(point["step"], point["gauc"], point["train_loss"]) for point in folder.rows("curves")])
    assert curves[0] == curves[1]
    assert rows[0]["best_step"] == rows[1]["best_step"]
    assert float(rows[0]["best_gauc"]) == pytest.approx(1 - float(rows[1]["best_gauc"]), abs=2e-6)  # there are no ties


def test_a_run_that_was_stopped_and_resumed_ends_as_an_undisturbed_one(tmp_path):
    whole = Folder(tmp_path / "whole").train(*VALIDATION)
    folder = Folder(tmp_path / "resumed")
    folder.train(*VALIDATION, "--max_steps", 7)
    resumed = folder.train(*VALIDATION, "--resume")
    assert resumed["parts"] != ""
    assert results_of(dict(resumed, parts="")) == results_of(whole)
    again = folder.train(*VALIDATION, "--resume")  # nothing is left to train
    assert results_of(again) == results_of(resumed)


def test_a_checkpoint_selected_on_one_set_is_not_gone_on_with_on_the_other(folder):
    folder.train(*VALIDATION, "--max_steps", 7)
    with pytest.raises(UserError, match="its selection is validation, not test"):
        folder.train(*TWO_EPOCHS, "--optimizer", "adam", "--lr", 0.01, "--resume")


def test_the_checkpoint_of_an_earlier_version_is_gone_on_with(folder):
    flags = TWO_EPOCHS + ("--seed", 3)
    folder.train(*flags, "--max_steps", 7)
    path = os.path.join(folder.save_path, "state.json")
    with open(path) as file:
        saved = json.load(file)
    for name in ("selection", "patience", "target_gauc"):
        del saved["run"][name]
    for name in ("best_outcomes", "test_gauc", "test_auc", "evaluation_seconds"):
        del saved["state"][name]
    for point in saved["curve"]:
        del point["seconds_without_evaluations"]
    with open(path, "w") as file:
        json.dump(saved, file)
    row = folder.train(*flags, "--resume")
    assert (row["selected_on"], row["patience"], row["target_gauc"]) == ("test", "0", "0")
    curve = [point for point in folder.rows("curves") if point["max_steps"] == "0"]
    assert [point["seconds_without_evaluations"] != "" for point in curve][:3] == [False, False, True]
    check_folder(os.path.join(folder.path, "results"), ("train", "curves"))


# ---- patience and target ---------------------------------------------------------------------------------------------

def test_patience_ends_a_run_after_so_many_evaluations_without_a_better_one(folder, capfd):
    flags = ("--batch_size", 64, "--epochs", 40, "--eval_every", 7, "--optimizer", "adam", "--lr", 0.03)
    row = folder.train(*flags, "--patience", 4)
    steps = [int(point["step"]) for point in folder.rows("curves")]
    assert sum(step > int(row["best_step"]) for step in steps) == 4 and int(row["steps"]) == steps[-1]
    assert "No better GAUC in 4 evaluations; the best is of step %s" % row["best_step"] in capfd.readouterr().out
    longer = folder.train(*flags, "--patience", 6, "--resume")
    whole = Folder(folder.path + "_whole").train(*flags, "--patience", 6)
    assert int(longer["steps"]) > int(row["steps"])
    assert results_of(longer) == results_of(whole)


def test_a_target_ends_a_run_at_the_first_evaluation_that_reaches_it(folder, capfd):
    flags = ("--batch_size", 64, "--epochs", 2, "--eval_every", 3, "--optimizer", "adam", "--lr", 0.01)
    curve = Folder(folder.path + "_whole")
    curve.train(*flags)
    points = [point for point in curve.rows("curves") if point["step"] != "0"]
    target = sorted(float(point["gauc"]) for point in points)[len(points) // 2]
    first = next(point for point in points if float(point["gauc"]) >= target)
    row = folder.train(*flags, "--target_gauc", target)
    assert (row["steps"], row["recommendations_to_target"]) == (first["step"], first["recommendations"])
    assert row["target_reached"] == "yes" and "The target GAUC %g is reached after" % target in capfd.readouterr().out
    last = folder.rows("curves")[-1]
    assert row["seconds_to_target"] == last["seconds"]
    assert float(row["seconds_to_target_without_evaluations"]) < float(row["seconds_to_target"])
    missed = folder.train(*flags, "--target_gauc", 1)
    assert (missed["target_reached"], missed["seconds_to_target"], missed["steps"]) == (
        "no", "", points[-1]["step"])


def test_a_run_that_went_on_past_a_target_gets_no_row_of_that_target(folder):
    flags = ("--batch_size", 64, "--epochs", 1, "--eval_every", 3)
    row = folder.train(*flags)
    with pytest.raises(UserError, match="has gone on to step %s, and with this --target_gauc or --patience it would "
                                        "have ended at step 3; leave it out" % row["steps"]):
        folder.train(*flags, "--resume", "--target_gauc", 0.01)
    same = folder.train(*flags, "--resume", "--target_gauc", 0)
    assert results_of(same) == results_of(row) and len(folder.rows("train")) == 1


def test_the_clock_of_evaluations_is_kept_when_a_run_is_resumed(folder):
    folder.train(*TWO_EPOCHS, "--max_steps", 7)
    with open(os.path.join(folder.save_path, "state.json")) as file:
        saved = json.load(file)
    last = saved["curve"][-1]
    assert saved["state"]["evaluation_seconds"] >= last["seconds"] - last["seconds_without_evaluations"] > 0


def test_a_trace_of_a_run_that_a_target_ended_has_the_steps_that_were_made(folder, capfd):
    folder.train("--batch_size", 64, "--max_steps", 20, "--profile")
    with open(os.path.join(folder.save_path, "trace.json")) as file:
        trace = file.read()
    assert "mean of steps 12 to 16" in capfd.readouterr().out
    folder.train("--batch_size", 64, "--max_steps", 20, "--profile", "--resume")
    with open(os.path.join(folder.save_path, "trace.json")) as file:
        assert file.read() == trace
    folder.train("--batch_size", 64, "--max_steps", 20, "--profile", "--eval_every", 1, "--target_gauc", 0.01)
    assert "Operations that took longest" not in capfd.readouterr().out


def point(step, gauc, seconds=0.0, without=0.0):
    return {"step": step, "gauc": gauc, "seconds": seconds, "seconds_without_evaluations": without,
            "recommendations": 10 * step}


CURVE = [point(0, 0.9), point(5, 0.6, 10.0, 8.0), point(10, 0.7, 20.0, 16.0), point(15, 0.65, 30.0, 24.0)]


def test_what_ends_a_run_is_read_off_its_curve():
    assert reaching_point(CURVE, 0.65) == CURVE[2]  # before the first step nothing is learnt yet
    assert reaching_point(CURVE, 0) is None and reaching_point(CURVE, 0.71) is None
    assert reason_to_end(CURVE, 0, 0) is None and reason_to_end(CURVE, 0, 2) is None
    assert "of step 10" in reason_to_end(CURVE, 0, 1) and "20.00 seconds" in reason_to_end(CURVE, 0.65, 0)
    assert reason_to_end(CURVE[:1], 0.5, 1) is None
    assert step_to_end_at(CURVE, 0.65, 0) == 10 and step_to_end_at(CURVE + [point(20, 0.6)], 0, 1) == 15
    assert step_to_end_at(CURVE, 0, 1) is None and step_to_end_at(CURVE, 0.8, 5) is None
    assert target_columns(CURVE, 0.65) == {
        "target_reached": "yes", "seconds_to_target": 20.0, "seconds_to_target_without_evaluations": 16.0,
        "recommendations_to_target": 100}
    assert target_columns(CURVE, 0.8)["target_reached"] == "no" and target_columns(CURVE, 0)["target_reached"] == ""


def test_evaluations_are_spaced_so_that_they_take_a_twentieth():
    spacing = wider_spacing(CURVE[2], eval_every=5)  # 2 seconds each, 1.6 a step
    assert 2.0 / (2.0 + 1.6 * spacing) <= 0.05 < 2.0 / (2.0 + 1.6 * (spacing - 5)) and spacing % 5 == 0
    assert advice_on_evaluations(CURVE[2], 5) == (
        "20%% of the time to the target; with --eval_every %d they take 5%% or less" % spacing)
    assert advice_on_evaluations(CURVE[2], 11) == (
        "20% of the time to the target; they are at the start and the ends of epochs, and can't be fewer")
    for cheap_or_unknown in (19.1, None):
        assert advice_on_evaluations(point(10, 0.7, 20.0, cheap_or_unknown), 5) is None


# ---- popularity ------------------------------------------------------------------------------------------------------

def test_popularity_is_how_often_an_item_was_bought_where_it_was_shown_or_else_its_category():
    train, test = build_sets([0, 0, 0, 1, 1, 1, 2, 2], [0, 1, 2, 3, 1, 4, 0, 5], 6)
    train = train._replace(items=np.array([1, 3, 1, 2], np.int32), labels=np.array([1, 0, 1, 0], np.int32))
    dataset = Dataset(train, test, np.array([0, 0, 0, 1, 1, 1], np.int32), 3, 6, 2, "few")

    def gauc(positives, negatives):
        pairs = test._replace(positives=np.array(positives, np.int32), negatives=np.array(negatives, np.int32))
        return popularity_gauc(dataset, pairs)
    assert gauc([1, 1, 1], [0, 2, 3]) == 1.0   # bought each time
    assert gauc([0, 0, 0], [2, 3, 4]) == 1.0   # never shown, of a category that was bought more often than not
    assert gauc([4, 4, 5], [5, 3, 4]) == pytest.approx(1 / 3)  # two of them never shown, of one category: a tie is 0


def test_a_run_that_ends_near_popularity_says_that_it_has_not_learnt_yet(tmp_path, capfd):
    row = Folder(tmp_path / "begun").train("--batch_size", 64, "--max_steps", 1, "--lr", 1e-9)
    output = capfd.readouterr()
    number, = re.findall(r"^popularity_gauc: (\d\.\d{4})\t", output.out, re.M)
    assert "%.4f" % float(row["popularity_gauc"]) == number
    assert (float(row["best_gauc"]) < float(row["popularity_gauc"]) + 0.01) == ("\nNot learnt yet: " in output.out)
    assert [point["popularity_gauc"] for point in Folder(tmp_path / "begun").rows("curves")] == 2 * [
        row["popularity_gauc"]]


def test_the_curves_floor_is_of_the_set_that_they_are_measured_on(folder):
    row = folder.train(*VALIDATION, "--max_steps", 3)
    dataset = random_dataset()
    trained, validation = hold_out_validation(dataset)
    assert row["popularity_gauc"] == "%.6f" % popularity_gauc(trained, dataset.test)
    assert folder.rows("curves")[0]["popularity_gauc"] == "%.6f" % popularity_gauc(trained, validation)
    assert folder.infer()["popularity_gauc"] == row["popularity_gauc"]


# ---- outcomes --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("selection", ["test", "validation"])
def test_a_row_names_the_outcomes_of_its_test_gauc(folder, selection):
    row = folder.train(*TWO_EPOCHS, "--selection", selection)
    right = read_outcomes(os.path.join(folder.path, "results"), row["outcomes"])
    assert right.shape == (len(random_dataset().test.users),)
    assert right.mean() == pytest.approx(float(row["best_gauc"]), abs=1e-6)


def test_outcomes_that_are_not_there_or_are_damaged(tmp_path):
    results = str(tmp_path)
    scores = np.array([[2, 1], [1, 2], [1, 1], [3, 1], [0, 1], [1, 0], [1, 0], [2, 0], [5, 0]], np.float32)
    name = store_outcomes(results, outcomes_of(scores), len(scores))
    assert read_outcomes(results, name).tolist() == [True, False, False, True, False, True, True, True, True]
    assert read_outcomes(results, "") is None and read_outcomes(results, "0" * 16) is None
    path = tmp_path / "outcomes" / (name + ".npz")
    content = path.read_bytes()
    unzipped = io.BytesIO()
    np.save(unzipped, np.ones(9, bool))
    for damage in [b"", content[:-30], b"no archive", unzipped.getvalue()] + [
            content[:place] + bytes([content[place] ^ 0x5A]) + content[place + 1:] for place in range(30, 180, 15)]:
        path.write_bytes(damage)
        try:
            assert read_outcomes(results, name).sum() == 6  # a change of what does not matter, such as a date
        except UserError as error:
            assert re.search("outcomes.*can't be read.*move it away", str(error))
    np.savez(str(path), right=np.ones(9, bool))
    with pytest.raises(UserError, match="other outcomes than its name says"):
        read_outcomes(results, name)


def test_a_folder_of_results_whose_outcomes_cannot_be_written_is_refused_before_the_training(folder):
    os.makedirs(os.path.join(folder.path, "results"))
    with open(os.path.join(folder.path, "results", "outcomes"), "w"):
        pass
    with pytest.raises(UserError, match="outcomes can't be written"):
        folder.train(*TWO_EPOCHS)
    assert not os.path.exists(os.path.join(folder.save_path, "ckpt.index"))


def test_rows_that_are_moved_or_copied_aside_take_their_outcomes_along(tmp_path):
    results = str(tmp_path / "results")
    name = store_outcomes(results, outcomes_of(np.array([[2, 1], [1, 2]], np.float32)), 2)
    row = dict(TRAIN, outcomes=name)
    add_rows(results, {"train": [row]})
    add_rows(results, {"train": [dict(row, system_seconds="21.000")], "infer": [dict(INFER, outcomes=name)]})
    copied, = glob.glob(results + "_*")
    assert read_outcomes(copied, name).tolist() == [True, False]
    begin(results, "infer", "settings")
    moved, = set(glob.glob(results + "_*")) - {copied}
    assert os.path.exists(os.path.join(moved, "results_infer.csv"))
    for folder in (results, moved):
        assert read_outcomes(folder, name).tolist() == [True, False]


def test_what_earlier_versions_wrote_was_selected_on_the_test_set(tmp_path):
    columns = TRAIN_COLUMNS[:TRAIN_COLUMNS.index("selected_on")]
    write_csv(str(tmp_path / "results_train.csv"), columns, [{column: TRAIN[column] for column in columns}])
    row, = read_rows(str(tmp_path), "train")
    assert (row["selected_on"], row["patience"], row["target_gauc"], row["validation_gauc"]) == ("test", "0", "0", "")


def test_a_validation_set_is_made_of_the_originals_pickle_too(tmp_path):
    dataset = random_dataset()
    test = [(user, dataset.test.history_items[offset:offset + length].tolist(), (positive, negative))
            for user, offset, length, positive, negative in zip(*map(np.ndarray.tolist, dataset.test[1:]))]
    with open(str(tmp_path / "dataset.pkl"), "wb") as file:
        for part in (examples_of(dataset.train), test, dataset.cate_list, dataset[3:6]):
            pickle.dump(part, file, 2)
    trained, validation = hold_out_validation(read_dataset(str(tmp_path / "dataset.pkl")))
    expected_trained, expected = hold_out_validation(dataset)
    assert examples_of(trained.train) == examples_of(expected_trained.train)
    assert validation.users.tolist() == expected.users.tolist()
    assert [validation.positives.tolist(), validation.negatives.tolist(), validation.lengths.tolist()] == [
        expected.positives.tolist(), expected.negatives.tolist(), expected.lengths.tolist()]
