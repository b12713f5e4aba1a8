"""Ranking the catalogue gives what scoring every pair and sorting gives, in blocks of whatever size."""
import csv
import os

import numpy as np
import pytest

from tests.helpers import Graph, flat_batch, random_dataset, run_script
from tests.test_names import written as write_names
from tests.test_training import Folder
from utils.serving import ranking as top_k
from utils.batches import flat_histories
from utils.commands import MODELS, infer_parser, model_class
from utils.files import UserError
from utils.engine.session import Session
from utils.tf1 import tf
from utils.serving.ranking import COLUMNS, Ranker, recommend

DATASET = random_dataset()
TEST = DATASET.test
HISTORIES = [flat_histories(TEST, np.array([row])) for row in range(25)]
EVERYTHING = np.arange(DATASET.item_count)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(top_k, "USERS_TOGETHER", 9)
    for name, value in (("PIECES_TOGETHER", 2), ("PIECE", 7), ("HISTORY_TOGETHER", 3), ("PIECE_ON_GPU", 17),
                        ("HISTORY_ON_GPU", 2)):
        monkeypatch.setattr(top_k, name, value)


def ranked(name, values, excluded, count, cate_list=DATASET.cate_list):
    """The Rankings of HISTORIES, the variables being what `values` makes of them."""
    with tf.Graph().as_default(), Session() as session:
        model = model_class(name)(DATASET.item_count, max(cate_list) + 1, cate_list, one_user=True)
        for variable in model.variables:
            variable.load(values(variable), session)
        pairs = []
        rankings = Ranker(model, session, cate_list).rank(HISTORIES, excluded, count, pairs.append)
    assert sum(pairs) == len(HISTORIES) * DATASET.item_count
    return rankings


@pytest.mark.parametrize("few, gpus", [(0, ()), (4, ()), (17, ()), (4, ("Test GPU",))], ids=str)
@pytest.mark.parametrize("name, cate_list", [(name, DATASET.cate_list) for name in sorted(MODELS)] + [
    ("din", np.zeros_like(EVERYTHING)), ("din", EVERYTHING)], ids=sorted(MODELS) + ["din-one category", "din-all their own"])
def test_a_ranking_equals_brute_force_with_the_plain_graph(name, cate_list, few, gpus, small_blocks, monkeypatch):
    monkeypatch.setattr(top_k, "FEW_CATEGORIES", few)
    monkeypatch.setattr(top_k, "gpu_names", lambda: gpus)
    excluded = [history[::2] for history in HISTORIES]
    with Graph(name, DATASET.item_count, max(cate_list) + 1, cate_list) as graph:
        graph.load_known_values()
        values = graph.session.run({variable.op.name: variable for variable in graph.model.variables})
        every = graph.model.score(flat_batch(HISTORIES, np.tile(EVERYTHING, (len(HISTORIES), 1))))
    rankings = ranked(name, lambda variable: values[variable.op.name], excluded, 10, cate_list)
    assert len(rankings) == len(HISTORIES)
    for ranking, own, scores in zip(rankings, excluded, every):
        assert not set(ranking.items) & set(own) and len(set(ranking.items)) == 10
        np.testing.assert_allclose(ranking.scores, scores[ranking.items], atol=1e-5)
        np.testing.assert_allclose(ranking.scores, -np.sort(-np.delete(scores, own))[:10], atol=1e-5)


@pytest.mark.parametrize("count", [4, 60])
def test_among_equals_the_lower_id_comes_first_and_there_may_be_fewer_than_asked_for(small_blocks, count):
    rankings = ranked("din", lambda variable: np.zeros(variable.shape.as_list()), HISTORIES, count)
    for ranking, history in zip(rankings, HISTORIES):
        assert ranking.items.tolist() == np.setdiff1d(EVERYTHING, history).tolist()[:count]
        assert (ranking.scores == 0).all()


def test_the_catalogue_goes_through_in_pieces_by_category_and_those_of_few_have_a_tower_of_their_own(small_blocks, monkeypatch):
    monkeypatch.setattr(top_k, "FEW_CATEGORIES", 2)
    monkeypatch.setattr(top_k, "gpu_names", lambda: ())
    cate_list = np.array([0] + [1, 2] * 10 + [3] * 25 + [0, 4, 0, 5])
    with tf.Graph().as_default(), Session() as session:
        model = model_class("din")(50, 6, cate_list, one_user=True)
        session.run(tf.global_variables_initializer())
        ranker = Ranker(model, session, cate_list)
    blocks, places = ranker._blocks, ranker._places
    assert [(block.first, block.by_category, block.pieces.shape) for block in blocks] == [
        (0, True, (2, 7)), (14, True, (2, 7)), (28, True, (2, 7)), (42, False, (1, 7)), (49, True, (1, 7))]
    order = np.concatenate([block.items for block in blocks])
    assert order[places].tolist() == list(range(50))
    assert cate_list[order].tolist() == [3] * 25 + [1] * 10 + [2] * 10 + [0] * 3 + [4, 5]
    for block in blocks:
        assert block.pieces.reshape(-1)[:len(block.items)].tolist() == block.items.tolist()
        assert set(block.pieces.reshape(-1)[len(block.items):]) <= {block.items[-1]}


