"""What export.py writes gives infer.py's scores to those who load it without this project."""
import csv
import functools
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import TRIED_MODELS, Folder, Graph, flat_batch, random_dataset
from tests.oracle import padded, sigmoid
from tests.test_names import DATASET as NAMED
from tests.test_names import written as write_names
from utils.batches import flat_histories
from utils.commands import export_parser
from utils.files import ROOT
from utils.models import model_class
from utils.serving import export as exporting
from utils.tf1 import tf

DATASET = random_dataset()
ITEMS = DATASET.item_count
HISTORIES = [flat_histories(DATASET.test, np.array([row])) for row in range(12)]
CANDIDATES = np.random.RandomState(5).randint(0, ITEMS, (12, 9)).astype(np.int32)
BATCH = flat_batch(HISTORIES, CANDIDATES)
PADDED, LENGTHS = padded(HISTORIES)
LOADER = """
import sys
import numpy as np
import tensorflow as tf

path, requests, answers = sys.argv[1:]
requests = np.load(requests)
parts = ("items", "lengths", "candidates")
results = {}
if hasattr(tf, "Session"):  # TensorFlow 1.15
    with tf.Session() as session:
        signatures = tf.saved_model.loader.load(session, ["serve"], path).signature_def
        for name in ("flat", "padded"):
            signature = signatures[name]
            feeds = {signature.inputs[part].name: requests[name + part] for part in parts}
            for output in ("logits", "probabilities"):
                results[name + output] = session.run(signature.outputs[output].name, feeds)
else:
    signatures = tf.saved_model.load(path).signatures
    for name in ("flat", "padded"):
        outputs = signatures[name](**{part: tf.constant(requests[name + part]) for part in parts})
        results.update({name + output: value.numpy() for output, value in outputs.items()})
assert not any(name.split(".")[0] in ("utils", "din") for name in sys.modules)
np.savez(answers, **results)
"""


def versions(folder):
    """The versions in a folder, numbers; hidden files are none."""
    return sorted(int(name) for name in os.listdir(str(folder)) if not name.startswith("."))


class Exporter:
    """A trained model, its scores, and export.py for it."""

    def __init__(self, path, name):
        self.folder, self.name = Folder(path / name, DATASET, model=name), name
        self._runners = {}
        self.folder.train("--batch_size", 64, "--max_steps", 9)

    def __call__(self, *flags):
        """Exports with `flags`."""
        flags = ("--save_path", self.folder.save_path) + flags
        exporting.export(model_class(self.name), self.name, export_parser(self.folder.path, "").parse_args(flags))

    def path(self, *parts):
        return os.path.join(self.folder.save_path, *parts)

    def version(self):
        return self.path("saved_model", str(max(versions(self.path("saved_model")))))

    def runner(self, export_format):
        """Exports once; returns the function of a signature's name and inputs that gives its outputs by name."""
        if export_format not in self._runners:
            self._runners[export_format] = self._run(export_format)
        return self._runners[export_format]

    def _run(self, export_format):
        self("--format", export_format)
        if export_format == "saved_model":
            return functools.partial(run_saved_model, self.version())
        if export_format == "frozen":
            return functools.partial(run_frozen, self.path("frozen.pb"))
        runtime = pytest.importorskip("onnxruntime", reason="pip install -r requirements/onnx.txt")
        runtime.set_default_logger_severity(4)  # the errors that a test asks for
        session = runtime.InferenceSession(self.path("padded.onnx"), providers=["CPUExecutionProvider"])
        outputs = [output.name for output in session.get_outputs()]
        return lambda _, **inputs: dict(zip(outputs, session.run(outputs, inputs)))

    def expected(self, batch=BATCH):
        """(the logits of `batch`, the learned item biases)."""
        reader = tf.train.load_checkpoint(self.path("ckpt"))
        with Graph(self.name, DATASET, optimizer=None) as graph:
            graph.load({variable.op.name: reader.get_tensor(variable.op.name) for variable in graph.variables})
            has_bias = "item_b" in graph.values()
            return graph.score(batch), reader.get_tensor("item_b") if has_bias else np.zeros(ITEMS, np.float32)


@pytest.fixture(scope="module", params=TRIED_MODELS)
def exporter(request, tmp_path_factory):
    return Exporter(tmp_path_factory.mktemp("export"), request.param)


@pytest.fixture(scope="module")
def din(tmp_path_factory):
    return Exporter(tmp_path_factory.mktemp("din"), "din")


def run_saved_model(path, name, **inputs):
    """The outputs of a signature, in this process, by the loader that both TensorFlows have."""
    with tf.Graph().as_default(), tf.Session() as session:
        signature = tf.saved_model.loader.load(session, ["serve"], path).signature_def[name]
        outputs = {output: tensor.name for output, tensor in signature.outputs.items()}
        return session.run(outputs, {signature.inputs[part].name: values for part, values in inputs.items()})


