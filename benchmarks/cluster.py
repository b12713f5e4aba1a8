"""What it costs to train on several machines: throughput and bytes on the wire of workers on this one, and a model of others.

    python -m benchmarks.cluster                       1, 2 and 3 workers on this machine's loopback interface
    python -m benchmarks.cluster --items 10000 ...     bytes of a step against the size of the embedding tables
    python -m benchmarks.cluster --plot                the model: hosts of this machine's speed on real networks

Workers on one machine share its cores, so what they show is what working together costs, not what it gains. Bytes are those
that go over the loopback interface, in a network namespace of this benchmark's own where Linux lets it have one.

The model of W hosts with b recommendations each, on links of `bandwidth` in each direction:

    seconds of a step = one host's step of b + (W - 1) rows(b) merge
                        + (2 D (W - 1) / W + 1.06 (W - 1) P(b)) / bandwidth + 3 (W - 1) latency

rows(b) is the number of distinct rows of the tables that b recommendations of the data have, P(b) their bytes with their ids
(1.06: see Cluster._all_gather), D the bytes of the dense gradients, which travel as a ring's all-reduce does; `merge` is what
adding up and applying one row more takes. One host's steps and `merge` are measured here, `latency` is --latency.
"""
import argparse
import fcntl
import itertools
import json
import os
import shutil
import socket
import struct
import subprocess
import sys

import numpy as np

from benchmarks.command import Table
from benchmarks.measure import timed
from benchmarks.scaling import random_dataset
from benchmarks.sides import SEED, Ours, find_dataset, training_flags
from benchmarks.train import batches
from utils import models
from utils.batches import prefetch, train_batches
from utils.cluster.local_cluster import free_addresses, start
from utils.cluster.tf_config import from_environment
from utils.cluster.workers import sum_by_id
from utils.commands import at_least, positive_float
from utils.dataset import read_dataset
from utils.engine.embeddings import EMBEDDING_WIDTH
from utils.engine.session import Session
from utils.engine.training_graph import TrainingGraph
from utils.files import ROOT, Parser, UserError, replacing, run_main
from utils.tf1 import tf
from utils.towers import describe_device, session_config, shards

WARM_UP = 10              # steps
HISTORY, EXAMPLES = 10, 100  # of the random data: items in a history, batches
GIGABITS = [10, 25, 100]  # of a second, the model's links
HOSTS = [1, 2, 4, 8, 16, 32, 64]
HOST_BATCHES = [256, 1024, 4096, 16384, 65536]
PADDING = 1.06            # of what is gathered
NAMESPACE = "BENCHMARK_HAS_A_NETWORK_NAMESPACE"


# ---- one worker ------------------------------------------------------------------------------------------------------

def received_bytes():
    """The bytes that the loopback interface has received, which are those that it was sent; None where Linux does not tell."""
    if not os.path.exists("/proc/self/net/dev"):
        return None
    with open("/proc/self/net/dev") as lines:
        return next(int(line.split()[1]) for line in lines if line.split()[0] == "lo:")


