"""Ranking: the items of the whole catalogue that score highest for each test user, those of his history left out.

The (user, item) pairs are many: 63 million for a thousand users of Amazon Electronics. So the catalogue is scored in
blocks, by the model's plain graph, `PlainRanking`. A model's folder may have a quicker way to compute the same, the
class `Ranking` in ranking.py, with the same methods: it is held to the plain graph on a few pairs before it is used.
"""
import concurrent.futures
import csv
import importlib.util
import os
import typing

import numpy as np
from tqdm import tqdm

from utils.batches import Batch, flat_histories
from utils.data.original_ids import read_names
from utils.dataset import REMAP, read_dataset
from utils.engine.scoring_graph import PAIRS_AT_ONCE, ScoringGraph
from utils.engine.tables import Stages
from utils.files import UserError, replacing
from utils.results import report_throughput
from utils.runs.log import log, warn
from utils.runs.machine import cores
from utils.serving.restore import restored
from utils.timing import Stopwatch, system_seconds
from utils.towers import gpu_names

USERS_AT_ONCE = 1000  # users who share what is computed for a block; memory is bounded by so many
BLOCK, BLOCK_ON_GPU = 2048, 16384  # items of a block of the plain graph
CALLS_ON_GPU = 4
TRIED, TOLERANCE = 1000, 1e-4  # candidates that a quicker way is tried out on; by what part its scores may differ
COLUMNS = ("reviewerID", "rank", "asin", "category", "score")


class Top(typing.NamedTuple):
    """A user's highest items, best first, the lower id first among equals."""
    items: np.ndarray   # [K] int32
    scores: np.ndarray  # [K] float32


def recommend(model_class, name, arguments):
    """Writes each test user's highest items to a CSV, and prints how often the purchase is there.

    The CSV is arguments.output, else recommendations.csv in the checkpoint's folder.

    Arguments as of `infer_loop.infer`. Raises UserError where the data set, its names or the checkpoint are missing or
    damaged, or don't belong together.
    """
    dataset = read_dataset(arguments.dataset)
    test, count = dataset.test, arguments.top_k
    names = read_names(dataset, arguments.remap or REMAP)
    users = np.arange(min(arguments.users or len(test.users), len(test.users)))
    stopwatch, ranks = Stopwatch(), []

    def histories_of(rows):
        return np.split(flat_histories(test, rows), np.cumsum(test.lengths[rows])[:-1])

    with restored(lambda: ScoringGraph(model_class, dataset), name, dataset, arguments.save_path, 1, cores()) as (
            graph, session, checkpoint):
        output = arguments.output or os.path.join(checkpoint.save_path, "recommendations.csv")
        graph.start(session)
        ranker = Ranker(session, graph, model_class, dataset, tried=histories_of(users[:4]))
        session.graph.finalize()
        with replacing(output, "w", newline="", encoding="utf-8") as file, tqdm(
                total=len(users) * dataset.item_count, desc="ranking", unit=" recommendations", unit_scale=True,
                disable=None) as bar:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for first in range(0, len(users), USERS_AT_ONCE):
                rows = users[first:first + USERS_AT_ONCE]
                histories = histories_of(rows)
                # The purchase to be found may be of an item that is in the history, too.
                excluded = [history[history != positive] for history, positive in zip(histories, test.positives[rows])]
                with stopwatch:
                    tops = ranker.rank(histories, excluded, count, bar.update)
                for row, top in zip(rows, tops):
                    ranks.extend(np.flatnonzero(top.items == test.positives[row]) + 1)
                    for rank, (item, score) in enumerate(zip(*top), 1):
                        writer.writerow((names.reviewers[test.users[row]], rank, names.asins[item],
                                         names.categories[dataset.cate_list[item]], "%.6f" % score))

    log("HitRate@%d: %.4f\t NDCG@%d: %.4f" % (count, len(ranks) / len(users), count,
                                              np.sum(1 / np.log2(np.add(ranks, 1))) / len(users)))
    report_throughput(log, len(users) * dataset.item_count, system_seconds(), stopwatch.seconds)
    log("The highest %d of %d users are in %s" % (count, len(users), output))


class PlainRanking:
    """Scores the catalogue of `item_count` items for users, block by block, by a `ScoringGraph` in `session`.

    What the graph needs of a user alone is computed once for all blocks, and of a block alone once for all users.
    `blocks` is the catalogue in the order in which it is scored, a list of arrays of item ids.
    """

    def __init__(self, session, graph, item_count):
        width = BLOCK_ON_GPU if gpu_names() else BLOCK
        self.blocks = [np.arange(first, min(first + width, item_count), dtype=np.int32)
                       for first in range(0, item_count, width)]
        self._graph = graph
        stages = Stages(session, graph.logits, [list(graph.inputs[:3]), [graph.inputs.candidates]])
        (self._of_user, self._of_block), self._logits = stages.first, stages.last

    def begin(self, histories):
        """Takes the users whose `histories`, a list of arrays of item ids, the blocks are to be scored for."""
        self._histories = histories
        self._users = [self._of_user(*batch_of_one(history, history)[:3]) for history in histories]

    def block(self, number):
        """Returns the function of a user's number that gives his scores of block `number`."""
        items = self.blocks[number]
        of_block = self._of_block(items[np.newaxis])

        def score(user):
            if len(self._histories[user]) * len(items) > PAIRS_AT_ONCE:
                return self._graph.score(batch_of_one(self._histories[user], items))[0]
            return self._logits(self._users[user], of_block)[0]
        return score


