"""Inference: the best checkpoint, a warm-up, timed scoring of the test set, the row in results_infer.csv."""
import functools
import itertools
import time
import typing

import numpy as np
from tqdm import tqdm

from utils import metrics
from utils.batches import draw_ads, prefetch
from utils.data.popularity import popularity_gauc
from utils.data.validation import hold_out_validation
from utils.dataset import read_dataset
from utils.engine.scoring_graph import ScoringGraph
from utils.files import UserError
from utils.results import STEADILY, STEADY, add_rows, check_folder, report_throughput
from utils.runs.identity import inference_columns, settings
from utils.runs.log import log, warn
from utils.runs.outcomes import outcomes_of, store_outcomes
from utils.runs.steady import FEWEST_STEPS, half_width, report_steady
from utils.serving.restore import restored
from utils.serving.scoring import Scorer
from utils.timing import Laps, Stopwatch, system_seconds
from utils.towers import describe_device, tower_devices

WARM_UP_BATCHES = 5  # the session's first calls allocate memory and choose kernels
STEADY_SECONDS = 2, 30     # the least and the most that scoring goes on for until its figure is steady
STEADY_HALF_WIDTH = 0.02   # of the 95% interval of a steady figure, as a part of it
CHECK_EVERY = 0.25         # seconds between two looks at whether it is


class Measurements(typing.NamedTuple):
    """What scoring the test set gave."""
    scores: np.ndarray          # [users, 2], positive and negative
    recommendations: int        # that the clocks below counted
    system_seconds: float       # since the script was started, until these were scored
    accelerator_seconds: float  # inside the session's calls
    calls: list                 # seconds inside the session's calls, of each whole batch
    laps: list                  # seconds from the end of the batch before, of each whole batch


def infer(model_class, batches, name, arguments):
    """Scores every test user's candidates with the best checkpoint; adds a row to results_infer.csv.

    Arguments as of `train_loop.train`, but `arguments` are the parsed ones of infer.py. Raises UserError where
    the data set or the checkpoint is missing or damaged, they don't match, a batch is larger than the test set, a score
    is not finite, devices are missing, or the row can't be added.
    """
    check_folder(arguments.results, ["infer"])
    dataset = read_dataset(arguments.dataset)
    devices = tower_devices(arguments.num_accelerators, arguments.batch_size)
    batch_size, users = arguments.batch_size * arguments.num_accelerators, len(dataset.test.users)
    draw = functools.partial(draw_ads, count=arguments.num_ads - 2, item_count=dataset.item_count, seed=arguments.seed)
    with restored(lambda: ScoringGraph(model_class, dataset), name, dataset, arguments.save_path,
                  arguments.num_accelerators, len(devices)) as (graph, session, checkpoint):
        if batch_size > users:
            raise UserError("a batch of %d is larger than the test set of %d users; lower --batch_size"
                            % (batch_size, users))
        scorer = Scorer(graph, session, dataset.item_count, devices)
        session.graph.finalize()
        test_batches = functools.partial(batches.test_batches, dataset.test, batch_size, arguments.num_ads, draw)
        for batch in itertools.islice(test_batches(), WARM_UP_BATCHES):
            scorer.score(batch)
        measured = measure(scorer, test_batches, batch_size, users * arguments.num_ads, arguments.duration)
    if not np.isfinite(measured.scores).all():
        raise UserError("scores of the checkpoint in %s are not finite; train again: python train.py"
                        % checkpoint.save_path)

    gauc, auc = metrics.gauc_and_auc(measured.scores)
    log("test_gauc: %.4f\t test_auc: %.4f" % (gauc, auc))
    p50, p90, p99 = 1000 * np.percentile(measured.calls, [50, 90, 99])
    log("Latency per batch in milliseconds: p50 %.3f, p90 %.3f, p99 %.3f" % (p50, p90, p99))
    row = dict(settings(name, dataset, arguments, describe_device(arguments.num_accelerators)),
               latency_ms_p50="%.3f" % p50, latency_ms_p99="%.3f" % p99, gauc="%.6f" % gauc, auc="%.6f" % auc,
               checkpoint_step=checkpoint.step, num_ads=arguments.num_ads,
               duration=STEADILY if arguments.duration is None else "%g" % arguments.duration,
               candidate_seed=arguments.seed if arguments.num_ads > 2 else "",
               dataset_fingerprint=checkpoint.dataset_fingerprint, **inference_columns(checkpoint.run))
    trained = hold_out_validation(dataset)[0] if row["selected_on"] == "validation" else dataset
    row.update(popularity_gauc="%.6f" % popularity_gauc(trained, dataset.test),
               outcomes=store_outcomes(arguments.results, outcomes_of(measured.scores), users))
    row.update(report_throughput(log, measured.recommendations, measured.system_seconds, measured.accelerator_seconds))
    row.update(_steady(measured.laps, batch_size * arguments.num_ads, arguments.duration is None))
    add_rows(arguments.results, {"infer": [row]})


def _steady(laps, recommendations, until_steady):
    """The columns of the steady state, of `laps` with so many recommendations each; empty where there are too few."""
    if len(laps) < FEWEST_STEPS:
        return dict.fromkeys(STEADY + ("steady_half_width",), "")
    width = half_width(laps)
    is_known = np.isfinite(width)
    row = report_steady(log, recommendations, *np.percentile(laps, [10, 50, 90]), "%d batches in %.1f seconds%s" % (
        len(laps), sum(laps), "; its 95%% interval is +-%.1f%%" % (100 * width) if is_known else ""))
    if until_steady and not width < STEADY_HALF_WIDTH:
        warn("the steady figure is not known to %g%% after %d seconds; the machine is busy with other work, or its "
             "speed changes" % (100 * STEADY_HALF_WIDTH, sum(laps)))
    return dict(row, steady_half_width="%.4f" % width if is_known else "")


def measure(scorer, test_batches, batch_size, total, duration):
    """Scores the test set with `scorer`, a `Scorer`, over and over; returns `Measurements`.

    Args:
      test_batches: a function that gives the test set's batches, of `batch_size` users each but the last.
      total: the recommendations in them.
      duration: seconds to go on for at least, all of which the clocks count; 0: one pass. None: the clocks count one
        pass, and scoring then goes on until the figure is steady.
    """
    accelerator, laps, scores, calls, seconds, recommendations = Stopwatch(), Laps(), [], [], [], 0
    counted, next_check = None, STEADY_SECONDS[0]
    passes = prefetch(itertools.chain.from_iterable(test_batches() for _ in itertools.count()))
    started = time.perf_counter()
    laps.begin()
    with tqdm(total=total, desc="inference", unit=" recommendations", unit_scale=True, disable=None) as bar:
        for batch in passes:
            with accelerator:
                logits = scorer.score(batch)
            lap, elapsed = laps.end(), time.perf_counter() - started
            if len(batch.lengths) == batch_size:
                calls.append(accelerator.last)
                seconds.append(lap)
            if recommendations < total:
                scores.append(logits[:, :2])
            recommendations += logits.size
            bar.total = max(bar.total, int(recommendations * (duration or 0) / elapsed), recommendations)
            bar.update(logits.size)
            if not counted and recommendations >= total and elapsed >= (duration or 0):
                counted = recommendations, system_seconds(), accelerator.seconds
            if counted and (duration is not None or elapsed >= STEADY_SECONDS[1]):
                break
            if counted and elapsed >= next_check:
                if half_width(seconds) < STEADY_HALF_WIDTH:
                    break
                next_check = elapsed + CHECK_EVERY
    passes.close()
    return Measurements(np.concatenate(scores), *counted, calls, seconds)
