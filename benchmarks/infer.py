"""Inference throughput and latency: this project against the original's way, in one run.

    python -m benchmarks.infer --data full

Each test user is scored with two candidates, the positive and the negative; a batch size counts users.
"""
import itertools

import numpy as np

from benchmarks import padded
from benchmarks.command import make_parser
from benchmarks.measure import Task, run
from utils.batches import test_batches
from utils.files import run_main


def batches(dataset, batch_size):
    """Yields this project's batches, over and over, those alone that are full."""
    while True:
        yield from itertools.islice(test_batches(dataset.test, batch_size), len(dataset.test.users) // batch_size)


def examples(batch):
    """The list of (history, (positive, negative)) in `batch`."""
    histories = np.split(batch.history, np.cumsum(batch.lengths)[:-1])
    return [(history.tolist(), tuple(pair)) for history, pair in zip(histories, batch.candidates.tolist())]


TASK = Task("infer", False, batches, padded.test_inputs, examples)

if __name__ == "__main__":
    run_main(lambda: run(TASK, make_parser("infer", __doc__.splitlines()[0])))
