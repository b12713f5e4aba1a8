"""Training throughput: this project against the original's way, in one run.

    python -m benchmarks.train --data full

The original's way is two codes, `padded_dense` and `padded_sparse`, which padded.py tells of.
"""
import itertools

from benchmarks import padded
from benchmarks.command import make_parser
from benchmarks.measure import Task, histories, run
from benchmarks.sides import SEED
from utils.batches import train_batches
from utils.files import run_main


def batches(dataset, batch_size, worker=0, num_workers=1):
    """Yields this project's full batches, epoch after epoch; of several workers, one's share of each."""
    for epoch in itertools.count():
        epoch_batches = train_batches(dataset.train, batch_size, SEED, epoch, 0, worker, num_workers)
        yield from itertools.islice(epoch_batches, len(dataset.train.items) // batch_size)


def examples(batches):
    """The list of (history, item, label) in `batches`."""
    return [example for batch in batches for example in zip(
        histories(batch), batch.candidates[:, 0].tolist(), batch.labels[:, 0].tolist())]


TASK = Task("train", True, batches, padded.train_inputs, examples, ("padded_dense", "padded_sparse"))

if __name__ == "__main__":
    run_main(lambda: run(TASK, make_parser("train", __doc__.splitlines()[0])))
