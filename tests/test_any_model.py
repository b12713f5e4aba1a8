"""Tests that hold for every model in the project, a new one included: nothing here names one.

Further tests of every model: several accelerators (test_towers.py), scoring (test_inference.py), exports
(test_export.py) and rankings (test_ranking.py).
"""
import ast
import os

import numpy as np
import pytest

from tests.helpers import Folder, Graph, flat_batch, random_dataset, run_script
from utils.batches import train_batches
from utils.files import ROOT
from utils.models import names, place_of
from utils.tf1 import tf

DATASET = random_dataset()
BATCH = next(train_batches(DATASET.train, 32, seed=1, epoch=0))


@pytest.mark.parametrize("command", ["train", "infer", "export", "build_dataset"])
@pytest.mark.parametrize("name", names())
def test_each_command_tells_its_arguments(name, command):
    done = run_script(os.path.join(place_of(name).folder, command + ".py"), "--help")
    assert done.returncode == 0 and "--output" in done.stdout + "--output" * (command == "train") and not done.stderr


@pytest.fixture(scope="module", params=names())
def graph(request):
    """A model's graph, with variables that are far enough from 0 for every term to show."""
    with Graph(request.param, DATASET) as graph:
        graph.name = request.param
        graph.load_known_values()
        yield graph


def test_every_variable_is_given_a_gradient_unless_no_score_depends_on_its_value(graph):
    """No score depends on a bias that is added to all scores of a softmax."""
    for name, gradient in graph.gradients(BATCH).items():
        if np.abs(gradient).max() < 1e-8:
            variable, = [variable for variable in graph.variables if variable.op.name == name]
            assert tf.gradients(graph.loss, variable)[0] is not None, "nothing is computed of " + name
            before, values = graph.score(BATCH), graph.values()
            graph.load(dict(values, **{name: values[name] + 1}))
            np.testing.assert_allclose(graph.score(BATCH), before, atol=1e-5, err_msg="%s is given no gradient" % name)
            graph.load(values)


def test_a_graph_that_trains_and_one_that_scores_are_of_one_formula(graph):
    """The logits are equal, and the gradients: here by TensorFlow's own gradients of lookups in whole tables."""
    with Graph(graph.name, DATASET, optimizer=None) as plain:
        plain.load(graph.values())
        labels = tf.constant(BATCH.labels)
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=plain.logits))
        gradients = {variable.op.name: tf.convert_to_tensor(gradient) for variable, gradient in zip(
            plain.variables, tf.gradients(loss, plain.variables))}
        expected = plain.session.run(gradients, dict(zip(plain.inputs, BATCH)))
        np.testing.assert_allclose(graph.score(BATCH), plain.score(BATCH), rtol=1e-5, atol=1e-6)
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in graph.gradients(BATCH).items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-3, atol=1e-5 * largest, err_msg=name)


def test_several_candidates_score_as_each_would_alone(graph):
    random = np.random.RandomState(4)
    histories = [random.randint(0, DATASET.item_count, length).tolist() for length in (3, 7, 1, 12, 5, 9)]
    candidates = random.randint(0, DATASET.item_count, (len(histories), 5))
    together = graph.score(flat_batch(histories, candidates))
    alone = [graph.score(flat_batch(histories, column))[:, 0] for column in candidates.T]
    np.testing.assert_allclose(together, np.stack(alone, axis=1), atol=1e-6)


@pytest.mark.parametrize("name", names())
def test_its_file_holds_no_session_optimizer_or_saver(name):
    with open(os.path.join(ROOT, place_of(name).module.replace(".", os.sep) + ".py")) as file:
        tree = ast.parse(file.read())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not used & {"Session", "session", "Saver", "saver", "train", "placeholder", "gradients"}


@pytest.mark.parametrize("name", names())
def test_a_run_that_stops_and_resumes_gives_what_an_uninterrupted_one_gives(name, tmp_path):
    flags = ("--epochs", 2, "--batch_size", 64, "--eval_every", 7, "--max_steps", 24)
    whole, parts = (Folder(tmp_path / part, DATASET, name) for part in ("whole", "parts"))
    uninterrupted = whole.train(*flags)
    parts.train(*flags, "--max_steps", 9)
    resumed = parts.train(*flags, "--resume")
    for column in ("final_loss", "final_gauc", "final_auc", "steps", "recommendations"):
        assert resumed[column] == uninterrupted[column], column
    expected = whole.latest_variables()
    for variable, value in parts.latest_variables().items():
        np.testing.assert_array_equal(value, expected[variable], variable)