class Ranker:
    """Ranks the catalogue.

    `session` is a session.Session with the variables of `graph`, a `ScoringGraph` of `model_class` and `catalogue`; the
    folder's ranking is tried out on `tried`, histories of users.
    """

    def __init__(self, session, graph, model_class, catalogue, tried):
        calls = CALLS_ON_GPU if gpu_names() else cores()
        self._threads = concurrent.futures.ThreadPoolExecutor(calls)  # TensorFlow's calls let other threads run
        self._scorer = (quick_ranking(session, graph, model_class, catalogue, self._threads, tried)
                        or PlainRanking(session, graph, catalogue.item_count))
        self._places = np.argsort(np.concatenate(self._scorer.blocks))  # of each item, in the order of the blocks

    def rank(self, histories, excluded, count, progress):
        """Returns the `Top` of each user, of `count` items or as many as there are.

        Args:
          histories: a list of arrays of item ids.
          excluded: for each of them, the items to leave out.
          progress: called with the number of pairs that were scored.

        Raises UserError where a score is not finite, though the variables are: sums that overflow.
        """
        best = [Top(np.zeros(0, np.int32), np.zeros(0, np.float32))] * len(histories)
        excluded = [self._places[items] for items in excluded]
        self._scorer.begin(histories)
        first = 0
        for number, items in enumerate(self._scorer.blocks):
            score = self._scorer.block(number)

            def advanced(user, top, first=first, items=items, score=score):
                scores, out = score(user), excluded[user] - first
                if not np.isfinite(scores).all():
                    raise UserError("the scores of the model are not finite; train again, with a lower --lr")
                scores[out[(0 <= out) & (out < len(scores))]] = -np.inf
                return merged(top, items, scores, count)
            best = list(self._threads.map(advanced, range(len(histories)), best))
            progress(len(histories) * len(items))
            first += len(items)
        return best


def quick_ranking(session, graph, model_class, catalogue, threads, tried):
    """The `Ranking` of the model's folder, tried out on users with the histories `tried`.

    None where the folder has no ranking.py, or one that computes something else than `logit`, which is then said.
    """
    folder = model_class.__module__.rpartition(".")[0]
    if not folder or not importlib.util.find_spec(folder + ".ranking"):
        return None
    try:
        ranking = importlib.import_module(folder + ".ranking").Ranking(
            session, graph.tables, catalogue.cate_list, model_class.activation, threads)
        ranking.begin(tried)
        scores = np.empty((len(tried), catalogue.item_count), np.float32)
        for number, block in enumerate(ranking.blocks):
            score = ranking.block(number)
            scores[:, block] = [score(user) for user in range(len(tried))]
        places = np.linspace(0, catalogue.item_count - 1, TRIED).astype(int)  # the catalogue's and the histories' items
        items = np.unique(np.concatenate([np.concatenate(ranking.blocks)[places]] + tried))
        scores = scores[:, items]
        expected = np.concatenate([graph.score(batch_of_one(history, items)) for history in tried])
        if not np.isfinite(expected).all():
            return None  # `Ranker.rank` says so
        if np.allclose(scores, expected, rtol=TOLERANCE, atol=TOLERANCE):
            return ranking
        reason = "its scores differ by up to %g" % np.abs(scores - expected).max()
    except Exception as error:  # such as a ValueError for a variable that the model does not have
        reason = (str(error) or type(error).__name__).splitlines()[0]
    warn("%s/ranking.py does not compute what the model's logit does (%s); ranking with logit itself, which takes "
         "longer" % (folder, reason))
    return None


def batch_of_one(history, candidates):
    """The `Batch` of one user, without labels: `history` [N], `candidates` [C]."""
    return Batch(history, np.zeros_like(history), np.array([len(history)], np.int32), candidates[np.newaxis], None)


def merged(top, items, scores, count):
    """The best `count` of a `Top` and of `items`, which are others, with `scores`; -inf means left out."""
    places = np.flatnonzero(scores >= top.scores[-1] if len(top.items) == count else scores > -np.inf)
    if not len(places):
        return top
    if len(places) > count:  # those below the best `count` go before the sorting, but none that is equal
        places = places[scores[places] >= np.partition(scores[places], -count)[-count]]
    items, scores = np.append(top.items, items[places]), np.append(top.scores, scores[places])
    order = np.lexsort((items, -scores))[:count]
    return Top(items[order], scores[order])
