"""Ranking the catalogue equals scoring every pair and sorting, with blocks of any size and each kind of ranking."""
import concurrent.futures
import csv
import importlib.util
import os

import numpy as np
import pytest

from din import ranking as din_ranking
from din.model import Model as Din
from tests.helpers import TRIED_MODELS, Folder, Graph, flat_batch, random_dataset, run_script
from tests.test_names import written as write_names
from utils.batches import flat_histories
from utils.engine.embeddings import Catalogue
from utils.files import UserError
from utils.models import model_class, names, place_of
from utils.serving import ranking
from utils.serving.ranking import COLUMNS, PlainRanking, Ranker, Top, merged
from utils.tf1 import tf

DATASET = random_dataset()
TEST = DATASET.test
HISTORIES = [flat_histories(TEST, np.array([row])) for row in range(25)]
EVERYTHING = np.arange(DATASET.item_count)


@pytest.fixture
def small_blocks(monkeypatch):
    for name, value in (("USERS_AT_ONCE", 9), ("BLOCK", 12), ("BLOCK_ON_GPU", 17)):
        monkeypatch.setattr(ranking, name, value)
    for name, value in (("BLOCK", 7), ("SPAN", 5), ("BLOCK_ON_GPU", 17), ("HISTORY_ITEMS_ON_GPU", 2)):
        monkeypatch.setattr(din_ranking, name, value)


def ranker_of(graph, model, catalogue):
    return Ranker(graph.session, graph.built, model, catalogue, HISTORIES[:3])


def rank(model, values, excluded, count, cate_list=DATASET.cate_list):
    """The `Top` of each of HISTORIES; the variables have `values`, or 0."""
    catalogue, pairs = Catalogue(DATASET.item_count, max(cate_list) + 1, cate_list), []
    with Graph(model, catalogue, optimizer=None) as graph:
        graph.load(values or {name: 0 * value for name, value in graph.values().items()})
        tops = ranker_of(graph, model, catalogue).rank(HISTORIES, excluded, count, pairs.append)
    assert sum(pairs) == len(HISTORIES) * DATASET.item_count
    return tops


def every_score(model, cate_list):
    """(variables, the score of each item for each of HISTORIES) of a model, by the graph that trains it."""
    with Graph(model, Catalogue(DATASET.item_count, max(cate_list) + 1, cate_list)) as graph:
        graph.load_known_values()
        batch = flat_batch(HISTORIES, np.tile(EVERYTHING, (len(HISTORIES), 1)))
        return graph.values(), graph.score(batch)


CATALOGUES = {"": DATASET.cate_list, "one category": np.zeros_like(EVERYTHING), "all their own": EVERYTHING}


@pytest.mark.parametrize("gpus", [(), ("Test GPU",)], ids=["CPU", "GPU"])
@pytest.mark.parametrize("categories", sorted(CATALOGUES))
@pytest.mark.parametrize("name", TRIED_MODELS + ["din_dice"])
def test_a_ranking_equals_brute_force_with_the_plain_graph(name, categories, gpus, small_blocks, monkeypatch, capfd):
    for module in (ranking, din_ranking):
        monkeypatch.setattr(module, "gpu_names", lambda: gpus)
    cate_list, model = CATALOGUES[categories], model_class(name)
    values, scores_of_all = every_score(model, cate_list)
    excluded = [history[::2] for history in HISTORIES]
    tops = rank(model, values, excluded, 10, cate_list)
    assert "warning" not in capfd.readouterr().err
    assert len(tops) == len(HISTORIES)
    for top, excluded_items, scores in zip(tops, excluded, scores_of_all):
        assert not set(top.items) & set(excluded_items) and len(set(top.items)) == 10
        np.testing.assert_allclose(top.scores, scores[top.items], atol=1e-5)
        np.testing.assert_allclose(top.scores, -np.sort(-np.delete(scores, excluded_items))[:10], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in names()
                                  if importlib.util.find_spec(place_of(name).folder + ".ranking")])
def test_a_folders_own_ranking_is_the_one_that_is_used_and_equals_the_plain_one(name, small_blocks):
    model = model_class(name)
    with Graph(model, DATASET, optimizer=None) as graph:
        graph.load_known_values()
        quick = ranker_of(graph, model, DATASET)._scorer
        plain = PlainRanking(graph.session, graph.built, DATASET.item_count)
        assert type(quick).__module__ == place_of(name).folder + ".ranking"
        scores = np.empty((2, len(HISTORIES), DATASET.item_count), np.float32)
        for scorer_scores, scorer in zip(scores, (quick, plain)):
            scorer.begin(HISTORIES)
            for number, items in enumerate(scorer.blocks):
                score = scorer.block(number)
                for user in range(len(HISTORIES)):
                    scorer_scores[user, items] = score(user)
    np.testing.assert_allclose(*scores, atol=1e-5)


