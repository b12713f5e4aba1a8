"""TensorBoard: its curves, graph, histograms, hyperparameters and embeddings; the trace of a profile."""
import glob
import json
import os
import re

import numpy as np
import pytest
from google.protobuf import text_format
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.projector import projector_config_pb2

from tests.helpers import TWO_EPOCHS, Folder, random_dataset
from utils.data.pickles import dump_parts
from utils.runs.summaries import write_projector
from utils.tf1 import tf

DATASET = random_dataset()
EXAMPLES, USERS = len(DATASET.train.items), len(DATASET.test.users)


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
    names = [node.name for node in tf.GraphDef.FromString(graph).node]
    scopes = {name.split("/")[1] for name in names if name.startswith("tower_0/")}
    assert {"embedding", "attention", "mlp"} <= scopes


NORMS = {"embedding_norms/item_emb_w", "embedding_norms/cate_emb_w"}


@pytest.mark.parametrize("model, tags", [("din", NORMS | {"attention_weights"}), ("pnn", NORMS)])
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
    np.testing.assert_allclose([last.num, last.min, last.max, last.sum],
                               [len(norms), norms.min(), norms.max(), norms.sum()], rtol=1e-5)


def test_tensorboard_compares_runs_by_their_hyperparameters(folder):
    folder.train(*TWO_EPOCHS, "--max_steps", 1)
    data = {value.tag: plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
            for event in events_of(folder) for value in event.summary.value
            if value.metadata.plugin_data.plugin_name == "hparams"}
    started = data["_hparams_/session_start_info"].session_start_info.hparams
    assert {name: value.string_value or value.number_value for name, value in started.items()} == {
        "model": "din", "dataset": "random", "batch_size": 64, "num_accelerators": 1, "num_workers": 1,
        "optimizer": "sgd", "lr": 1, "epochs": 2, "seed": 1234, "selection": "test"}
    assert data["_hparams_/session_end_info"].session_end_info.status == api_pb2.STATUS_SUCCESS


def test_tensorboards_projector_finds_the_embeddings_of_the_best_checkpoint(folder):
    """Items are named by numbers, as this data has no remap.pkl; tests/test_names.py has other names."""
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
