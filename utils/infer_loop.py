"""Inference: the best checkpoint, a warm-up, timed scoring of the whole test set, the row in results_infer.csv."""
import itertools

import numpy as np
from tqdm import tqdm

from utils import metrics
from utils.checkpoints import BEST, Checkpoints
from utils.dataset import fingerprint, read_dataset
from utils.results import add_rows, report_throughput
from utils.tf1 import tf
from utils.timing import Stopwatch, system_seconds
from utils.towers import session_config
from utils.train_loop import build, check_identity, log, settings

WARM_UP_BATCHES = 5  # the session's first calls allocate memory and choose kernels


def infer(model_class, batches, name, arguments):
    """Scores every test user's positive and negative with the best checkpoint; adds a row to results_infer.csv.

    Args:
      model_class: a subclass of BaseModel.
      batches: what it reads: the module input.py of its folder, with test_batches.
      name: what the CSVs call it.
      arguments: the parsed arguments of infer.py.

    Raises:
      UserError: the data set or the checkpoint is missing, damaged, or they don't belong together.
    """
    dataset = read_dataset(arguments.dataset)
    batch_size = arguments.batch_size * arguments.num_accelerators
    with tf.Graph().as_default() as graph:
        model = build(model_class, dataset, arguments.num_accelerators, arguments.batch_size)
        graph.finalize()
        with tf.Session(config=session_config(arguments.num_accelerators, len(model.inputs))) as session:
            checkpoints = Checkpoints(arguments.save_path, model.saver)
            state = checkpoints.state()
            if state:  # a checkpoint from elsewhere, such as the authors', has none
                check_identity(state["run"], {"model": name, "dataset_fingerprint": fingerprint(dataset)},
                               arguments.save_path)
            checkpoints.restore(session, BEST)
            model.start(session)

            for batch in itertools.islice(batches.test_batches(dataset.test, batch_size), WARM_UP_BATCHES):
                model.score(batch)
            accelerator, latencies, scores = Stopwatch(), [], []
            with tqdm(total=len(dataset.test.users), desc="inference", unit=" users", disable=None) as bar:
                for batch in batches.test_batches(dataset.test, batch_size):
                    with accelerator:
                        scores.append(model.score(batch))
                    latencies.append(1000 * accelerator.last)
                    bar.update(len(batch.lengths))
            checkpoint_step = int(session.run(model.global_step))

    scores = np.concatenate(scores)
    gauc, auc = metrics.gauc_and_auc(scores)
    p50, p99 = np.percentile(latencies, [50, 99])
    log("test_gauc: %.4f\t test_auc: %.4f" % (gauc, auc))
    log("Latency per batch in milliseconds: p50 %.3f, p99 %.3f" % (p50, p99))
    row = {"latency_ms_p50": "%.3f" % p50, "latency_ms_p99": "%.3f" % p99, "gauc": "%.6f" % gauc, "auc": "%.6f" % auc,
           "checkpoint_step": checkpoint_step}
    row.update(settings(name, dataset, arguments))
    row.update(report_throughput(log, scores.size, system_seconds(), accelerator.seconds))
    add_rows(arguments.results, {"infer": [row]})
