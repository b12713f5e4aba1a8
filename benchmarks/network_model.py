"""The model of real networks: how fast W hosts train together, from the speed of one.

The hosts have b recommendations each, and links of `bandwidth` in each direction:

    seconds of a step = one host's step of b + (W - 1) rows(b) merge
                        + (2 D (W - 1) / W + 1.06 (W - 1) P(b)) / bandwidth + 3 (W - 1) latency

rows(b) is the number of distinct rows of the tables that b recommendations of the data have, P(b) their bytes with
their ids (1.06: see utils/cluster/workers.py), D the bytes of the dense gradients, which travel as a ring's all-reduce
does, and `merge` the time to add up and apply one row more. One host's steps and `merge` are measured here.
"""
import itertools
import os

import numpy as np

from benchmarks.measure import time_steps
from benchmarks.sides import SEED, OurSide
from benchmarks.train import batches
from utils.batches import train_batches
from utils.cluster.workers import sum_by_id
from utils.engine.embeddings import EMBEDDING_WIDTH
from utils.engine.session import Session
from utils.files import check_writable, replacing
from utils.tf1 import tf
from utils.towers import describe_device, session_config

GIGABITS = [10, 25, 100]  # a second, of a link
HOSTS = [1, 2, 4, 8, 16, 32, 64]
HOST_BATCHES = [256, 1024, 4096, 16384, 65536]
PADDING = 1.06            # of the bytes that are gathered
TABLE_ROWS = 63001        # where `merge` is measured: the items of Electronics


def rows_of(dataset, batch_size, count=3):
    """The mean numbers of distinct items, categories and candidates in `count` batches of the training set."""
    counts = []
    for batch in itertools.islice(train_batches(dataset.train, batch_size, SEED, 0), count):
        items = np.append(batch.history, batch.candidates)
        counts.append([len(np.unique(ids)) for ids in (items, dataset.cate_list[items], batch.candidates)])
    return np.mean(counts, axis=0)


def seconds_of_a_step(model, dataset, batch_size, seconds):
    """(seconds of one host's step, bytes of its dense gradients)."""
    side = OurSide(model, True, dataset, batch_size)
    stream = side.prefetch(batches(dataset, batch_size))
    time_steps(side.step, itertools.islice(stream, 3))
    steps = max(3, int(seconds * 40000 / batch_size))
    step_seconds = time_steps(side.step, itertools.islice(stream, steps))[0] / steps
    dense = sum(int(np.prod(variable.shape.as_list())) for variable in side.graph.variables
                if variable.op.name not in ("item_emb_w", "cate_emb_w", "item_b"))
    side.close()
    return step_seconds, 4 * dense


def seconds_to_merge(rows=20000, repeats=20):
    """The seconds to add up one more row of EMBEDDING_WIDTH numbers and to apply it, on a thread."""
    random = np.random.RandomState(SEED)
    with tf.Graph().as_default():
        table = tf.get_variable("table", initializer=tf.zeros([TABLE_ROWS, EMBEDDING_WIDTH]))
        ids = tf.placeholder(tf.int32, [None])
        distinct_ids, sums = sum_by_id([ids], [tf.ones([rows, EMBEDDING_WIDTH])])
        update = tf.raw_ops.ResourceScatterUpdate(resource=table.handle, indices=distinct_ids,
                                                  updates=tf.gather(table, distinct_ids) - sums)
        with Session(config=session_config(1, 2)) as session:
            session.run(tf.global_variables_initializer())
            call = session.make_callable(update, [ids])
            ids_of_calls = [random.randint(0, TABLE_ROWS, rows) for _ in range(repeats)]
            time_steps(call, ids_of_calls[:3])
            return time_steps(call, ids_of_calls)[0] / repeats / rows


def seconds_of_hosts(hosts, step, rows, dense, merge, bandwidth, latency):
    """The seconds of a step of `hosts` hosts, by the formula at this file's head.

    `rows` are the distinct (items, categories, candidates) in a host's batch, `dense` is in bytes, `bandwidth` in bytes
    a second; `step`, `merge` and `latency` are seconds.
    """
    others = hosts - 1
    payload = (rows[0] + rows[1]) * 4 * (EMBEDDING_WIDTH + 1) + rows[2] * 8
    return (step + others * (rows[0] + rows[1]) * merge
            + (2 * dense * others / hosts + PADDING * others * payload) / bandwidth + 3 * others * latency)


def plot(path, model, dataset, seconds, latency):
    """Draws the model into a PNG. One host's steps are measured for `seconds`, about; `latency` is in seconds, too."""
    from utils.reports import plots  # not above: it loads matplotlib, which measuring does without

    check_writable(os.path.dirname(os.path.abspath(path)))
    merge = seconds_to_merge()
    hosts = {batch_size: seconds_of_a_step(model, dataset, batch_size, seconds) + (rows_of(dataset, batch_size),)
             for batch_size in HOST_BATCHES}
    title = "Modelled throughput of W hosts over that of one: %s on %s\nhosts as this one: %s" % (
        model, dataset.name, describe_device(1))
    print("merging a row: %.0f ns" % (1e9 * merge))
    with replacing(path) as file, plots.drawing(file, title, 10, 3.6, 1, len(GIGABITS), sharey=True) as (figure, axes):
        for axis, gigabits in zip(axes[0], GIGABITS):
            for index, (batch_size, (step, dense, rows)) in enumerate(hosts.items()):
                gains = [count * step / seconds_of_hosts(count, step, rows, dense, merge, gigabits * 1e9 / 8, latency)
                         for count in HOSTS]
                print("%3d Gbit/s, %6d a host, a step of %.1f ms, %.0f rows: %s" % (
                    gigabits, batch_size, 1000 * step, rows[0] + rows[1],
                    "  ".join("%d: %.1f" % pair for pair in zip(HOSTS, gains))))
                axis.plot(HOSTS, gains, label="%d per host" % batch_size, **plots.style(index))
            axis.plot(HOSTS, HOSTS, color="0.7", linewidth=1, zorder=0)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log", base=2)
            axis.set(xticks=HOSTS, xticklabels=HOSTS, yticks=HOSTS, yticklabels=HOSTS,
                     title="%d Gbit/s" % gigabits, xlabel="hosts")
        axes[0, 0].set_ylabel("times one host")
        plots.legend(figure, axes[0, 0].get_lines()[:-1])
