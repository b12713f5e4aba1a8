"""Training throughput: this project against the original's way, in one run.

    python -m benchmarks.train --data full
"""
import itertools

import numpy as np

from benchmarks import padded
from benchmarks.command import make_parser
from benchmarks.measure import Task, run
from benchmarks.sides import SEED
from utils.batches import train_batches
from utils.files import run_main


def batches(dataset, batch_size):
    """Yields this project's batches, epoch after epoch, those alone that are full."""
    for epoch in itertools.count():
        every = train_batches(dataset.train, batch_size, SEED, epoch)
        yield from itertools.islice(every, len(dataset.train.items) // batch_size)


def examples(batch):
    """The list of (history, item, label) in `batch`."""
    histories = np.split(batch.history, np.cumsum(batch.lengths)[:-1])
    return [(history.tolist(), item, label) for history, item, label in zip(
        histories, batch.candidates[:, 0].tolist(), batch.labels[:, 0].tolist())]


TASK = Task("train", True, batches, padded.train_inputs, examples)

if __name__ == "__main__":
    run_main(lambda: run(TASK, make_parser("train", __doc__.splitlines()[0])))