class Doubled(Din):
    """DIN with another formula, which its folder's ranking does not know."""

    def logit(self, history, candidate):
        return 2 * super().logit(history, candidate)


class Unbiased(Din):
    """DIN without the item bias, which its folder's ranking looks up."""

    def item_bias(self, candidate):
        return 0.0


class SomeCategories(Din):
    """DIN with another formula for the few candidates that have the category of the user's latest purchase."""

    def logit(self, history, candidate):
        categories = [tf.gather(tf.constant(DATASET.cate_list), items.ids) for items in (history, candidate)]
        latest = tf.gather(categories[0], tf.cumsum(history.lengths) - 1)[:, tf.newaxis]
        return super().logit(history, candidate) + tf.cast(tf.equal(categories[1], latest), tf.float32)


class NoActivation(Din):
    """DIN without what its folder's ranking asks for."""

    @property
    def activation(self):
        return None


@pytest.mark.parametrize("model, reason", [
    (Doubled, "its scores differ by up to "), (SomeCategories, "its scores differ by up to "),
    (NoActivation, "'property' object is not callable"), (Unbiased, "Variable item_b does not exist")])
def test_a_ranking_unequal_to_logit_is_not_used_and_that_is_said(model, reason, monkeypatch, capfd):
    monkeypatch.setattr(model, "__module__", "din.model_changed")
    values, scores_of_all = every_score(model, DATASET.cate_list)
    tops = rank(model, values, [[]] * len(HISTORIES), 10)
    error = capfd.readouterr().err
    assert error.startswith("warning: din/ranking.py does not compute what the model's logit does (" + reason)
    for top, scores in zip(tops, scores_of_all):
        np.testing.assert_allclose(top.scores, -np.sort(-scores)[:10], atol=1e-5)


def test_a_history_too_long_for_a_block_is_scored_a_part_of_it_at_a_time(monkeypatch):
    values, scores_of_all = every_score(Doubled, DATASET.cate_list)
    for at_once in (1, 40):
        monkeypatch.setattr(ranking, "PAIRS_AT_ONCE", at_once)
        monkeypatch.setattr("utils.engine.scoring_graph.PAIRS_AT_ONCE", at_once)
        for top, scores in zip(rank(Doubled, values, [[]] * len(HISTORIES), 10), scores_of_all):
            np.testing.assert_allclose(top.scores, -np.sort(-scores)[:10], atol=1e-5)


@pytest.mark.parametrize("name", ["din", "pnn"])
@pytest.mark.parametrize("count", [4, 60])
def test_among_equals_the_lower_id_comes_first_and_there_may_be_fewer_than_asked_for(name, small_blocks, count):
    tops = rank(model_class(name), None, HISTORIES, count)
    for top, history in zip(tops, HISTORIES):
        assert top.items.tolist() == np.setdiff1d(EVERYTHING, history).tolist()[:count]
        assert (top.scores == 0).all()


def test_dins_ranking_takes_the_catalogue_by_category_the_largest_first(small_blocks, monkeypatch):
    monkeypatch.setattr(din_ranking, "gpu_names", lambda: ())
    cate_list = np.array([0] + [1, 2] * 10 + [3] * 25 + [0, 4, 0, 5])
    with Graph("din", Catalogue(50, 6, cate_list), optimizer=None) as graph:
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            blocks = din_ranking.Ranking(graph.session, graph.tables, cate_list, Din.activation, threads).blocks
    assert [len(block) for block in blocks] == [7] * 7 + [1]
    order = np.concatenate(blocks)
    assert sorted(order) == list(range(50))
    assert cate_list[order].tolist() == [3] * 25 + [1] * 10 + [2] * 10 + [0] * 3 + [4, 5]


def test_ties_at_the_end_of_a_ranking_are_kept_in_order():
    random = np.random.RandomState(0)
    for _ in range(200):
        scores, items = random.randint(0, 4, 60).astype(np.float32), random.permutation(60)
        top = Top(np.zeros(0, np.int32), np.zeros(0, np.float32))
        for first in range(0, 60, 13):
            part = slice(first, first + 13)
            top = merged(top, items[part], scores[part], 7)
        assert top.items.tolist() == items[np.lexsort((items, -scores))[:7]].tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    # One user purchases an item that is in the history already: it is to be found, and not left out.
    positives = TEST.positives.copy()
    positives[3] = HISTORIES[3][0]
    dataset = DATASET._replace(test=TEST._replace(positives=positives))
    folder = Folder(tmp_path_factory.mktemp("top_k") / "din", dataset)
    folder.train("--batch_size", 64, "--max_steps", 20)
    return folder


