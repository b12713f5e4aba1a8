"""The models compute what the authors' corrected graphs compute, and what a plain padded implementation computes."""
import numpy as np
import pytest

from benchmarks.padded import REFERENCES
from tests import oracle
from tests.helpers import Graph, flat_batch, golden
from tests.oracle import sigmoid
from utils import layers
from utils.engine.embeddings import Catalogue
from utils.files import UserError
from utils.models import names
from utils.tf1 import tf


@pytest.fixture(scope="module", params=names())
def case(request):
    return dict(golden(request.param), name=request.param)


def catalogue_of(case):
    return Catalogue(case["sizes"]["item_count"], case["sizes"]["cate_count"], case["cate_list"])


@pytest.fixture(scope="module")
def shared_graph(case):
    """The model's graph with the golden files' sizes and optimizer, built once, since building takes the time here."""
    with Graph(case["name"], catalogue_of(case), optimizer=case["expected"]["optimizer"]["name"]) as graph:
        yield graph


@pytest.fixture
def graph(shared_graph):
    """The model's graph with the golden files' variables."""
    shared_graph.load_known_values()
    return shared_graph


def golden_batch(case, *candidates):
    batch = case["batch"]
    return flat_batch(batch["hist"], np.stack([batch[name] for name in candidates], axis=1),
                      np.stack([batch["y"]] * len(candidates), axis=1))


def test_golden_logits_scores_and_loss(case, graph):
    expected = case["expected"]
    logits = graph.score(golden_batch(case, "i", "j"))
    loss = graph.session.run(graph.loss, graph.feeds(golden_batch(case, "i")))
    np.testing.assert_allclose(logits[:, 0], expected["logits"], atol=1e-5)
    np.testing.assert_allclose(sigmoid(logits[:, 0]), expected["score_pos"], atol=1e-5)
    np.testing.assert_allclose(sigmoid(logits[:, 1]), expected["score_neg"], atol=1e-5)
    assert np.mean(logits[:, 0] > logits[:, 1]) == expected["mf_auc"]
    assert loss == pytest.approx(expected["loss"], abs=1e-5)


def test_attention_weights_are_the_softmax_over_each_history(case, graph):
    """The softmax is of the paper's scores, written out here for each history and candidate alone."""
    batch = golden_batch(case, "i", "j")
    weights = graph.attention_weights(batch)
    if case["name"] not in ("din", "din_dice"):
        assert weights is None
        return
    values = graph.values()
    categories = np.array(case["cate_list"])

    def embed(items):
        return np.concatenate([values["item_emb_w"][items], values["cate_emb_w"][categories[items]]], axis=-1)

    def layer(x, name):
        return x @ values[name + "/kernel"].astype(np.float64) + values[name + "/bias"]
    for start, length, candidates in zip(np.cumsum(batch.lengths) - batch.lengths, batch.lengths, batch.candidates):
        k = embed(batch.history[start:start + length])
        for column, q in enumerate(np.broadcast_to(embed(candidate), k.shape) for candidate in candidates):
            x = sigmoid(layer(sigmoid(layer(np.concatenate([q, k, q - k, q * k], axis=-1), "f1_att")), "f2_att"))
            powers = np.exp(layer(x, "f3_att")[:, 0] / np.sqrt(128))
            np.testing.assert_allclose(weights[start:start + length, column], powers / powers.sum(), atol=1e-6)


def test_golden_gradients(case, graph):
    gradients = graph.gradients(golden_batch(case, "i"))
    assert set(gradients) == set(case["expected"]["gradients"])
    for name, expected in case["expected"]["gradients"].items():
        # A bias before a softmax has no gradient; both sides have rounding errors there, around 1e-11.
        assert np.linalg.norm(gradients[name]) == pytest.approx(expected["l2"], rel=1e-3, abs=1e-9), name
        assert gradients[name].sum() == pytest.approx(expected["sum"], rel=1e-3, abs=1e-6), name


def check_training_steps(case, graph):
    batch, expected = golden_batch(case, "i"), case["expected"]
    losses = [graph.train(batch, expected["optimizer"]["lr"]) for _ in range(5)]
    np.testing.assert_allclose(losses, expected["losses_5_steps"], atol=1e-5)
    np.testing.assert_allclose(graph.score(batch)[:, 0], expected["logits_after_5_steps"], atol=1e-5)


def test_golden_training_steps(case, graph):
    check_training_steps(case, graph)


