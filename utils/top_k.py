"""Ranking: the items of the whole catalogue that score highest for each test user, those of his history left out.

The (user, item) pairs are many: 63 million for a thousand users of Amazon Electronics. So the catalogue is scored in blocks,
one user at a time, by the model's own graph in the form for one user (base_model.py); and what a model computes for a
(history item, candidate) pair alone, DIN's attention, is computed once for the users who share the history item, and fed.
"""
import collections
import concurrent.futures
import csv

import numpy as np
from tqdm import tqdm

from utils.batches import flat_histories
from utils.dataset import REMAP, read_dataset
from utils.files import replacing
from utils.infer_loop import restored
from utils.machine import cores
from utils.names import read_names
from utils.results import report_throughput
from utils.timing import Stopwatch, system_seconds
from utils.train_loop import log

USERS_TOGETHER = 1000    # users who share what is computed for their history items; memory is bounded by so many
ITEMS_TOGETHER = 4096    # of the catalogue; a quarter as many take PNN a half longer
HISTORY_TOGETHER = 4     # history items, with so many of the catalogue: DIN's largest tensor, [4, 4096, 80], is 5 MB
COLUMNS = ("reviewerID", "rank", "asin", "category", "score")

Ranking = collections.namedtuple("Ranking", "items scores")
Ranking.__doc__ = """A user's highest items, best first, the lower id first among equals: items [K], scores [K]."""


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
        ranker = Ranker(model, session, dataset.item_count)
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
    """Ranks the catalogue with `model`, built for one user, in `session`."""

    def __init__(self, model, session, item_count):
        self._item_count, self._has_pairs = item_count, model.attention_scores is not None
        inputs = model.inputs[0]
        feeds = [inputs.history, inputs.lengths, inputs.candidates]
        if self._has_pairs:
            self._pairs = session.make_callable(model.attention_scores, [inputs.history, inputs.candidates])
            feeds.append(model.attention_scores)
        self._score = session.make_callable(model.logits[0], feeds)
        self._threads = concurrent.futures.ThreadPoolExecutor(cores())  # TensorFlow's calls let other threads run

    def rank(self, histories, excluded, count, progress):
        """Returns the Ranking of each user, of `count` items or as many as there are.

        Args:
          histories: a list of arrays of item ids.
          excluded: for each of them, the items to leave out.
          progress: called with the number of pairs that were scored.
        """
        best = [Ranking(np.zeros(0, np.int32), np.zeros(0, np.float32))] * len(histories)
        lengths = np.array([len(history) for history in histories], np.int32)
        distinct, index = np.unique(np.concatenate(histories), return_inverse=True)
        rows = np.split(index.reshape(-1), np.cumsum(lengths)[:-1])
        for first in range(0, self._item_count, ITEMS_TOGETHER):
            ads = np.arange(first, min(first + ITEMS_TOGETHER, self._item_count), dtype=np.int32)
            pairs = self._pair_scores(distinct, ads) if self._has_pairs else None

            def advanced(user):
                shared = [pairs[rows[user]]] if self._has_pairs else []
                scores = self._score(histories[user], lengths[user:user + 1], ads[np.newaxis], *shared)[0]
                own = excluded[user] - first
                scores[own[(0 <= own) & (own < len(ads))]] = -np.inf
                return _merged(best[user], ads, scores, count)

            best = list(self._threads.map(advanced, range(len(histories))))
            progress(len(histories) * len(ads))
        return best

    def _pair_scores(self, items, ads):
        """What depends on the pair alone, of each of `items` and each of `ads`: [items, ads]."""
        parts = [items[first:first + HISTORY_TOGETHER] for first in range(0, len(items), HISTORY_TOGETHER)]
        return np.concatenate(list(self._threads.map(lambda part: self._pairs(part, ads[np.newaxis]), parts)))


def _merged(ranking, items, scores, count):
    """The best `count` of `ranking` and of `items`, whose ids are all higher, with `scores`; -inf means left out."""
    lowest = ranking.scores[-1] if len(ranking.items) == count else -np.inf
    found = np.flatnonzero(scores > lowest)
    if len(found) > count:  # those below the best `count` go before the sorting, but none that is equal
        found = found[scores[found] >= np.partition(scores[found], -count)[-count]]
    items, scores = np.append(ranking.items, items[found]), np.append(ranking.scores, scores[found])
    order = np.lexsort((items, -scores))[:count]
    return Ranking(items[order], scores[order])
