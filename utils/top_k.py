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

import numpy as np
from tqdm import tqdm

from utils.batches import flat_histories
from utils.columns import OF_CATEGORY
from utils.dataset import REMAP, read_dataset
from utils.files import replacing
from utils.graphs import in_stages
from utils.infer_loop import restored
from utils.machine import cores
from utils.names import read_names
from utils.results import report_throughput
from utils.timing import Stopwatch, system_seconds
from utils.towers import gpu_names
from utils.train_loop import log

USERS_TOGETHER = 1000    # users who share what is computed for their history items; memory is bounded by so many
# Of the catalogue. With 4,096, rows of 16 KB compete for the same places in a cache: DIN's attention takes 15% longer.
ITEMS_TOGETHER = 4080
# Of the candidates of a block, which the model's second tower then scores: the attention takes 8% less with one, 5% with
# eight; the rest for each user 27% less, and as much.
FEW_CATEGORIES = 8
HISTORY_TOGETHER = 64    # history items of one category are a thread's work until it takes more
# What a GPU does at a time: there starting an operation takes longer than most of them do. A thousand users of DIN take 4.2
# seconds, with the figures for a CPU 20 (NVIDIA H200); the largest tensors are 85 MB.
ITEMS_ON_GPU, HISTORY_ON_GPU, CALLS_ON_GPU = 16384, 16, 4
COLUMNS = ("reviewerID", "rank", "asin", "category", "score")

Ranking = collections.namedtuple("Ranking", "items scores")
Ranking.__doc__ = """A user's highest items, best first, the lower id first among equals: items [K], scores [K]."""

Tower = collections.namedtuple("Tower", "of_category of_pair logits")
Tower.__doc__ = """What a tower of a model computes, in stages (graphs.py); the first two are only of a model with attention."""


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
        session.graph.finalize()
        ranker = Ranker(model, session, dataset.cate_list)
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
        # One history item at a call: with four DIN's largest tensor, [4, 81, 4080], leaves the cache of a core; 12% slower.
        self._items_together, self._history_together, calls = (
            (ITEMS_ON_GPU, HISTORY_ON_GPU, CALLS_ON_GPU) if gpu_names() else (ITEMS_TOGETHER, 1, cores()))
        self._towers = []
        for index, inputs in enumerate(model.inputs):
            history, _, lengths, candidates = inputs[:4]
            pairs, of_category, of_pair = model.attention_scores[index:index + 1], None, None
            if pairs:
                category = session.graph.get_collection(OF_CATEGORY)[index]
                of_category = in_stages(session, category, [[candidates]], [history])
                of_pair = in_stages(session, pairs[0], [[candidates], [history]], [category])
            self._towers.append(Tower(of_category, of_pair, in_stages(
                session, model.logits[index], [[candidates], [history, lengths]], pairs)))
        self._blocks, self._places = self._in_blocks()
        self._threads = concurrent.futures.ThreadPoolExecutor(calls)  # TensorFlow's calls let other threads run

    def _in_blocks(self):
        """The catalogue in the order of its categories, the largest first, so that many blocks are of few of them.

        Returns:
          (a list of blocks: (their place, item ids [C], the index of the tower that is to score them); the place of each item).
        """
        sizes = np.bincount(self._cate_list)
        order = np.lexsort((self._cate_list, -sizes[self._cate_list])).astype(np.int32)
        blocks = []
        for first in range(0, len(order), self._items_together):
            ads = order[first:first + self._items_together]
            few = len(np.unique(self._cate_list[ads])) <= FEW_CATEGORIES
            blocks.append((first, ads, len(self._towers) - 1 if few else 0))
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
        pairs = np.empty((len(distinct), self._items_together), np.float32) if self._has_pairs else None
        users = [[for_user(history, lengths[user:user + 1]) for user, history in enumerate(histories)]
                 for (_, for_user), _ in (tower.logits for tower in self._towers)]
        for first, ads, tower in self._blocks:
            (for_candidates, _), logits = self._towers[tower].logits
            candidates = for_candidates(ads[np.newaxis])
            if self._has_pairs:
                self._score_pairs(self._towers[tower], distinct, ads, pairs[:, :len(ads)])

            def advanced(user):
                shared = [pairs[rows[user], :len(ads)]] if self._has_pairs else []
                scores = logits(candidates, users[tower][user], *shared)[0]
                own = excluded[user] - first
                scores[own[(0 <= own) & (own < len(ads))]] = -np.inf
                return _merged(best[user], ads, scores, count)

            best = list(self._threads.map(advanced, range(len(histories))))
            progress(len(histories) * len(ads))
        return best

    def _score_pairs(self, tower, items, ads, scores):
        """Fills `scores` [items, ads] with what depends on the pair alone; `items` are sorted by category."""
        (for_category,), of_category = tower.of_category
        (for_pair, for_history), of_pair = tower.of_pair
        for_category, for_pair = for_category(ads[np.newaxis]), for_pair(ads[np.newaxis])

        def score(first_and_last):
            some = slice(*first_and_last)
            category, history, rows = of_category(for_category, items[some][:1]), for_history(items[some]), scores[some]
            for index in range(0, len(rows), self._history_together):
                now = slice(index, index + self._history_together)
                rows[now] = of_pair(for_pair, [values[now] for values in history], category)

        starts = np.append(np.flatnonzero(np.diff(self._cate_list[items], prepend=-1)), len(items))
        spans = [(first, min(first + HISTORY_TOGETHER, end)) for start, end in zip(starts, starts[1:])
                 for first in range(start, end, HISTORY_TOGETHER)]
        # The longest first, so that no thread has one of them left when the others are done.
        for _ in self._threads.map(score, sorted(spans, key=lambda span: span[0] - span[1])):
            pass  # an error in a thread is raised here


def _merged(ranking, items, scores, count):
    """The best `count` of `ranking` and of `items`, which are others, with `scores`; -inf means left out."""
    found = np.flatnonzero(scores >= ranking.scores[-1] if len(ranking.items) == count else scores > -np.inf)
    if len(found) > count:  # those below the best `count` go before the sorting, but none that is equal
        found = found[scores[found] >= np.partition(scores[found], -count)[-count]]
    items, scores = np.append(ranking.items, items[found]), np.append(ranking.scores, scores[found])
    order = np.lexsort((items, -scores))[:count]
    return Ranking(items[order], scores[order])
