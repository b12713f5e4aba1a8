"""Ranking: the items of the whole catalogue that score highest for each test user, those of his history left out.

The (user, item) pairs are many: 63 million for a thousand users of Amazon Electronics. So the catalogue is scored in blocks,
one user at a time, by the model's own graph in the form for one user (base_model.py), and what several calls share is
computed once and fed (graphs.in_stages): for all users what depends on the candidates alone; for all blocks what depends on
the user alone; for those who share a history item what depends on it and the candidate alone, DIN's attention; and for all
history items of a category this category's half of the attention.
"""
import collections
import concurrent.futures
import csv
import itertools

import numpy as np
from tqdm import tqdm

from utils.base_model import OneUserTower
from utils.batches import flat_histories
from utils.columns import OF_CATEGORY, OF_HISTORY
from utils.dataset import REMAP, read_dataset
from utils.files import replacing
from utils.engine.tables import in_stages
from utils.infer_loop import restored
from utils.runs.machine import cores
from utils.data.original_ids import read_names
from utils.results import report_throughput
from utils.timing import Stopwatch, system_seconds
from utils.towers import gpu_names
from utils.train_loop import log

USERS_TOGETHER = 1000    # users who share what is computed for their history items; memory is bounded by so many
# A call scores so many pieces of the catalogue, one after another, of so many items: DIN's tensors of [81, 576] stay in the
# cache that a core has for itself. With one piece of 4,080 DIN's attention takes as long on a calm machine, but up to half as
# long again where neighbours use the cache that the cores share. oneDNN takes 48 items at a time.
PIECES_TOGETHER, PIECE = 7, 576
# Of the candidates of a piece, which a tower of its own then scores: with one or two, as most pieces have, DIN's attention
# takes 7% less and the rest for each user 26% less; with 9 to 24 that is 3% less and 19% more.
FEW_CATEGORIES = 12
HISTORY_TOGETHER = 64    # history items of one category are a thread's work until it takes more
# What a GPU does at a time: there starting an operation takes longer than most of them do. A thousand users of DIN take 4.2
# seconds, with pieces of 4,080 and one history item at a time 20 (NVIDIA H200); the largest tensors are 85 MB.
PIECE_ON_GPU, HISTORY_ON_GPU, CALLS_ON_GPU = 16384, 16, 4
COLUMNS = ("reviewerID", "rank", "asin", "category", "score")

Ranking = collections.namedtuple("Ranking", "items scores")
Ranking.__doc__ = """A user's highest items, best first, the lower id first among equals: items [K], scores [K]."""

Block = collections.namedtuple("Block", "first items pieces by_category")
Block.__doc__ = """Items that are scored together: the place of the first; items [C]; pieces [m, width], the same, the last of
them repeated where a piece is not full; and which Tower is to score them."""

Tower = collections.namedtuple("Tower", "of_history of_category of_pair logits")
Tower.__doc__ = """What a tower computes: of a model with attention the kernels of history items, and in stages (graphs.py) what is
of a category and a candidate, and what is of a history item and a candidate; in stages the logits."""


