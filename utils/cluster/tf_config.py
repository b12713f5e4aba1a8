"""TF_CONFIG, TensorFlow's own description of a cluster: which workers there are, and which of them this process is.

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'
"""
import json
import os

from utils.cluster.workers import Alone, Cluster, host_and_port
from utils.files import UserError


def from_environment():
    """The `Cluster` that TF_CONFIG describes; `Alone` where it is not set, or names one worker.

    Raises UserError where TF_CONFIG has tasks that are no workers, a wrong address, or not the task of this process.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return Alone()
    try:
        config = json.loads(text)
        jobs = dict(config["cluster"])
        kind, index = config["task"]["type"], config["task"]["index"]
        if type(index) is not int or not all(isinstance(addresses, list) and all(isinstance(address, str)
                                             for address in addresses) for addresses in jobs.values()):
            raise ValueError("addresses are lists of text, the index is a number")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError('TF_CONFIG can\'t be read (%s: %s); it is like {"cluster": {"worker": ["host1:2222", '
                        '"host2:2222"]}, "task": {"type": "worker", "index": 0}}'
                        % (type(error).__name__, error)) from None
    chief, workers = jobs.get("chief", []), jobs.get("worker", [])
    other_jobs = sorted(set(jobs) - {"chief", "worker"})
    if other_jobs or len(chief) > 1:
        raise UserError("TF_CONFIG has %s; give one chief or none, and workers: they need no other tasks"
                        % (", ".join(other_jobs) or "several chiefs"))
    if not 0 <= index < len(jobs.get(kind, [])):
        raise UserError("TF_CONFIG says that this is %s %s, which its cluster does not have; give the task that this "
                        "process is" % (kind, index))
    addresses = chief + workers
    if len(set(addresses)) < len(addresses):
        raise UserError("TF_CONFIG has an address twice; give each worker its own")
    for address in addresses:
        host_and_port(address)
    return Cluster(addresses, index + (len(chief) if kind == "worker" else 0)) if len(addresses) > 1 else Alone()