def work(setting):
    """One worker's part in a measurement, a dictionary; the chief prints what it measured as a JSON line."""
    cluster = from_environment()
    dataset = (random_dataset(HISTORY, setting["items"], EXAMPLES * setting["batch_size"] * cluster.count)
               if setting["items"] else read_dataset(setting["data"]))
    name, batch_size = setting["model"], setting["batch_size"]
    config = session_config(1, shards(1, batch_size))
    cluster.start(config)
    with tf.Graph().as_default(), cluster.guarded():
        tf.set_random_seed(SEED)
        optimizer, rates = training_flags(name)
        graph = TrainingGraph(models.model_class(name), dataset, optimizer, 1, shards(1, batch_size), cluster)
        initialize = tf.global_variables_initializer()
        with Session(cluster.target, config=cluster.configure(config)) as session:
            session.run(initialize)
            graph.start(session)
            whole = batch_size * cluster.count
            batches = itertools.chain.from_iterable(
                itertools.islice(train_batches(dataset.train, whole, SEED, epoch, 0, cluster.index, cluster.count),
                                 len(dataset.train.items) // whole) for epoch in itertools.count())
            stream = prefetch(batches, graph.pack_for_training)

            def step(batch):
                graph.train(batch, rates[optimizer], whole)
            timed(step, itertools.islice(stream, WARM_UP))
            rounds = []
            for _ in range(setting["rounds"]):
                cluster.all_gather("ready")
                before = received_bytes()
                seconds, _ = timed(step, itertools.islice(stream, setting["steps"]))
                sent = None if before is None else (received_bytes() - before) / setting["steps"]
                rounds.append([seconds / setting["steps"], sent])
        cluster.finish()
    if cluster.is_chief:
        tables = (dataset.item_count + dataset.cate_count) * EMBEDDING_WIDTH * 4 + dataset.item_count * 4
        print(json.dumps({"rounds": rounds, "table_bytes": tables}))


# ---- measuring -------------------------------------------------------------------------------------------------------

def alone_on_the_network():
    """Starts this command again in a network namespace of its own, with nothing else on its loopback interface, if it may.

    Returns whether it is in one.
    """
    if os.environ.get(NAMESPACE):
        up = struct.pack("16sH14s", b"lo", 0x41, b"")  # IFF_UP and IFF_RUNNING of linux/if.h
        with socket.socket() as own:
            fcntl.ioctl(own, 0x8914, up)               # SIOCSIFFLAGS
        return True
    command = ["unshare", "--net"] + (["--map-root-user"] if os.geteuid() else [])
    if shutil.which("unshare") and not subprocess.run(command + ["true"], stderr=subprocess.DEVNULL).returncode:
        sys.stdout.flush()
        os.execvpe(command[0], command + [sys.executable, "-m", "benchmarks.cluster"] + sys.argv[1:],
                   dict(os.environ, **{NAMESPACE: "1"}))
    return False


def measured(workers, setting):
    """Runs a cluster of `workers` workers with `setting`; returns what its chief prints, a dictionary.

    Raises:
      UserError: a worker failed.
    """
    command = [sys.executable, "-m", "benchmarks.cluster", "--work", json.dumps(setting)]
    processes = list(start(free_addresses(workers), command, {"cwd": ROOT, "stdout": subprocess.PIPE},
                           {"cwd": ROOT, "stdout": subprocess.DEVNULL}))
    text, _ = processes[0].communicate()
    if any([process.wait() for process in processes]):
        raise UserError("a worker failed, see above")
    return json.loads(text.decode())


def show_workers(arguments, table, data, base):
    """A row for each number of workers, batch size and number of items."""
    settings = [dict(base, items=items, batch_size=batch_size, data=data)
                for items in arguments.items or [0] for batch_size in arguments.batch_sizes]
    for setting, workers in itertools.product(settings, arguments.workers):
        measurement = measured(workers, setting)
        seconds, sent = zip(*measurement["rounds"])
        whole = setting["batch_size"] * workers
        table.row(dict(
            base, benchmark="cluster", workers=workers, batch_size=setting["batch_size"], items=setting["items"],
            table_mb=measurement["table_bytes"] / 1e6, ours=whole / float(np.median(seconds)),
            spread={"ours": [whole / max(seconds), whole / min(seconds)]}, step_ms=1000 * float(np.median(seconds)),
            sent_mb=None if None in sent else float(np.median(sent)) / 1e6))


# ---- the model -------------------------------------------------------------------------------------------------------

def rows_of(dataset, batch_size, count=3):
    """The mean numbers of distinct items, categories and candidates in `count` batches of the training set."""
    counts = [[len(np.unique(np.append(batch.history, batch.candidates))),
               len(np.unique(dataset.cate_list[np.append(batch.history, batch.candidates)])), len(np.unique(batch.candidates))]
              for batch in itertools.islice(train_batches(dataset.train, batch_size, SEED, 0), count)]
    return np.mean(counts, axis=0)


def seconds_of_a_step(model, dataset, batch_size, seconds):
    """What a step of one host takes, and how many bytes its dense gradients have."""
    ours = Ours(model, True, dataset, batch_size, 0, None)
    stream = batches(dataset, batch_size)
    timed(ours.step, itertools.islice(stream, 3))
    steps = max(3, int(seconds * 40000 / batch_size))
    taken = timed(ours.step, itertools.islice(stream, steps))[0] / steps
    dense = sum(int(np.prod(variable.shape.as_list())) for variable in ours.model.variables
                if variable.op.name not in ("item_emb_w", "cate_emb_w", "item_b"))
    ours.close()
    return taken, 4 * dense


def seconds_to_merge(rows=20000, repeats=20):
    """What it takes to add up one more row of EMBEDDING_WIDTH numbers and to apply it, on a thread."""
    random = np.random.RandomState(SEED)
    with tf.Graph().as_default():
        table = tf.get_variable("table", initializer=tf.zeros([63001, EMBEDDING_WIDTH]))
        ids = tf.placeholder(tf.int32, [None])
        distinct, sums = sum_by_id([ids], [tf.ones([rows, EMBEDDING_WIDTH])])
        update = tf.raw_ops.ResourceScatterUpdate(resource=table.handle, indices=distinct, updates=tf.gather(table, distinct) - sums)
        with Session(config=session_config(1, 2)) as session:
            session.run(tf.global_variables_initializer())
            call = session.make_callable(update, [ids])
            batches = [random.randint(0, 63001, rows) for _ in range(repeats)]
            timed(call, batches[:3])
            return timed(call, batches)[0] / repeats / rows


def modelled(hosts, step, rows, dense, merge, bandwidth, latency):
    """Seconds of a step of `hosts` hosts; see this file's head. rows: (items, categories, candidates); bandwidth: bytes/s."""
    others = hosts - 1
    payload = (rows[0] + rows[1]) * 4 * (EMBEDDING_WIDTH + 1) + rows[2] * 8
    return (step + others * (rows[0] + rows[1]) * merge
            + (2 * dense * others / hosts + PADDING * others * payload) / bandwidth + 3 * others * latency)


def plot(path, arguments, dataset):
    """Draws the model's throughput over that of one host, against the number of hosts, a panel for each kind of link."""
    from utils.reports import plots  # not above: it loads matplotlib, which measuring does without

    merge = seconds_to_merge()
    hosts = {batch_size: seconds_of_a_step(arguments.model, dataset, batch_size, arguments.seconds) + (
        rows_of(dataset, batch_size),) for batch_size in HOST_BATCHES}
    title = "Modelled throughput of W hosts over that of one: %s on %s\nhosts as this one: %s" % (
        arguments.model, dataset.name, describe_device(1))
    print("merging a row: %.0f ns" % (1e9 * merge))
    with replacing(path) as file, plots.drawing(file, title, 10, 3.6, 1, len(GIGABITS), sharey=True) as (figure, axes):
        for axis, gigabits in zip(axes[0], GIGABITS):
            for index, (batch_size, (step, dense, rows)) in enumerate(hosts.items()):
                gains = [count * step / modelled(count, step, rows, dense, merge, gigabits * 1e9 / 8, arguments.latency)
                         for count in HOSTS]
                print("%3d Gbit/s, %6d a host, a step of %.1f ms, %.0f rows: %s" % (
                    gigabits, batch_size, 1000 * step, rows[0] + rows[1], "  ".join("%d: %.1f" % pair for pair in zip(HOSTS, gains))))
                axis.plot(HOSTS, gains, label="%d per host" % batch_size, **plots.style(index))
            axis.plot(HOSTS, HOSTS, color="0.7", linewidth=1, zorder=0)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log", base=2)
            axis.set_xticks(HOSTS)
            axis.set_xticklabels(HOSTS)
            axis.set_yticks(HOSTS)
            axis.set_yticklabels(HOSTS)
            axis.set_title("%d Gbit/s" % gigabits)
            axis.set_xlabel("hosts")
        axes[0, 0].set_ylabel("times one host")
        plots.legend(figure, axes[0, 0].get_lines()[:-1])


def main():
    parser = Parser(prog="python -m benchmarks.cluster", description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="small", help="small or full, or a dataset.pkl, or the folder of one (default: "
                        "%(default)s)")
    parser.add_argument("--model", choices=models.names(), default="din", help="default: %(default)s")
    parser.add_argument("--workers", type=at_least(1), nargs="+", default=[1, 2, 3], metavar="W", help="default: 1 2 3")
    parser.add_argument("--batch_sizes", type=at_least(1), nargs="+", default=[256, 1024], metavar="SIZE",
                        help="of each worker (default: 256 1024)")
    parser.add_argument("--items", type=at_least(2), nargs="+", metavar="COUNT", help="random data instead, with so many "
                        "items and histories of %d" % HISTORY)
    parser.add_argument("--rounds", type=at_least(1), default=3, help="of which the median is taken (default: %(default)s)")
    parser.add_argument("--steps", type=at_least(1), default=50, help="of a round (default: %(default)s)")
    parser.add_argument("--seconds", type=positive_float, default=2.0, help="of measuring one host's steps for the model "
                        "(default: %(default)s)")
    parser.add_argument("--latency", type=positive_float, default=0.0002, metavar="SECONDS",
                        help="of a message in the model (default: %(default)s)")
    parser.add_argument("--plot", nargs="?", const=os.path.join(ROOT, "docs", "cluster.png"), metavar="PNG",
                        help="draw the model instead (default: docs/cluster.png)")
    parser.add_argument("--json", action="store_true",
                        help="a JSON line per measurement on standard output; the table then goes to standard error")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(json.loads(arguments.work))
    data = None if arguments.items else find_dataset(arguments.data)
    if arguments.plot:
        return plot(arguments.plot, arguments, read_dataset(data or find_dataset(arguments.data)))
    isolated = alone_on_the_network()
    table = Table(arguments.json, [
        ("workers", 7, "{workers}"), ("batch", 7, "{batch_size:,}"), ("tables, MB", 10, "{table_mb:,.1f}"),
        ("recommendations/s", 34, "{ours:,.0f} ({spread[ours][0]:,.0f} to {spread[ours][1]:,.0f})"),
        ("ms a step", 9, "{step_ms:.1f}"), ("MB a step on the wire", 21, "{sent_mb:.2f}")])
    base = {"model": arguments.model, "rounds": arguments.rounds, "steps": arguments.steps, "device": describe_device(1),
            "tensorflow": tf.__version__, "isolated": isolated}
    table.title("training %s, %s, TensorFlow %s%s" % (arguments.model, base["device"], tf.__version__, "" if isolated else
                                                      "; other traffic of the loopback interface counts as well"))
    return show_workers(arguments, table, data, base)


if __name__ == "__main__":
    run_main(main)
