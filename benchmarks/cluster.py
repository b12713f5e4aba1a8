"""What it costs to train on several machines: throughput and bytes on the wire of workers on this one, and a model of
others.

    python -m benchmarks.cluster                       1, 2 and 3 workers on this machine's loopback interface
    python -m benchmarks.cluster --items 10000 ...     bytes of a step against the size of the embedding tables
    python -m benchmarks.cluster --plot                the model: hosts of this machine's speed on real networks

Workers on one machine share its cores, so they show the cost of working together, not the gain. Bytes are those that go
over the loopback interface, in a network namespace of this benchmark's own where Linux lets it have one. The model is
network_model.py's.
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

from benchmarks.command import Table, add_json_argument, with_spread
from benchmarks.measure import linux_number, time_steps
from benchmarks.network_model import plot
from benchmarks.scaling import random_dataset
from benchmarks.sides import SEED, find_dataset, training_flags
from benchmarks.train import batches
from utils import models
from utils.batches import prefetch
from utils.cluster.local_cluster import free_addresses, start
from utils.cluster.tf_config import from_environment
from utils.commands import at_least, positive_float
from utils.dataset import read_dataset
from utils.engine.embeddings import EMBEDDING_WIDTH
from utils.engine.session import Session
from utils.engine.training_graph import TrainingGraph
from utils.files import ROOT, Parser, UserError, run_main
from utils.tf1 import tf
from utils.towers import describe_device, session_config, shards

WARM_UP = 10                 # steps
HISTORY, EXAMPLES = 10, 100  # of the random data: items in a history, batches
NAMESPACE = "BENCHMARK_HAS_A_NETWORK_NAMESPACE"


# ---- one worker ------------------------------------------------------------------------------------------------------

def received_bytes():
    """The bytes that the loopback interface has received, as many as it was sent; None where Linux does not tell."""
    return linux_number("/proc/self/net/dev", "lo:")


def work(setting):
    """One worker's part in measuring `setting`, a dictionary; the chief prints its measurements as a JSON line."""
    cluster = from_environment()
    batch_size = setting["batch_size"]
    whole_size, towers = batch_size * cluster.count, shards(1, batch_size)
    dataset = (random_dataset(HISTORY, setting["items"], EXAMPLES * whole_size) if setting["items"]
               else read_dataset(setting["data"]))
    config = session_config(1, towers)
    cluster.start(config)
    with tf.Graph().as_default(), cluster.guarded():
        tf.set_random_seed(SEED)
        optimizer, rates = training_flags(setting["model"])
        graph = TrainingGraph(models.model_class(setting["model"]), dataset, optimizer, 1, towers, cluster)
        initialize = tf.global_variables_initializer()
        with Session(cluster.target, config=cluster.configure(config)) as session:
            session.run(initialize)
            graph.start(session)
            stream = prefetch(batches(dataset, whole_size, cluster.index, cluster.count), graph.pack_for_training)

            def step(batch):
                graph.train(batch, rates[optimizer], whole_size)
            time_steps(step, itertools.islice(stream, WARM_UP))
            rounds = []
            for _ in range(setting["rounds"]):
                cluster.all_gather("ready")
                before = received_bytes()
                seconds, _ = time_steps(step, itertools.islice(stream, setting["steps"]))
                sent = None if before is None else (received_bytes() - before) / setting["steps"]
                rounds.append([seconds / setting["steps"], sent])
        cluster.finish()
    if cluster.is_chief:
        table_bytes = (dataset.item_count + dataset.cate_count) * EMBEDDING_WIDTH * 4 + dataset.item_count * 4
        print(json.dumps({"rounds": rounds, "table_bytes": table_bytes}))


# ---- all workers -----------------------------------------------------------------------------------------------------

def alone_on_the_network():
    """Starts this command again in a new network namespace, with nothing else on its loopback interface, if it may.

    Returns whether it is in one.
    """
    if os.environ.get(NAMESPACE):
        up = struct.pack("16sH14s", b"lo", 0x41, b"")  # IFF_UP and IFF_RUNNING of linux/if.h
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, 0x8914, up)        # SIOCSIFFLAGS
        return True
    command = ["unshare", "--net"] + (["--map-root-user"] if os.geteuid() else [])
    if shutil.which("unshare") and not subprocess.run(command + ["true"], stderr=subprocess.DEVNULL).returncode:
        sys.stdout.flush()
        os.execvpe(command[0], command + [sys.executable, "-m", "benchmarks.cluster"] + sys.argv[1:],
                   dict(os.environ, **{NAMESPACE: "1"}))
    return False