def command(folder, tmp_path, *flags):
    """The rows of the CSV that `infer.py --top_k 8` with `flags` writes."""
    folder.recommend("--top_k", 8, "--remap", write_names(tmp_path), "--output", tmp_path / "out" / "top.csv", *flags)
    with open(str(tmp_path / "out" / "top.csv"), newline="") as file:
        return list(csv.DictReader(file))


def test_it_writes_the_original_ids_and_prints_how_often_the_purchase_is_found(folder, tmp_path, capfd, small_blocks):
    rows = command(folder, tmp_path, "--users", "20")
    assert tuple(rows[0]) == COLUMNS and len(rows) == 20 * 8
    gains = []
    for user in range(20):
        top = rows[8 * user:8 * user + 8]
        items = [int(row["asin"].split()[1]) for row in top]
        positive = HISTORIES[3][0] if user == 3 else TEST.positives[user]
        assert [row["rank"] for row in top] == list("12345678")
        assert {row["reviewerID"] for row in top} == {"reviewer %d" % TEST.users[user]}
        assert [row["category"] for row in top] == ["category %d" % DATASET.cate_list[item] for item in items]
        assert not set(items) & (set(HISTORIES[user]) - {positive})
        scores = [float(row["score"]) for row in top]
        assert scores == sorted(scores, reverse=True)
        gains += [1 / np.log2(items.index(positive) + 2)] if positive in items else []
    assert 0 < len(gains) < 20
    assert "HitRate@8: %.4f\t NDCG@8: %.4f\n" % (len(gains) / 20, sum(gains) / 20) in capfd.readouterr().out


def test_all_users_are_ranked_and_blocks_change_nothing(folder, tmp_path, monkeypatch):
    whole = command(folder, tmp_path)
    assert len({row["reviewerID"] for row in whole}) == len(TEST.users)
    monkeypatch.setattr(ranking, "USERS_AT_ONCE", 7)
    parts = command(folder, tmp_path)
    assert [row["asin"] for row in parts] == [row["asin"] for row in whole]


def test_names_of_other_data_end_it_and_leave_the_file_that_is_there(folder, tmp_path):
    command(folder, tmp_path)
    before = (tmp_path / "out" / "top.csv").read_bytes()
    others = write_names(tmp_path, cate_list=np.roll(DATASET.cate_list, 1))
    with pytest.raises(UserError, match="is not of the data that the model trains on"):
        folder.recommend("--top_k", 8, "--remap", others, "--output", tmp_path / "out" / "top.csv")
    assert (tmp_path / "out" / "top.csv").read_bytes() == before
    assert os.listdir(str(tmp_path / "out")) == ["top.csv"]


@pytest.mark.parametrize("script, flags, error", [
    ("pnn/infer.py", ["--users", "3"], "--users goes with --top_k; see infer.py --help"),
    ("pnn/infer.py", ["--output", "x.csv"], "--output goes with --top_k; see infer.py --help"),
    ("pnn/infer.py", ["--num_ads", "1"], "argument --num_ads: 1 is less than 2; see infer.py --help"),
    ("pnn/infer.py", ["--seed", "3"],
     "--seed is of the candidates drawn, and none are; give --num_ads 3 or more with it"),
    ("pnn/infer.py", ["--top_k", "3", "--num_acc", "2"],
     "--num_accelerators is 2, and --top_k ranks on one accelerator; leave one of them out"),
] + [
    ("pnn/infer.py", ["--top_k", "3", "--" + flag, "2"],
     "--%s does not go with --top_k, which ranks the whole catalogue; leave one of them out" % flag)
    for flag in ("batch_size", "duration", "num_ads", "results", "seed")
] + [
    ("pnn/export.py", ["--format", "frozen", "--remap", "x"],
     "--remap goes with --format saved_model; see export.py --help"),
    ("pnn/export.py", ["--dataset", "nowhere.pkl"], "nowhere.pkl not found; run python build_dataset.py to make it"),
])
def test_flags_that_do_not_go_together_are_one_line_and_exit_status_1(script, flags, error):
    done = run_script(script, *flags)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: %s\n" % error)
