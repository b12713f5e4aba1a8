"""How this project's training throughput changes with history length, number of items and batch size.

    python -m benchmarks.scaling --plot

The data are random: histories that all have the same length, items drawn from all of them alike.
"""
import gc
import itertools
import os

import numpy as np

from benchmarks.command import Table, add_common_arguments, with_spread
from benchmarks.measure import linux_number, steps_that_last, time_steps
from benchmarks.sides import SEED, OurSide, training_flags
from benchmarks.train import batches
from utils import models
from utils.commands import at_least, positive_float
from utils.dataset import Dataset, TrainSet
from utils.engine.embeddings import EMBEDDING_WIDTH
from utils.files import ROOT, Parser, check_writable, replacing, run_main
from utils.tf1 import tf
from utils.towers import describe_device

HISTORY, ITEMS, BATCH_SIZE = 10, 10 ** 5, 256  # each stays the same while another is varied
HISTORIES = [10, 100, 1000]
ITEM_COUNTS = [10 ** 4, 10 ** 5, 10 ** 6, 10 ** 7]
BATCH_SIZES = [32, 256, 1024, 4096, 16384, 65536]
CATEGORIES = 1000
EPOCH = 100  # batches
TABLES = 6  # times the embeddings' size: themselves, Adam's two moments, and the arrays that Adam makes on the way


def random_dataset(history, item_count, examples):
    """A data set of `examples` training examples, each with a history of `history` random items; no test set."""
    random = np.random.RandomState(SEED)
    items = random.randint(0, item_count, max(10 ** 6, 2 * history)).astype(np.int32)
    train = TrainSet(items, np.arange(examples, dtype=np.int32),
                     random.randint(0, len(items) - history, examples).astype(np.int32),
                     np.full(examples, history, np.int32), random.randint(0, item_count, examples).astype(np.int32),
                     random.randint(0, 2, examples).astype(np.int32))
    return Dataset(train, None, random.randint(0, CATEGORIES, item_count).astype(np.int32), examples, item_count,
                   CATEGORIES, "random")


def measure(arguments, history_length, items, batch_size, optimizer):
    """Throughputs of training with these sizes, one per round, in recommendations per second."""
    dataset = random_dataset(history_length, items, EPOCH * batch_size)
    side = OurSide(arguments.model, True, dataset, batch_size, arguments.threads, optimizer)
    stream = side.prefetch(batches(dataset, batch_size))
    steps = steps_that_last(arguments.seconds, side.step, stream)
    throughputs = [steps * batch_size / time_steps(side.step, itertools.islice(stream, steps))[0]
                   for _ in range(arguments.rounds)]
    side.close()
    del side
    gc.collect()  # the session's variables go with it: the next session may need their memory
    return throughputs


def settings(arguments):
    """Yields the settings to measure: dictionaries of the sizes, the optimizer, and which size is varied."""
    authors_optimizer, rates = training_flags(arguments.model)
    base = {"history_length": HISTORY, "items": ITEMS, "batch_size": BATCH_SIZE, "optimizer": authors_optimizer}
    for value in arguments.histories:
        yield dict(base, varied="history_length", history_length=value)
    for value in arguments.batch_sizes:
        yield dict(base, varied="batch_size", batch_size=value)
    for optimizer in sorted(rates, key=lambda name: (name != authors_optimizer, name)):
        for value in arguments.items:
            yield dict(base, varied="items", items=value, optimizer=optimizer)


def missing_memory(setting):
    """About how many GiB a setting needs, where that is more than is free; else, or where Linux does not tell, None."""
    needed = TABLES * setting["items"] * EMBEDDING_WIDTH * 4 / 2 ** 30
    free_kibibytes = linux_number("/proc/meminfo", "MemAvailable:")
    return needed if free_kibibytes is not None and needed > free_kibibytes / 2 ** 20 else None


def plot(path, results, title):
    """Draws three panels into a PNG: throughput over history length, over number of items, over batch size."""
    from utils.reports import plots  # not above: it loads matplotlib, which measuring does without

    sizes = ("history_length", "items", "batch_size")
    optimizers = list(dict.fromkeys(result["optimizer"] for result in results))
    with replacing(path) as file, plots.drawing(file, title, 10, 3.2, 1, len(sizes), sharey=True) as (figure, axes):
        for axis, name in zip(axes[0], sizes):
            for index, optimizer in enumerate(optimizers):
                points = [result for result in results if (result["varied"], result["optimizer"]) == (name, optimizer)]
                if points:
                    axis.plot([point[name] for point in points], [point["ours"] for point in points], label=optimizer,
                              **plots.style(index))
            axis.set(xscale="log", yscale="log", xlabel=name.replace("_", " "))
        axes[0, 0].set_ylabel("recommendations per second")
        plots.legend(figure, axes[0, sizes.index("items")].get_lines())


def main():
    parser = Parser(prog="python -m benchmarks.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=models.names(), default="din", help="default: %(default)s")
    for name, values in (("histories", HISTORIES), ("items", ITEM_COUNTS), ("batch_sizes", BATCH_SIZES)):
        parser.add_argument("--" + name, type=at_least(1), nargs="+", default=values, metavar="SIZE",
                            help="default: " + " ".join(map(str, values)))
    parser.add_argument("--rounds", type=at_least(1), default=3,
                        help="of which the median is taken (default: %(default)s)")
    parser.add_argument("--seconds", type=positive_float, default=1.0, help="of a round, about (default: %(default)s)")
    parser.add_argument("--plot", nargs="?", const=os.path.join(ROOT, "docs", "scaling.png"), metavar="PNG",
                        help="also draw it (default: docs/scaling.png)")
    add_common_arguments(parser)
    arguments = parser.parse_args()
    if arguments.plot:
        check_writable(os.path.dirname(os.path.abspath(arguments.plot)))

    table = Table(arguments.json, [
        ("history", 7, "{history_length:,}"), ("items", 10, "{items:,}"), ("batch", 7, "{batch_size:,}"),
        ("optimizer", 9, "{optimizer}"),
        ("recommendations/s", 34, with_spread("ours", ",.0f")),
        ("history items/s", 15, "{history_items_per_second:,.0f}")])
    device = describe_device(1)
    title = "training %s, %s, TensorFlow %s" % (arguments.model, device, tf.__version__)
    table.title("scaling: " + title)
    results = []
    for setting in settings(arguments):
        missing = missing_memory(setting)
        if missing:
            table.title("left out: {items:,} items with {optimizer} need about {:.0f} GiB".format(missing, **setting))
            continue
        sizes = {name: value for name, value in setting.items() if name != "varied"}
        throughputs = measure(arguments, **sizes)
        median = float(np.median(throughputs))
        results.append(dict(setting, benchmark="scaling", ours=median,
                            spread={"ours": [min(throughputs), max(throughputs)]},
                            history_items_per_second=median * setting["history_length"], rounds=arguments.rounds,
                            model=arguments.model, threads=arguments.threads, device=device, tensorflow=tf.__version__))
        table.row(results[-1])
    if arguments.plot:
        plot(arguments.plot, results, title)


if __name__ == "__main__":
    run_main(main)