def test_a_saved_model_gives_the_same_scores_in_a_process_without_this_project(exporter, tmp_path):
    exporter()
    requests = {"flatitems": BATCH.history, "flatlengths": BATCH.lengths, "flatcandidates": CANDIDATES,
                "paddeditems": PADDED, "paddedlengths": LENGTHS, "paddedcandidates": CANDIDATES}
    np.savez(str(tmp_path / "requests.npz"), **requests)
    (tmp_path / "load.py").write_text(LOADER)
    done = subprocess.run([sys.executable, "load.py", exporter.version(), "requests.npz", "answers.npz"],
                          cwd=str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    answers, (logits, _) = np.load(str(tmp_path / "answers.npz")), exporter.expected()
    for name in ("flat", "padded"):
        np.testing.assert_allclose(answers[name + "logits"], logits, atol=1e-6)
        np.testing.assert_allclose(answers[name + "probabilities"], sigmoid(logits), atol=1e-6)


def run_frozen(path, name, **inputs):
    definition = tf.GraphDef()
    with open(path, "rb") as file:
        definition.ParseFromString(file.read())
    assert not {node.op for node in definition.node} & {"VarHandleOp", "Assert"}
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(definition, name="")
        return session.run({output: "%s/%s:0" % (name, output) for output in ("logits", "probabilities")},
                           {"%s/%s:0" % (name, part): values for part, values in inputs.items()})


def test_a_frozen_graph_gives_the_same_scores(exporter):
    logits, _ = exporter.expected()
    for name, items in (("flat", BATCH.history), ("padded", PADDED)):
        outputs = exporter.runner("frozen")(name, items=items, lengths=LENGTHS, candidates=CANDIDATES)
        np.testing.assert_allclose(outputs["logits"], logits, atol=1e-6)
        np.testing.assert_allclose(outputs["probabilities"], sigmoid(logits), atol=1e-6)


def strange_request():
    """Inputs of `padded` with items that the model does not know, and users without any that it knows."""
    items = np.full((12, PADDED.shape[1] + 4), 3, np.int32)  # items beyond the lengths must not matter
    lengths = LENGTHS + 2
    for row, history in enumerate(HISTORIES):
        items[row, :lengths[row]] = np.concatenate([[ITEMS], history, [-1]])
    items[2], lengths[5], items[7, :] = ITEMS + 7, 0, -5
    candidates = CANDIDATES.copy()
    candidates[1, 4], candidates[2, 0], candidates[8, 8] = ITEMS, -1, 2 ** 31 - 1
    return dict(items=items, lengths=lengths, candidates=candidates)


def check_strange_answer(outputs, logits, bias):
    logits = logits.copy()
    logits[[2, 5, 7]] = bias[CANDIDATES[[2, 5, 7]]]
    for unknown in ((1, 4), (2, 0), (8, 8)):
        logits[unknown] = np.finfo(np.float32).min
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5)
    assert outputs["probabilities"][1, 4] == outputs["probabilities"][2, 0] == 0


FORMATS = [("saved_model", "flat"), ("saved_model", "padded"), ("frozen", "flat"), ("frozen", "padded"),
           pytest.param("onnx", "padded", marks=pytest.mark.skipif(
               not importlib.util.find_spec("tf2onnx"), reason="pip install -r requirements/onnx.txt"))]


@pytest.mark.parametrize("export_format, name", FORMATS[1:4:2] + FORMATS[4:])
def test_the_padded_signature_answers_for_what_it_does_not_know(exporter, export_format, name):
    run, (logits, bias) = exporter.runner(export_format), exporter.expected()
    check_strange_answer(run(name, **strange_request()), logits, bias)
    nothing = run(name, items=np.zeros((12, 0), np.int32), lengths=np.zeros(12, np.int32), candidates=CANDIDATES)
    np.testing.assert_allclose(nothing["logits"], bias[CANDIDATES], atol=1e-6)


@pytest.mark.parametrize("export_format, name", FORMATS)
def test_without_users_or_candidates_the_answer_is_empty(exporter, export_format, name):
    run = exporter.runner(export_format)
    for users, width, candidates in ((0, 3, 2), (0, 0, 2), (0, 0, 0), (2, 3, 0)):
        items = np.ones(users * width if name == "flat" else (users, width), np.int32)
        outputs = run(name, items=items, lengths=np.full(users, width, np.int32),
                      candidates=np.ones((users, candidates), np.int32))
        assert [values.shape for values in outputs.values()] == 2 * [(users, candidates)]


def padded_request(lengths=(2, 1), items=((1, 2, 3), (4, 0, 0)), candidates=((5,), (6,))):
    return {"lengths": np.array(lengths, np.int32), "items": np.array(items, np.int32),
            "candidates": np.array(candidates, np.int32)}


USERS, LENGTH = "lengths and (items|candidates) are not of as many users", "a length is negative or beyond the items"