def test_ties_at_the_end_of_a_ranking_are_kept_in_order():
    random = np.random.RandomState(0)
    for _ in range(200):
        scores, items = random.randint(0, 4, 60).astype(np.float32), random.permutation(60)
        ranking = top_k.Ranking(np.zeros(0, np.int32), np.zeros(0, np.float32))
        for first in range(0, 60, 13):
            part = slice(first, first + 13)
            ranking = top_k._merged(ranking, items[part], scores[part], 7)
        assert ranking.items.tolist() == items[np.lexsort((items, -scores))[:7]].tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    # One purchase of an item that is in the history already: it is what is to be found, and not left out.
    positives = TEST.positives.copy()
    positives[3] = HISTORIES[3][0]
    dataset = DATASET._replace(test=TEST._replace(positives=positives))
    folder = Folder(tmp_path_factory.mktemp("top_k") / "din", dataset)
    folder.train("--batch_size", 64, "--max_steps", 20)
    return folder


def command(folder, tmp_path, *flags):
    """What `infer.py --top_k 8` with `flags` writes: the CSV's rows."""
    flags = ("--top_k", "8", "--remap", write_names(tmp_path), "--output", str(tmp_path / "out" / "top.csv")) + flags
    recommend(model_class("din"), "din", infer_parser(folder.path, "").parse_args(flags))
    with open(str(tmp_path / "out" / "top.csv"), newline="") as file:
        return list(csv.DictReader(file))


def test_it_writes_the_original_ids_and_prints_how_often_the_purchase_is_found(folder, tmp_path, capfd, small_blocks):
    rows = command(folder, tmp_path, "--users", "20")
    assert tuple(rows[0]) == COLUMNS and len(rows) == 20 * 8
    gains = []
    for user in range(20):
        own = rows[8 * user:8 * user + 8]
        items = [int(row["asin"].split()[1]) for row in own]
        positive = HISTORIES[3][0] if user == 3 else TEST.positives[user]
        assert [row["rank"] for row in own] == list("12345678")
        assert {row["reviewerID"] for row in own} == {"reviewer %d" % TEST.users[user]}
        assert [row["category"] for row in own] == ["category %d" % DATASET.cate_list[item] for item in items]
        assert not set(items) & (set(HISTORIES[user]) - {positive})
        scores = [float(row["score"]) for row in own]
        assert scores == sorted(scores, reverse=True)
        gains += [1 / np.log2(items.index(positive) + 2)] if positive in items else []
    assert 0 < len(gains) < 20
    assert "HitRate@8: %.4f\t NDCG@8: %.4f\n" % (len(gains) / 20, sum(gains) / 20) in capfd.readouterr().out


def test_all_users_are_ranked_and_blocks_change_nothing(folder, tmp_path, monkeypatch):
    whole = command(folder, tmp_path)
    assert len({row["reviewerID"] for row in whole}) == len(TEST.users)
    monkeypatch.setattr(top_k, "USERS_TOGETHER", 7)
    parts = command(folder, tmp_path)
    assert [row["asin"] for row in parts] == [row["asin"] for row in whole]


def test_names_of_other_data_end_it_and_leave_the_file_that_is_there(folder, tmp_path):
    command(folder, tmp_path)
    before = (tmp_path / "out" / "top.csv").read_bytes()
    others = write_names(tmp_path, cate_list=np.roll(DATASET.cate_list, 1))
    flags = ["--top_k", "8", "--remap", others, "--output", str(tmp_path / "out" / "top.csv")]
    with pytest.raises(UserError, match="is not of the data that the model trains on"):
        recommend(model_class("din"), "din", infer_parser(folder.path, "").parse_args(flags))
    assert (tmp_path / "out" / "top.csv").read_bytes() == before
    assert os.listdir(str(tmp_path / "out")) == ["top.csv"]


@pytest.mark.parametrize("script, flags, error", [
    ("pnn/infer.py", ["--users", "3"], "--users goes with --top_k; see infer.py --help"),
    ("pnn/infer.py", ["--output", "x.csv"], "--output goes with --top_k; see infer.py --help"),
    ("pnn/infer.py", ["--num_ads", "1"], "argument --num_ads: 1 is less than 2; see infer.py --help"),
    ("pnn/export.py", ["--format", "frozen", "--remap", "x"], "--remap goes with --format saved_model; see export.py --help"),
    ("pnn/export.py", ["--dataset", "nowhere.pkl"], "nowhere.pkl not found; run python build_dataset.py to make it"),
])
def test_flags_that_do_not_go_together_are_one_line_and_exit_status_1(script, flags, error):
    done = run_script(script, *flags)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: %s\n" % error)
