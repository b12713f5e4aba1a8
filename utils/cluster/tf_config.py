"""TF_CONFIG, TensorFlow's own description of a cluster: which workers there are, and which of them this process is.

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'

Platforms write it, too, each in its way. What has one meaning is taken:

| TF_CONFIG | meaning |
|---|---|
| not set, `{}`, no cluster or an empty one, one worker | this process is alone |
| an index as text, `"0"` | the number |
| `master` | `chief`, as older platforms call it |
| `evaluator` in the cluster | left out: the workers evaluate |
| other keys, such as `environment`, `job`, `rpc_layer`, `cloud` and `trial` of the task | left out |

The other is refused: several workers and no task, a task that the cluster lacks or that trains nothing, such as `ps`.
"""
import json
import os
import re

from utils.files import UserError

JOBS = {"master": "chief"}  # other names
EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


def from_environment():
    """The `Cluster` that TF_CONFIG describes; `Alone` where it names no other worker. Raises as `workers_and_index`."""
    from utils.cluster.workers import Alone, Cluster  # TensorFlow takes seconds to load

    addresses, index = workers_and_index()
    return Cluster(addresses, index) if len(addresses) > 1 else Alone()


def workers_and_index():
    """(the address of each worker in TF_CONFIG, the chief's first; which of them this process is).

    Raises UserError where TF_CONFIG has tasks that are no workers, a wrong address, or not the task of this process.
    """
    jobs, kind, index = _read(os.environ.get("TF_CONFIG", ""))
    chiefs, workers = jobs.pop("chief", []), jobs.pop("worker", [])
    jobs.pop("evaluator", None)
    if jobs or len(chiefs) > 1:
        raise UserError("TF_CONFIG has %s; give one chief or none, and workers: they need no other tasks"
                        % (", ".join(sorted(jobs)) or "several chiefs"))
    addresses = chiefs + workers
    if len(set(addresses)) < len(addresses):
        raise UserError("TF_CONFIG has an address twice; give each worker its own")
    for address in addresses:
        host_and_port(address)
    if kind is None and len(addresses) > 1:
        raise UserError("TF_CONFIG names %d workers, and not which of them this process is; give the task, like %s"
                        % (len(addresses), EXAMPLE))
    if kind is None or not addresses:
        return addresses, 0
    if not 0 <= index < len({"chief": chiefs, "worker": workers}.get(kind, [])):
        raise UserError("TF_CONFIG says that this is %s %s, which %s; give the task that this process is" % (
            kind, index, "trains nothing" if kind == "evaluator" else "its cluster does not have"))
    return addresses, index + (len(chiefs) if kind == "worker" else 0)


def _read(text):
    """({job: its addresses}, the type and the index of the task) in `text`, a TF_CONFIG; None and 0 without a task."""
    try:
        config = json.loads(text.strip() or "{}")
        if not isinstance(config, dict):
            raise TypeError("it is no object")
        jobs, task = (dict(config.get(key) or {}) for key in ("cluster", "task"))
        jobs = {job: addresses for job, addresses in jobs.items() if addresses}
        kind, index = task.get("type") or None, task.get("index", 0)
        if not all(isinstance(addresses, list) and all(isinstance(address, str) for address in addresses)
                   for addresses in jobs.values()):
            raise ValueError("addresses are lists of text")
        if not (isinstance(kind, str) or kind is None):
            raise ValueError("the type of the task is text")
        if isinstance(index, str) and re.match(r"[0-9]{1,9}$", index):
            index = int(index)
        if type(index) is not int:
            raise ValueError("the index of the task is a number")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError("TF_CONFIG can't be read (%s: %s); it is like %s"
                        % (type(error).__name__, error, EXAMPLE)) from None
    if "master" in jobs and "chief" in jobs:
        raise UserError("TF_CONFIG has a chief and a master, which is the same; give one of them")
    return {JOBS.get(job, job): addresses for job, addresses in jobs.items()}, JOBS.get(kind, kind), index


def host_and_port(address):
    """(host, port) of "host:port", an IPv6 host in brackets; raises UserError where it is not written so."""
    match = re.match(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[0-9A-Za-z_][0-9A-Za-z_.-]*)):(?P<port>[0-9]{1,5})\Z",
                     address)
    if not match or not 0 < int(match.group("port")) < 65536:
        raise UserError("TF_CONFIG has the address %a; write it as host:port" % address)
    return match.group("v6") or match.group("host"), int(match.group("port"))