@pytest.mark.parametrize("change, error", [
    ({"lengths": [2]}, USERS), ({"lengths": [2, 1, 1]}, USERS), ({"lengths": []}, USERS),
    ({"items": [[1, 2, 3]]}, USERS), ({"items": np.zeros((0, 3))}, USERS),
    ({"candidates": [[5]]}, USERS), ({"candidates": [[5], [6], [7]]}, USERS), ({"candidates": np.zeros((0, 3))}, USERS),
    ({"lengths": [4, 1]}, LENGTH), ({"lengths": [2, -1]}, LENGTH), ({"lengths": [2, 2 ** 31 - 1]}, LENGTH)])
def test_the_padded_signature_refuses_what_does_not_fit_and_where_it_has_no_errors_takes_the_nearest_length(
        din, change, error):
    with pytest.raises(tf.errors.InvalidArgumentError, match=error):
        din.runner("saved_model")("padded", **padded_request(**change))
    for export_format in ("frozen", "onnx") if importlib.util.find_spec("tf2onnx") else ("frozen",):
        run = din.runner(export_format)
        if error == LENGTH:
            nearest = dict(change, lengths=np.clip(change["lengths"], 0, 3))
            np.testing.assert_array_equal(run("padded", **padded_request(**change))["logits"],
                                          run("padded", **padded_request(**nearest))["logits"])
        else:
            with pytest.raises(Exception, match="(?i)concat"):
                run("padded", **padded_request(**change))


@pytest.mark.parametrize("change, error", [
    ({"items": BATCH.history + ITEMS}, "an item is not in 0 .. %d" % (ITEMS - 1)),
    ({"candidates": CANDIDATES - ITEMS}, "an item is not in 0 .. %d" % (ITEMS - 1)),
    ({"lengths": np.append([0, LENGTHS[0] + LENGTHS[1]], LENGTHS[2:])}, "a history is empty"),
    ({"items": BATCH.history[1:]}, "the sum of the lengths is not the number of items"),
    ({"candidates": CANDIDATES[1:]}, "lengths and candidates are not of as many users"),
], ids=["item", "candidate", "empty", "lengths", "users"])
def test_the_flat_signature_refuses_what_does_not_fit(din, change, error):
    inputs = dict({"items": BATCH.history, "lengths": LENGTHS, "candidates": CANDIDATES}, **change)
    with pytest.raises(tf.errors.InvalidArgumentError, match=error):
        din.runner("saved_model")("flat", **inputs)


@pytest.mark.parametrize("export_format, name", FORMATS[4:])
def test_onnx_gives_the_same_scores(exporter, export_format, name):
    logits, _ = exporter.expected()
    outputs = exporter.runner(export_format)(name, items=PADDED, lengths=LENGTHS, candidates=CANDIDATES)
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5)


def test_the_items_names_come_along(din, tmp_path):
    din("--remap", write_names(tmp_path), "--output", str(tmp_path / "served"))
    with open(str(tmp_path / "served" / "1" / "assets.extra" / "items.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["item"] for row in rows] == [str(item) for item in range(NAMED.item_count)]
    assert rows[3] == {"item": "3", "asin": "asin 3", "category": "category %d" % DATASET.cate_list[3]}


def test_each_export_is_a_version_above_the_highest_and_says_what_it_is_of(tmp_path, din, capfd):
    (tmp_path / "9000").mkdir()
    (tmp_path / "9000" / "saved_model.pb").write_text("an earlier export")
    din("--output", str(tmp_path))
    assert versions(tmp_path) == [9000, 9001]
    assert capfd.readouterr().out == "saved_model of din at step 9: %s\n" % (tmp_path / "9001")
    assert (tmp_path / "9000" / "saved_model.pb").read_text() == "an earlier export"
    with open(str(tmp_path / "9001" / "assets.extra" / "export.json")) as file:
        told = json.load(file)
    with open(din.path("state.json")) as file:
        run = json.load(file)["run"]
    assert told == {"model": "din", "dataset": "random", "step": 9, "run": run} and run["seed"] == 1234


def test_after_another_training_whose_best_step_is_lower_the_new_export_is_the_highest_version(tmp_path):
    exporter = Exporter(tmp_path, "din")
    exporter()
    exporter.folder.train("--batch_size", 64, "--max_steps", 4)
    exporter()
    assert versions(exporter.path("saved_model")) == [1, 2]
    logits, _ = exporter.expected()
    outputs = run_saved_model(exporter.path("saved_model", "2"), "flat", items=BATCH.history, lengths=LENGTHS,
                              candidates=CANDIDATES)
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-6)


def test_exports_at_the_same_time_are_versions_of_their_own(tmp_path, din):
    flags = ["--dataset", os.path.join(din.folder.path, "dataset.pkl"), "--save_path", din.folder.save_path, "--output",
             str(tmp_path)]
    processes = [subprocess.Popen([sys.executable, os.path.join(ROOT, "din", "export.py")] + flags,
                                  stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert versions(tmp_path) == [1, 2, 3]
