"""Inference throughput and latency: this project against the original's way, in one run.

    python -m benchmarks.infer --data full

Each test user is scored with two candidates, the positive and the negative; a batch size counts users.
"""
import itertools

from benchmarks import padded
from benchmarks.command import make_parser
from benchmarks.measure import Task, histories, run
from utils.batches import test_batches
from utils.files import run_main


def batches(dataset, batch_size):
    """Yields this project's full batches, over and over."""
    while True:
        yield from itertools.islice(test_batches(dataset.test, batch_size), len(dataset.test.users) // batch_size)


def examples(batches):
    """The list of (history, (positive, negative)) in `batches`."""
    return [example for batch in batches for example in zip(histories(batch), map(tuple, batch.candidates.tolist()))]


TASK = Task("infer", False, batches, padded.test_inputs, examples, ("padded",))

if __name__ == "__main__":
    run_main(lambda: run(TASK, make_parser("infer", __doc__.splitlines()[0])))
