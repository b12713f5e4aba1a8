"""A cluster on this machine, to try what several machines do (workers.py).

    python utils/cluster/local_cluster.py NUM_WORKERS train.py [ARGUMENT ...]

runs the script once for each worker, each with its own TF_CONFIG, on free ports of 127.0.0.1. The chief prints to this
command's output; the other workers' standard error follows, line by line, with each worker's number before it.
"""
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from utils.files import UserError, run_main, write_line

SECONDS_TO_END = 60  # for the other workers, once one has failed: they say which one it was


def free_addresses(count):
    """`count` addresses of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:  # all at once, so that they differ
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return ["127.0.0.1:%d" % free.getsockname()[1] for free in sockets]


def start(addresses, command, chief, others):
    """Starts `command` for each worker, with the options of Popen in `chief`, then `others`; yields the processes."""
    for index in range(len(addresses)):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        yield subprocess.Popen(command, env=dict(os.environ, TF_CONFIG=json.dumps(config)),
                               **others if index else chief)


def relay(lines, index):
    """Prints a worker's lines to standard error, with its number."""
    for line in lines:
        write_line("worker %d: %s" % (index, line.rstrip("\n")))


def main():
    if len(sys.argv) < 3 or not sys.argv[1].isdigit() or int(sys.argv[1]) < 1:
        raise UserError("usage: local_cluster.py NUM_WORKERS SCRIPT [ARGUMENT ...], of 1 worker or more")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    others = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "encoding": sys.stderr.encoding,
              "errors": "backslashreplace"}
    processes, relays, patience = [], [], None
    with contextlib.ExitStack() as stack:
        for process in start(free_addresses(int(sys.argv[1])), [sys.executable] + sys.argv[2:], {}, others):
            stack.callback(process.wait)
            stack.callback(process.kill)  # first, where it has not ended
            processes.append(process)
        for index, process in enumerate(processes[1:], 1):
            relays.append(threading.Thread(target=relay, args=(process.stderr, index), daemon=True))
            relays[-1].start()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                patience = SECONDS_TO_END if process.wait(patience) else patience
        for thread in relays:
            thread.join(1)
    status = next((process.returncode for process in processes if process.returncode), 0)
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    run_main(main)