def run_workers(count, setting):
    """Runs a cluster of `count` workers with `setting`; returns the dictionary that its chief prints.

    Raises:
      UserError: a worker failed.
    """
    command = [sys.executable, "-m", "benchmarks.cluster", "--work", json.dumps(setting)]
    processes = list(start(free_addresses(count), command, {"cwd": ROOT, "stdout": subprocess.PIPE},
                           {"cwd": ROOT, "stdout": subprocess.DEVNULL}))
    text, _ = processes[0].communicate()
    if any([process.wait() for process in processes]):
        raise UserError("a worker failed, see above")
    return json.loads(text)


def show_workers(arguments, table, data, base):
    """Prints a row for each number of workers, batch size and number of items."""
    settings = [dict(base, items=items, batch_size=batch_size, data=data)
                for items in arguments.items or [0] for batch_size in arguments.batch_sizes]
    for setting, workers in itertools.product(settings, arguments.workers):
        measurements = run_workers(workers, setting)
        seconds, sent = zip(*measurements["rounds"])
        whole_size, median = setting["batch_size"] * workers, float(np.median(seconds))
        table.row(dict(
            base, benchmark="cluster", workers=workers, batch_size=setting["batch_size"], items=setting["items"],
            table_mb=measurements["table_bytes"] / 1e6, ours=whole_size / median,
            spread={"ours": [whole_size / max(seconds), whole_size / min(seconds)]}, step_ms=1000 * median,
            sent_mb=None if None in sent else float(np.median(sent)) / 1e6))


def main():
    parser = Parser(prog="python -m benchmarks.cluster", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", default="small",
                        help="small or full, or a dataset.pkl, or the folder of one (default: %(default)s)")
    parser.add_argument("--model", choices=models.names(), default="din", help="default: %(default)s")
    parser.add_argument("--workers", type=at_least(1), nargs="+", default=[1, 2, 3], metavar="W", help="default: 1 2 3")
    parser.add_argument("--batch_sizes", type=at_least(1), nargs="+", default=[256, 1024], metavar="SIZE",
                        help="of each worker (default: 256 1024)")
    parser.add_argument("--items", type=at_least(2), nargs="+", metavar="COUNT",
                        help="random data instead, with so many items and histories of %d" % HISTORY)
    parser.add_argument("--rounds", type=at_least(1), default=3,
                        help="of which the median is taken (default: %(default)s)")
    parser.add_argument("--steps", type=at_least(1), default=50, help="of a round (default: %(default)s)")
    parser.add_argument("--seconds", type=positive_float, default=2.0,
                        help="of measuring one host's steps for the model (default: %(default)s)")
    parser.add_argument("--latency", type=positive_float, default=0.0002, metavar="SECONDS",
                        help="of a message in the model (default: %(default)s)")
    parser.add_argument("--plot", nargs="?", const=os.path.join(ROOT, "docs", "cluster.png"), metavar="PNG",
                        help="draw the model instead (default: docs/cluster.png)")
    add_json_argument(parser)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(json.loads(arguments.work))
    if arguments.plot:
        dataset = read_dataset(find_dataset(arguments.data))
        return plot(arguments.plot, arguments.model, dataset, arguments.seconds, arguments.latency)
    data = None if arguments.items else find_dataset(arguments.data)
    isolated = alone_on_the_network()
    table = Table(arguments.json, [
        ("workers", 7, "{workers}"), ("batch", 7, "{batch_size:,}"), ("tables, MB", 10, "{table_mb:,.1f}"),
        ("recommendations/s", 34, with_spread("ours", ",.0f")),
        ("ms a step", 9, "{step_ms:.1f}"), ("MB a step on the wire", 21, "{sent_mb:.2f}")])
    base = {"model": arguments.model, "rounds": arguments.rounds, "steps": arguments.steps,
            "device": describe_device(1), "tensorflow": tf.__version__, "isolated": isolated}
    table.title("training %s, %s, TensorFlow %s%s" % (
        arguments.model, base["device"], tf.__version__,
        "" if isolated else "; other traffic of the loopback interface counts as well"))
    return show_workers(arguments, table, data, base)


if __name__ == "__main__":
    run_main(main)