def test_a_graph_for_gpus_trains_to_the_golden_values_and_has_no_sum_that_the_host_waits_for(case, monkeypatch):
    monkeypatch.setattr(layers, "gpu_names", lambda: ("Test GPU",))
    with Graph(case["name"], catalogue_of(case), optimizer=case["expected"]["optimizer"]["name"]) as graph:
        graph.load_known_values()
        check_training_steps(case, graph)
        kinds = {op.type for op in graph.session.graph.get_operations()}
    assert "UnsortedSegmentSum" in kinds and not kinds & {"SegmentSum", "SegmentMax", "Unique"}


def test_products_are_of_whole_floats():
    if hasattr(tf.config.experimental, "tensor_float_32_execution_enabled"):
        assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_golden_names_and_shapes_of_variables(case, shared_graph):
    dead = {"user_emb_w", "hist_bn/gamma", "hist_bn/beta"}  # they take no gradient in the authors' graphs
    expected = {name: shape for name, shape in case["expected"]["variables"].items() if name not in dead}
    assert {variable.op.name: variable.shape.as_list() for variable in shared_graph.variables} == expected


HISTORIES = {
    "random": [np.random.RandomState(1).randint(0, 20, length).tolist() for length in (3, 7, 1, 12, 5, 9)],
    "of length one": [[4], [0], [19]],
    "in a batch of one": [[3, 1, 4, 1, 5]],
    "very unequal": [[7], np.random.RandomState(2).randint(0, 20, 400).tolist(), [1, 2], [5]],
}


@pytest.mark.parametrize("histories", HISTORIES.values(), ids=HISTORIES.keys())
def test_logits_and_gradients_equal_the_padded_oracle(case, graph, histories):
    if case["name"] not in REFERENCES:
        pytest.skip("benchmarks/padded.py has no %s" % case["name"])
    random = np.random.RandomState(3)
    candidates, labels = random.randint(0, 20, len(histories)), random.randint(0, 2, len(histories))
    batch = flat_batch(histories, candidates, labels)
    # Outside the scale of the golden values the activations are not nearly linear, and a wrong term shows.
    graph.load({name: 3 * values for name, values in graph.values().items()})

    variables = {variable.op.name: tf.cast(variable, tf.float64) for variable in graph.variables}
    logits = oracle.logits(case["name"], variables, case["cate_list"], histories, candidates)
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels.astype(np.float64), logits=logits))
    gradients = dict(zip(variables, tf.gradients(loss, list(variables.values()))))
    gradients = {name: tf.convert_to_tensor(gradient) for name, gradient in gradients.items()}
    expected_logits, expected_loss, expected = graph.session.run([logits, loss, gradients])

    np.testing.assert_allclose(graph.score(batch)[:, 0], expected_logits, rtol=2e-5, atol=2e-5)
    assert graph.session.run(graph.loss, graph.feeds(batch)) == pytest.approx(expected_loss, rel=2e-5)
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in graph.gradients(batch).items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-3, atol=1e-5 * largest, err_msg=name)


def test_a_shared_variable_starts_equal_in_every_model_and_differs_with_the_seed():
    def initial(name, seed):
        with Graph(name, Catalogue(20, 5, [0] * 20), seed=seed) as graph:
            return graph.values()
    din, pnn, other = initial("din", 7), initial("pnn", 7), initial("din", 8)
    for name in set(din) & set(pnn):
        np.testing.assert_array_equal(din[name], pnn[name], err_msg=name)
    assert np.abs(din["item_emb_w"] - other["item_emb_w"]).max() > 0.01


def test_weights_start_uniform_within_glorots_limit():
    with Graph("din", Catalogue(20, 5, [0] * 20)) as graph:
        kernel = graph.values()["f1/kernel"]
    limit = np.sqrt(6.0 / (384 + 80))
    assert np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    assert kernel.mean() == pytest.approx(0, abs=0.01 * limit)


def test_the_dice_variant_differs_from_din_by_its_activation_alone():
    from din.model import Model as Din
    from din.model_dice import Model as Dice
    attributes = {name for name in vars(Dice) if not name.startswith("__")}
    assert issubclass(Dice, Din) and attributes == {"activation"}


def test_an_unknown_model_is_an_error_in_the_reference():
    error = "benchmarks/padded.py has no dien to compare with; write it there"
    with tf.Graph().as_default(), pytest.raises(UserError, match=error):
        oracle.logits("dien", {}, [0, 1], [[0]], [1])
