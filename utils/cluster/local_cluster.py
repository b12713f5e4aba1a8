"""A cluster on this machine, for trying what several machines do (cluster.py).

    python utils/cluster/local_cluster.py NUM_WORKERS train.py [ARGUMENT ...]

runs the script once for each worker, each with its own TF_CONFIG, on ports of 127.0.0.1 that are free. The chief's output is
this command's; of the others it is what they print to standard error.
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
from utils.files import UserError, run_main

SECONDS_TO_END = 60  # for the others, once one has failed: they say who it was


def free_addresses(count):
    """`count` addresses of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:  # all at once, so that they differ
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for own in sockets:
            own.bind(("127.0.0.1", 0))
        return ["127.0.0.1:%d" % own.getsockname()[1] for own in sockets]


def start(addresses, command, chief, others):
    """Starts `command` for each worker, the chief first; yields the processes.

    Args:
      chief, others: options of their Popen, dictionaries.
    """
    for index in range(len(addresses)):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        yield subprocess.Popen(command, env=dict(os.environ, TF_CONFIG=json.dumps(config)), **others if index else chief)


def relay(lines, index):
    """Prints a worker's lines, saying whose they are."""
    for line in lines:
        print("worker %d: %s" % (index, line.rstrip("\n")), file=sys.stderr, flush=True)


def main():
    if len(sys.argv) < 3 or not sys.argv[1].isdigit() or int(sys.argv[1]) < 1:
        raise UserError("usage: local_cluster.py NUM_WORKERS SCRIPT [ARGUMENT ...], of 1 worker or more")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    processes = []
    try:
        others = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "universal_newlines": True}
        for process in start(free_addresses(int(sys.argv[1])), [sys.executable] + sys.argv[2:], {}, others):
            processes.append(process)
        relays = [threading.Thread(target=relay, args=(process.stderr, index), daemon=True)
                  for index, process in enumerate(processes) if index]
        for thread in relays:
            thread.start()
        patience = None
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                patience = SECONDS_TO_END if process.wait(patience) else patience
        for thread in relays:
            thread.join(1)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    failed = [process.returncode for process in processes if process.returncode]
    sys.exit((failed[0] if failed[0] > 0 else 128 - failed[0]) if failed else 0)


if __name__ == "__main__":
    run_main(main)