def recommend(model_class, name, arguments):
    """Writes the highest items of each test user to the CSV arguments.output, and prints how often his purchase is there.

    Args:
      model_class: a subclass of BaseModel.
      name: what the CSVs call it.
      arguments: the parsed arguments of infer.py.

    Raises:
      UserError: the data set, its names or the checkpoint are missing, damaged, or don't belong together.
    """
    dataset = read_dataset(arguments.dataset)
    test, count = dataset.test, arguments.top_k
    names = read_names(dataset, arguments.remap or REMAP)
    output = arguments.output or "recommendations.csv"
    users = np.arange(min(arguments.users or len(test.users), len(test.users)))
    stopwatch, ranks = Stopwatch(), []

    def make():
        return model_class(dataset.item_count, dataset.cate_count, dataset.cate_list, one_user=True)

    with restored(make, name, dataset, arguments.save_path, 1, cores()) as (model, session, _):
        ranker = Ranker(model, session, dataset.cate_list)
        session.graph.finalize()
        with replacing(output, "w", newline="", encoding="utf-8") as file, tqdm(
                total=len(users) * dataset.item_count, desc="ranking", unit=" recommendations", unit_scale=True,
                disable=None) as bar:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for first in range(0, len(users), USERS_TOGETHER):
                rows = users[first:first + USERS_TOGETHER]
                histories = np.split(flat_histories(test, rows), np.cumsum(test.lengths[rows])[:-1])
                # The purchase to be found may be of an item that is in the history, too.
                excluded = [history[history != positive] for history, positive in zip(histories, test.positives[rows])]
                with stopwatch:
                    rankings = ranker.rank(histories, excluded, count, bar.update)
                for row, ranking in zip(rows, rankings):
                    ranks.extend(np.flatnonzero(ranking.items == test.positives[row]) + 1)
                    for rank, (item, score) in enumerate(zip(*ranking), 1):
                        writer.writerow((names.reviewers[test.users[row]], rank, names.asins[item],
                                         names.categories[dataset.cate_list[item]], "%.6f" % score))

    log("HitRate@%d: %.4f\t NDCG@%d: %.4f" % (count, len(ranks) / len(users), count,
                                              np.sum(1 / np.log2(np.add(ranks, 1))) / len(users)))
    report_throughput(log, len(users) * dataset.item_count, system_seconds(), stopwatch.seconds)
    log("The highest %d of %d users are in %s" % (count, len(users), output))


