"""Training and inference: the log, the CSVs, checkpoints, TensorBoard, resuming, and what goes wrong."""
import glob
import json
import os
import re
import runpy
import sys

import numpy as np
import pytest
from google.protobuf import text_format
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.projector import projector_config_pb2

from tests.helpers import Folder, Graph, golden, random_dataset, run_script
from utils import batches, towers, train_loop
from utils.batches import test_batches as batches_of_test
from utils.data.pickles import dump_parts
from utils.dataset import Dataset, build_sets, write_dataset
from utils.files import ROOT, UserError
from utils.models import names
from utils.results import CURVES_COLUMNS, INFER_COLUMNS, TRAIN_COLUMNS
from utils.runs.checkpoints import Checkpoints
from utils.runs.locks import acquire
from utils.runs.summaries import write_projector
from utils.tf1 import tf

DATASET = random_dataset()
EXAMPLES, USERS = len(DATASET.train.items), len(DATASET.test.users)
@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "din")


TWO_EPOCHS = ("--batch_size", 64, "--epochs", 2, "--eval_every", 7)
STEPS_PER_EPOCH = -(-EXAMPLES // 64)


def test_the_log_has_the_fixed_lines_in_order(folder, capfd):
    row = folder.train(*TWO_EPOCHS)
    output = capfd.readouterr().out
    number = r"\d+\.\d{4}"
    evaluation = r"Epoch (\d+) Global_step (\d+)\tTrain_loss: %s\tEval_GAUC: %s\tEval_AUC: %s\n" % ((number,) * 3)
    assert re.match(
        r"test_gauc: {n}\t test_auc: {n}\n(({e})+Epoch \d+ DONE\tCost time: \d+\.\d\d\n){{2}}"
        r"best test_gauc: {n}\nTotal recommendations: {total}\nApproximate accelerator time in seconds: \d+\.\d+\n"
        r"Approximate accelerator performance in recommendations/second: \d+\.\d+\n"
        r"System time in milliseconds is: \d+\nSystem performance in recommendations/second is: \d+\.\d+\n$".format(
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
            2 * EXAMPLES / float(row[clock + "_seconds"]), rel=0.01, abs=0.05)  # it has one decimal
    assert (row["optimizer"], row["learning_rate"], row["seed"]) == ("sgd", "1.0", "1234")
    assert row["tensorflow"] == tf.__version__ and row["device"].startswith("CPU ")


def results_of(row):
    return [row[name] for name in TRAIN_COLUMNS if "seconds" not in name and "per_second" not in name]


def test_one_seed_gives_one_result_and_another_seed_another(tmp_path):
    first, again, other = (Folder(tmp_path / name).train(*TWO_EPOCHS, "--seed", seed)
                           for name, seed in (("first", 5), ("again", 5), ("other", 6)))
    assert results_of(first) == results_of(again)
    assert first["final_loss"] != other["final_loss"]


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
    """As --resume unfinished; an unfinished run is one whose state does not say that it is finished."""
    whole = folder.train(*TWO_EPOCHS, "--resume", "unfinished")
    assert "resuming" not in capfd.readouterr().out
    folder.train(*TWO_EPOCHS, "--max_steps", 7, "--resume", "unfinished")
    output = capfd.readouterr().out
    assert "the earlier run in " in output and "resuming" not in output
    state_path = os.path.join(folder.save_path, "state.json")
    with open(state_path) as file:
        state = json.load(file)
    assert state.pop("finished")
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


def test_an_earlier_run_is_set_aside_not_overwritten(folder):
    folder.train(*TWO_EPOCHS)
    with open(os.path.join(folder.save_path, "ckpt.data-00000-of-00001"), "rb") as file:
        earlier = file.read()
    folder.train(*TWO_EPOCHS, "--seed", 9)
    kept, = glob.glob(os.path.join(folder.save_path, "earlier_*"))
    with open(os.path.join(kept, "ckpt.data-00000-of-00001"), "rb") as file:
        assert file.read() == earlier
    assert len(folder.rows("train")) == 1
    assert len(glob.glob(os.path.join(folder.path, "results_*", "results_train.csv"))) == 1


@pytest.mark.parametrize("batch_size", [1, 16, 1000])
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
    own = Folder(tmp_path_factory.mktemp("one"), SEVEN_USERS, "pnn")
    return own, own.train("--batch_size", 24, *SEVERAL)


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
    for inferred in (several.infer("--batch_size", 2),
                     one.infer("--batch_size", 1, "--num_accelerators", num_accelerators)):
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
def test_fewer_gpus_than_asked_for_ends_the_command(tmp_path, monkeypatch, command):
    monkeypatch.setattr(towers, "gpu_names", lambda: ("Test GPU", "Test GPU"))
    own = Folder(tmp_path)
    monkeypatch.setattr(sys, "argv", [command + ".py", "--num_accelerators", "3", "--save_path", own.save_path,
                                      "--dataset", os.path.join(own.path, "dataset.pkl")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(os.path.join(ROOT, "din", command + ".py"), run_name="__main__")
    assert ended.value.code == ("error: 3 accelerators asked for, 2 GPUs found; lower NUM_ACCELERATORS, or see that "
                                "CUDA_VISIBLE_DEVICES shows TensorFlow the others")
    assert not glob.glob(os.path.join(own.save_path, "*"))


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


def test_steps_scores_and_checkpoints_add_nothing_to_the_graph(tmp_path):
    with Graph("din", DATASET) as graph:
        graph.tf_graph.finalize()  # whatever adds an operation from here on raises
        checkpoints = Checkpoints(str(tmp_path), graph.saver)
        for batch, _ in zip(batches.train_batches(DATASET.train, 32, seed=1, epoch=0), range(2)):
            graph.train(batch, 1.0)
            graph.score(batch)
            checkpoints.save(graph.session, {"run": {}, "state": {}}, best=True)
            checkpoints.restore(graph.session, "ckpt")


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


def learnable():
    """A data set whose users buy in one category only; most of what they don't buy is in another."""
    random = np.random.RandomState(0)
    items = np.concatenate([user % 2 * 100 + random.permutation(100)[:12] for user in range(200)])
    train_set, test_set = build_sets(np.repeat(np.arange(200), 12), items, 200)
    return Dataset(train_set, test_set, (np.arange(200) >= 100).astype(np.int32), 200, 200, 2, "learnable")


def test_trivially_learnable_data_is_learnt(tmp_path):
    dataset = learnable()
    row = Folder(tmp_path, dataset).train("--batch_size", 32, "--epochs", 4, "--optimizer", "adam", "--lr", 0.01)
    same_category = np.mean(dataset.cate_list[dataset.test.positives] == dataset.cate_list[dataset.test.negatives])
    # Where the negative is of the user's own category nothing tells it apart: half of those are lost.
    assert float(row["best_gauc"]) > 1 - same_category / 2 - 0.05


def events_of(folder):
    path, = glob.glob(os.path.join(folder.save_path, "events.out.*"))
    return list(tf.train.summary_iterator(path))


def test_tensorboard_finds_the_curves_and_the_graph(folder):
    folder.train("--batch_size", 8, "--epochs", 2, "--eval_every", 50)
    curves, graphs = {}, []
    for event in events_of(folder):
        graphs += [event.graph_def] if event.graph_def else []
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert set(curves) == {"train_loss", "learning_rate", "recommendations_per_second", "eval_gauc", "eval_auc"}
    assert [step for step, _ in curves["train_loss"]] == list(range(100, 2 * (-(-EXAMPLES // 8)) + 1, 100))
    assert [step for step, _ in curves["eval_gauc"]][:2] == [0, 50]
    assert all(rate == 1.0 for _, rate in curves["learning_rate"])
    graph, = graphs
    scopes = {node.name.split("/")[1] for node in tf.GraphDef.FromString(graph).node if node.name.startswith("tower_0/")}
    assert {"embedding", "attention", "mlp"} <= scopes


@pytest.mark.parametrize("model, tags", [("din", {"attention_weights", "embedding_norms/item_emb_w", "embedding_norms/cate_emb_w"}),
                                         ("pnn", {"embedding_norms/item_emb_w", "embedding_norms/cate_emb_w"})])
def test_tensorboard_finds_a_histogram_of_each_evaluation(tmp_path, model, tags):
    folder = Folder(tmp_path, model=model)
    folder.train(*TWO_EPOCHS, "--max_steps", 7)
    histograms = {(event.step, value.tag): value.histo for event in events_of(folder) for value in event.summary.value
                  if value.HasField("histo")}
    assert set(histograms) == {(step, tag) for step in (0, 7) for tag in tags}
    for (_, tag), histogram in histograms.items():
        assert sum(histogram.bucket) == histogram.num > 0
        if tag == "attention_weights":
            assert histogram.sum == pytest.approx(2 * USERS, rel=1e-5)  # two candidates each
    norms = np.linalg.norm(folder.latest_variables()["item_emb_w"], axis=1)
    last = histograms[7, "embedding_norms/item_emb_w"]
    np.testing.assert_allclose([last.num, last.min, last.max, last.sum], [len(norms), norms.min(), norms.max(), norms.sum()],
                               rtol=1e-5)


def test_tensorboard_compares_runs_by_their_hyperparameters(folder):
    folder.train(*TWO_EPOCHS, "--max_steps", 1)
    data = {value.tag: plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
            for event in events_of(folder) for value in event.summary.value
            if value.metadata.plugin_data.plugin_name == "hparams"}
    started = data["_hparams_/session_start_info"].session_start_info.hparams
    assert {name: value.string_value or value.number_value for name, value in started.items()} == {
        "model": "din", "dataset": "random", "batch_size": 64, "num_accelerators": 1, "num_workers": 1, "optimizer": "sgd", "lr": 1,
        "epochs": 2, "seed": 1234}
    assert data["_hparams_/session_end_info"].session_end_info.status == api_pb2.STATUS_SUCCESS


def test_tensorboards_projector_finds_the_embeddings_of_the_best_checkpoint(folder):
    """Their names are numbers here, where there is no remap.pkl of this data; tests/test_names.py has others."""
    folder.train(*TWO_EPOCHS, "--max_steps", 7)
    with open(os.path.join(folder.save_path, "projector_config.pbtxt")) as file:
        config = text_format.Parse(file.read(), projector_config_pb2.ProjectorConfig())
    path = tf.train.latest_checkpoint(folder.save_path)
    assert os.path.basename(path) == "ckpt"
    reader = tf.train.load_checkpoint(path)
    lines = {}
    for embedding in config.embeddings:
        with open(os.path.join(folder.save_path, embedding.metadata_path)) as file:
            lines[embedding.tensor_name] = file.read().splitlines()
    assert lines["item_emb_w"] == ["asin\tcategory"] + ["%d\t%d" % pair for pair in enumerate(DATASET.cate_list)]
    assert lines["cate_emb_w"] == [str(category) for category in range(DATASET.cate_count)]
    assert len(lines["item_emb_w"]) - 1 == len(reader.get_tensor("item_emb_w"))
    assert len(lines["cate_emb_w"]) == len(reader.get_tensor("cate_emb_w"))


def test_names_with_line_ends_and_tabs_stay_on_their_line(tmp_path):
    dataset = random_dataset(items=30, categories=1)
    keys = ["a\tb\n%d" % item for item in range(30)], ["c\u2028d\r"], [str(user) for user in range(dataset.user_count)]
    dump_parts(str(tmp_path / "remap.pkl"), [{}, dataset.cate_list, (), keys, {"dataset": "random"}])
    write_projector(str(tmp_path), dataset, str(tmp_path / "remap.pkl"))
    assert (tmp_path / "items.tsv").read_text(encoding="utf-8").split("\n") == (
        ["asin\tcategory"] + ["a b %d\tc d" % item for item in range(30)] + [""])


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
    assert 0 < float(curves[0]["seconds"]) < float(curves[1]["seconds"]) < float(last["seconds"]) < float(row["system_seconds"])
    folder.train(*TWO_EPOCHS, "--max_steps", 7)
    assert [(point["batch_size"], point["step"]) for point in folder.rows("curves")] == [
        ("32", "0"), ("32", "9"), ("64", "0"), ("64", "7")]


def test_a_resumed_run_has_the_whole_curve(tmp_path):
    whole, parts = Folder(tmp_path / "whole"), Folder(tmp_path / "parts")
    whole.train(*TWO_EPOCHS)
    parts.train(*TWO_EPOCHS, "--max_steps", 7)
    parts.train(*TWO_EPOCHS, "--resume")

    def without_clock(folder):
        return [{name: value for name, value in point.items() if name != "seconds"} for point in folder.rows("curves")]
    assert without_clock(parts) == without_clock(whole)
    seconds = [float(point["seconds"]) for point in parts.rows("curves")]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("steps, traced", [(40, [12, 13, 14, 15, 16]), (4, [2, 3, 4]), (1, [1])])
def test_a_profile_names_what_takes_longest_and_changes_no_result(tmp_path, capfd, steps, traced):
    flags = TWO_EPOCHS + ("--max_steps", steps)
    plain = Folder(tmp_path / "plain").train(*flags)
    capfd.readouterr()
    folder = Folder(tmp_path / "profiled")
    profiled = folder.train(*flags, "--profile")
    assert profiled["final_loss"] == plain["final_loss"] and profiled["final_gauc"] == plain["final_gauc"]

    output = capfd.readouterr().out
    total, shown = re.search(r"of (\d+\.\d+) ms a step in all operations .*:\n +ms/step   share  operation\n"
                             r"((?: +\d+\.\d+ +\d+\.\d%  .+\n){10})", output).groups()
    spent = [float(line.split()[0]) for line in shown.splitlines()]
    assert spent == sorted(spent, reverse=True) and 0 < sum(spent) < float(total)
    assert "MatMul" in shown and "tower_0" not in shown
    with open(os.path.join(folder.save_path, "trace.json")) as file:
        events = json.load(file)["traceEvents"]
    products = {event["ts"] for event in events if event["ph"] == "X" and event["name"].endswith("MatMul")}
    assert len(products) >= len(traced)
    assert [event.tagged_run_metadata.tag for event in events_of(folder) if event.tagged_run_metadata.tag] == [
        "step %d" % step for step in traced]


def test_a_run_that_is_through_has_no_step_to_profile(folder, capfd):
    folder.train(*TWO_EPOCHS)
    folder.train(*TWO_EPOCHS, "--resume", "--profile")
    assert "Operations" not in capfd.readouterr().out
    assert not os.path.exists(os.path.join(folder.save_path, "trace.json"))


def test_a_loss_that_is_not_finite_ends_the_run_without_a_row(folder):
    with pytest.raises(UserError, match=r"the loss is nan at step \d+; lower --lr \(there is no checkpoint yet\)"):
        folder.train(*TWO_EPOCHS, "--lr", 1e38)
    assert not os.path.exists(os.path.join(folder.path, "results"))


@pytest.mark.parametrize("step", [12, 13])  # 13 is the step before an evaluation: its scores are the first to show it
def test_a_run_that_diverges_keeps_its_last_good_checkpoint(folder, monkeypatch, step):
    monkeypatch.setattr(train_loop, "learning_rate_at", lambda *arguments: float("nan") if arguments[-1] == step else 1.0)
    with pytest.raises(UserError, match=r" at step \d+; lower --lr \(the checkpoint of step 7 is kept in .*save_path\)"):
        folder.train(*TWO_EPOCHS)
    assert all(np.isfinite(value).all() for value in folder.latest_variables().values())
    assert folder.infer()["checkpoint_step"] in ("7", "0")


def test_a_model_that_learns_nothing_is_warned_of_once(tmp_path, capfd):
    """Labels that have nothing to do with the items, then labels that have."""
    Folder(tmp_path / "noise").train("--batch_size", 64, "--epochs", 6, "--lr", 1e-6)
    warning, = capfd.readouterr().err.splitlines()
    assert re.match(r"warning: after step %d the GAUC is at chance level \(0\.\d{4}\) for the second time; "
                    % (2 * STEPS_PER_EPOCH), warning)
    Folder(tmp_path / "learnable", learnable()).train("--batch_size", 32, "--epochs", 4, "--optimizer", "adam", "--lr", 0.01)
    assert "warning" not in capfd.readouterr().err


def test_a_batch_larger_than_the_data_is_refused(folder):
    with pytest.raises(UserError, match="a batch of %d is larger than the training set of %d" % (EXAMPLES + 1, EXAMPLES)):
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
