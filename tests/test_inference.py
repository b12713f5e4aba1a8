"""Inference with many candidates: how they are drawn, scored in batches of any size, counted and clocked."""
import contextlib
import functools
import re

import numpy as np
import pytest

from benchmarks.padded import REFERENCES
from tests import oracle
from tests.helpers import TRIED_MODELS, Folder, Graph, random_dataset
from utils.batches import draw_ads
from utils.batches import test_batches as batches_of_test
from utils.engine import scoring_graph
from utils.serving import scoring
from utils.tf1 import tf

DATASET = random_dataset()
USERS = len(DATASET.test.users)
draw = functools.partial(draw_ads, count=5, item_count=DATASET.item_count, seed=3)


def batches(batch_size):
    return batches_of_test(DATASET.test, batch_size, 7, draw)


def test_what_a_user_is_given_depends_on_the_seed_and_the_user_alone():
    whole = draw_ads(np.arange(1000), 20, 50, seed=3)
    np.testing.assert_array_equal(draw_ads(np.arange(300, 310), 20, 50, seed=3), whole[300:310])
    np.testing.assert_array_equal(draw_ads(np.arange(1000), 7, 50, seed=3), whole[:, :7])
    assert np.mean(draw_ads(np.arange(1000), 20, 50, seed=4) == whole) < 0.03
    for column in whole.T:  # 20 of each item are expected
        counts = np.bincount(column, minlength=50)
        assert len(counts) == 50 and np.sum((counts - 20) ** 2 / 20.0) < 110, "chi-squared, 49 degrees: 1 in a million"


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_candidates_are_the_positive_the_negative_and_what_is_drawn(batch_size):
    candidates = np.concatenate([batch.candidates for batch in batches(batch_size)])
    labels = np.concatenate([batch.labels for batch in batches(batch_size)])
    np.testing.assert_array_equal(candidates[:, 0], DATASET.test.positives)
    np.testing.assert_array_equal(candidates[:, 1], DATASET.test.negatives)
    np.testing.assert_array_equal(candidates[:, 2:], draw(np.arange(USERS)))
    assert (labels == [1, 0, 0, 0, 0, 0, 0]).all()


@contextlib.contextmanager
def scorer(name, training_graph, num_accelerators, shards):
    """The function `score` of a Scorer with the variables of `training_graph`, a Graph."""
    with Graph(name, DATASET, num_accelerators, optimizer=None, shards=shards) as graph:
        graph.load(training_graph.values())
        devices = ["/cpu:%d" % index for index in range(num_accelerators) for _ in range(shards)]
        yield scoring.Scorer(graph.built, graph.session, DATASET.item_count, devices).score


@pytest.mark.parametrize("name", TRIED_MODELS)
def test_scores_equal_the_training_graphs_and_the_oracles_for_any_batch_size(name, monkeypatch):
    with Graph(name, DATASET) as graph:
        graph.load_known_values()
        whole, = batches(USERS)
        pairs = [whole._replace(candidates=column[:, np.newaxis], labels=np.zeros((USERS, 1), np.float32))
                 for column in whole.candidates.T]  # one candidate for each user, as in training
        expected = np.concatenate([graph.session.run(graph.logits[0], graph.feeds(pair)) for pair in pairs], axis=1)
        for batch_size in (1, 16, USERS):
            for at_once in (1, 100, scoring_graph.PAIRS_AT_ONCE):
                monkeypatch.setattr(scoring_graph, "PAIRS_AT_ONCE", at_once)
                scores = np.concatenate([graph.score(batch) for batch in batches(batch_size)])
                np.testing.assert_allclose(scores, expected, atol=1e-6)
        for num_accelerators, shards in ((1, 1), (1, 2), (3, 1), (2, 2)):
            with scorer(name, graph, num_accelerators, shards) as score:
                for batch_size, together in ((1, 4096), (16, 4096), (USERS, 4096), (USERS, 150), (USERS, 1)):
                    monkeypatch.setattr(scoring, "PAIRS_TOGETHER", together)
                    scores = np.concatenate([score(batch) for batch in batches(batch_size)])
                    np.testing.assert_allclose(scores, expected, atol=1e-6)

        if name not in REFERENCES:
            pytest.skip("benchmarks/padded.py has no %s" % name)
        histories = np.split(whole.history, np.cumsum(whole.lengths)[:-1])
        variables = {variable.op.name: tf.cast(variable, tf.float64) for variable in graph.variables}
        logits = oracle.logits(name, variables, DATASET.cate_list, [history for history in histories for _ in range(7)],
                               whole.candidates.reshape(-1))
        np.testing.assert_allclose(expected.reshape(-1), graph.session.run(logits), atol=2e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = Folder(tmp_path_factory.mktemp("inference") / "din", DATASET)
    folder.train("--batch_size", 64, "--max_steps", 20)
    return folder


def test_every_candidate_is_counted_and_the_metrics_are_the_positives_and_negatives(folder, capfd):
    two, many = folder.infer(), folder.infer("--num_ads", 12, "--num_accelerators", 2, "--batch_size", 9)
    assert (int(two["recommendations"]), int(many["recommendations"])) == (2 * USERS, 12 * USERS)
    assert (two["gauc"], two["auc"]) == (many["gauc"], many["auc"])
    p50, p90, p99 = map(float, re.search(
        r"\nLatency per batch in milliseconds: p50 (\S+), p90 (\S+), p99 (\S+)\n", capfd.readouterr().out).groups())
    assert 0 < p50 <= p90 <= p99


def test_a_duration_repeats_the_test_set_and_counts_all_that_is_scored(folder):
    once, long = folder.infer("--batch_size", 16), folder.infer("--batch_size", 16, "--duration", 0.5)
    assert int(long["recommendations"]) > 2 * USERS and int(long["recommendations"]) % 2 == 0
    assert float(long["accelerator_seconds"]) > float(once["accelerator_seconds"])
    assert (long["gauc"], long["auc"]) == (once["gauc"], once["auc"])
    assert float(long["accelerator_recommendations_per_second"]) == pytest.approx(
        int(long["recommendations"]) / float(long["accelerator_seconds"]), rel=0.01)