class Ranker:
    """Ranks the catalogue, whose categories are `cate_list` [item_count], with `model`, built for one user, in `session`."""

    def __init__(self, model, session, cate_list):
        self._cate_list, self._has_pairs = np.asarray(cate_list), bool(model.attention_scores)
        self._pieces, width, self._history_together, calls = (
            (1, PIECE_ON_GPU, HISTORY_ON_GPU, CALLS_ON_GPU) if gpu_names() else (PIECES_TOGETHER, PIECE, 1, cores()))
        self._width = min(width, len(cate_list))
        self._blocks, self._places = self._in_blocks(any(form.by_category for form in model.one_user_towers))
        self._towers = {by_category: self._tower(model, session, by_category)
                        for by_category in {block.by_category for block in self._blocks}}
        self._threads = concurrent.futures.ThreadPoolExecutor(calls)  # TensorFlow's calls let other threads run

    def _tower(self, model, session, by_category):
        def find(history):
            index = model.one_user_towers.index(OneUserTower(by_category, history))
            return (index,) + model.inputs[index][:4]
        index, history, _, lengths, candidates = find(None)
        logits = in_stages(session, model.logits[index], [[candidates], [history, lengths]],
                           model.attention_scores[index:index + 1], self._pieces)
        if not self._has_pairs:
            return Tower(None, None, None, logits)
        kernels, categories = map(session.graph.get_collection, (OF_HISTORY, OF_CATEGORY))
        of_history = session.make_callable(kernels[index], [history], in_caller=True)
        index, history, _, _, candidates = find(1 if self._history_together == 1 else None)
        of_category = in_stages(session, categories[index], [[candidates], [history]], [], self._pieces)
        of_pair = in_stages(session, model.attention_scores[index], [[candidates], [kernels[index]]], [categories[index]],
                            self._pieces)
        return Tower(of_history, of_category, of_pair, logits)

    def _in_blocks(self, by_category):
        """The catalogue in the order of its categories, the largest first, so that many pieces are of few of them.

        `by_category`: whether the model has towers for these.

        Returns:
          (a list of `Block`; the place of each item).
        """
        sizes = np.bincount(self._cate_list)
        order = np.lexsort((self._cate_list, -sizes[self._cate_list])).astype(np.int32)
        pieces = np.append(order, np.repeat(order[-1:], -len(order) % self._width)).reshape(-1, self._width)
        few = [by_category and len(np.unique(self._cate_list[piece])) <= FEW_CATEGORIES for piece in pieces]
        blocks = []
        for are_few, run in itertools.groupby(range(len(pieces)), few.__getitem__):
            run = list(run)
            for index in range(0, len(run), self._pieces):
                some = pieces[run[index:index + self._pieces]]
                first = run[index] * self._width
                blocks.append(Block(first, order[first:first + some.size], some, are_few))
        return blocks, np.argsort(order)

    def rank(self, histories, excluded, count, progress):
        """Returns the Ranking of each user, of `count` items or as many as there are.

        Args:
          histories: a list of arrays of item ids.
          excluded: for each of them, the items to leave out.
          progress: called with the number of pairs that were scored.
        """
        best = [Ranking(np.zeros(0, np.int32), np.zeros(0, np.float32))] * len(histories)
        excluded = [self._places[own] for own in excluded]
        lengths = np.array([len(history) for history in histories], np.int32)
        items = np.concatenate(histories)
        distinct = np.unique(items)
        distinct = distinct[np.argsort(self._cate_list[distinct], kind="mergesort")]
        place = np.zeros(len(self._cate_list), np.int32)  # of an item in `distinct`
        place[distinct] = np.arange(len(distinct))
        rows = np.split(place[items], np.cumsum(lengths)[:-1])
        pairs = np.empty((self._pieces, len(distinct), self._width), np.float32) if self._has_pairs else None
        users = {}
        for by_category, tower in self._towers.items():
            (_, for_user), _ = tower.logits
            users[by_category] = [for_user(history, lengths[user:user + 1]) for user, history in enumerate(histories)]
        for block in self._blocks:
            tower = self._towers[block.by_category]
            (for_candidates, _), logits = tower.logits
            candidates = _each(for_candidates, block.pieces)
            if self._has_pairs:
                of_block = pairs[:len(block.pieces)]
                self._score_pairs(tower, distinct, block.pieces, of_block)

            def advanced(user):
                pieces = candidates
                if self._has_pairs:
                    pieces = _with(candidates, of_block.take(rows[user], axis=1))
                scores = np.concatenate(logits(pieces, users[block.by_category][user]), axis=1)[0, :len(block.items)]
                own = excluded[user] - block.first
                scores[own[(0 <= own) & (own < len(scores))]] = -np.inf
                return _merged(best[user], block.items, scores, count)

            best = list(self._threads.map(advanced, range(len(histories))))
            progress(len(histories) * len(block.items))
        return best

    def _score_pairs(self, tower, items, pieces, scores):
        """Fills `scores` [pieces, items, width] with what depends on the pair alone; `items` are sorted by category."""
        (for_candidates, for_category), of_category = tower.of_category
        candidates_of_category = _each(for_candidates, pieces)
        (for_candidates, for_kernels), of_pair = tower.of_pair
        candidates = _each(for_candidates, pieces)

        def score(first_and_last):
            first, last = first_and_last
            now = _with(candidates, of_category(candidates_of_category, for_category(items[first:first + 1])))
            kernels, rows = tower.of_history(items[first:last]), scores[:, first:last]
            for index in range(0, last - first, self._history_together):
                some = index if self._history_together == 1 else slice(index, index + self._history_together)
                for of_piece, result in zip(rows, of_pair(now, for_kernels(kernels[some]))):
                    of_piece[some] = result

        starts = np.append(np.flatnonzero(np.diff(self._cate_list[items], prepend=-1)), len(items))
        spans = [(first, min(first + HISTORY_TOGETHER, end)) for start, end in zip(starts, starts[1:])
                 for first in range(start, end, HISTORY_TOGETHER)]
        # The longest first, so that no thread has one of them left when the others are done.
        for _ in self._threads.map(score, sorted(spans, key=lambda span: span[0] - span[1])):
            pass  # an error in a thread is raised here


def _each(for_candidates, pieces):
    """What the pieces' candidates alone give, a list for each of `pieces` [pieces, width]."""
    return [for_candidates(piece[np.newaxis]) for piece in pieces]


def _with(pieces, rest):
    """`pieces`, lists, each with one of `rest` behind its values."""
    return [values + [own] for values, own in zip(pieces, rest)]


def _merged(ranking, items, scores, count):
    """The best `count` of `ranking` and of `items`, which are others, with `scores`; -inf means left out."""
    found = np.flatnonzero(scores >= ranking.scores[-1] if len(ranking.items) == count else scores > -np.inf)
    if not len(found):
        return ranking
    if len(found) > count:  # those below the best `count` go before the sorting, but none that is equal
        found = found[scores[found] >= np.partition(scores[found], -count)[-count]]
    items, scores = np.append(ranking.items, items[found]), np.append(ranking.scores, scores[found])
    order = np.lexsort((items, -scores))[:count]
    return Ranking(items[order], scores[order])
