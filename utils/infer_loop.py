"""Inference: the best checkpoint, a warm-up, timed scoring of the whole test set, the row in results_infer.csv."""
import functools
import itertools
import time

import numpy as np
from tqdm import tqdm

from utils import metrics
from utils.batches import draw_ads, prefetch
from utils.dataset import read_dataset
from utils.engine.scoring_graph import ScoringGraph
from utils.results import add_rows, report_throughput
from utils.runs.identity import settings
from utils.runs.log import log
from utils.serving.restore import restored
from utils.serving.scoring import Scorer
from utils.timing import Stopwatch, system_seconds
from utils.towers import tower_devices

WARM_UP_BATCHES = 5  # the session's first calls allocate memory and choose kernels


def infer(model_class, batches, name, arguments):
    """Scores every test user's candidates with the best checkpoint; adds a row to results_infer.csv.

    Arguments as of `train_loop.train`, but `arguments` are the parsed ones of infer.py. Raises UserError where
    the data set or the checkpoint is missing or damaged, they don't match, or devices are missing.
    """
    dataset = read_dataset(arguments.dataset)
    devices = tower_devices(arguments.num_accelerators, arguments.batch_size)
    batch_size = arguments.batch_size * arguments.num_accelerators
    draw = functools.partial(draw_ads, count=arguments.num_ads - 2, item_count=dataset.item_count, seed=arguments.seed)
    with restored(lambda: ScoringGraph(model_class, dataset), name, dataset, arguments.save_path,
                  arguments.num_accelerators, len(devices)) as (graph, session, checkpoint):
        scorer = Scorer(graph, session, dataset.item_count, devices)
        session.graph.finalize()
        test_batches = functools.partial(batches.test_batches, dataset.test, batch_size, arguments.num_ads, draw)
        for batch in itertools.islice(test_batches(), WARM_UP_BATCHES):
            scorer.score(batch)
        accelerator, latencies, scores, recommendations = Stopwatch(), [], [], 0
        total = len(dataset.test.users) * arguments.num_ads
        started = time.perf_counter()
        with tqdm(total=total, desc="inference", unit=" recommendations", unit_scale=True, disable=None) as bar:
            while recommendations < total or time.perf_counter() - started < arguments.duration:
                for batch in prefetch(test_batches()):
                    with accelerator:
                        logits = scorer.score(batch)
                    latencies.append(1000 * accelerator.last)
                    if recommendations < total:
                        scores.append(logits[:, :2])
                    recommendations += logits.size
                    seconds = time.perf_counter() - started
                    bar.total = max(total, int(recommendations * arguments.duration / seconds))
                    bar.update(logits.size)
                    if recommendations > total and seconds >= arguments.duration:
                        break

    gauc, auc = metrics.gauc_and_auc(np.concatenate(scores))
    p50, p90, p99 = np.percentile(latencies, [50, 90, 99])
    log("test_gauc: %.4f\t test_auc: %.4f" % (gauc, auc))
    log("Latency per batch in milliseconds: p50 %.3f, p90 %.3f, p99 %.3f" % (p50, p90, p99))
    row = dict(settings(name, dataset, arguments), latency_ms_p50="%.3f" % p50, latency_ms_p99="%.3f" % p99,
               gauc="%.6f" % gauc, auc="%.6f" % auc, checkpoint_step=checkpoint.step,
               **report_throughput(log, recommendations, system_seconds(), accelerator.seconds))
    add_rows(arguments.results, {"infer": [row]})
