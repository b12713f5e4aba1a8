"""Several machines: one model, one batch split over the workers that TF_CONFIG names, one update.

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'

Each worker runs the same train.py on its own share of each batch, with a copy of the variables, in TensorFlow's own runtime:
its gRPC server and its collective operations. A step puts the workers' gradients together, and each worker makes the same
update. The first worker (task chief, where there is one) is the chief: it alone writes checkpoints, logs and results.

The gradient of an embedding table travels as the rows that the batch has, so what is sent follows the batch, not the table.
The other way that TensorFlow has, parameter servers, was built as well: the variables on the chief, the other workers'
towers in the chief's graph. Two workers on one machine (two cores of an Intel Xeon) trained DIN with 30,400 recommendations
a second at batch 256 and 43,400 at 1,024, where these do 34,600 and 45,000; it sent 3.9 and 12.1 MB a step, these 2.2 and
5.0, since rows of the tables go out and their gradients come back.
"""
import contextlib
import ctypes
import errno
import ipaddress
import itertools
import json
import os
import re
import socket
import struct
import sys
import threading
import time

import numpy as np

from utils.engine.session import Session
from utils.files import UserError
from utils.layers import segment_sum
from utils.tf1 import tf

JOB = "worker"
POLL_SECONDS = 0.5       # between two looks whether the other workers are there
GONE_AFTER = 2           # looks in a row that a worker refuses, its process having ended
UNREACHABLE_SECONDS = 20  # that it does not answer at all: a machine that is down, or a network
PATIENCE_SECONDS = 40    # for finding out who is gone, after TensorFlow said that a connection broke
PIECE = 1024             # numbers; what is gathered is sent in pieces of so many times a power of two


class Alone:
    """One worker, which needs no others: the interface of `Cluster`."""

    index, count, is_chief, target = 0, 1, True, ""

    def configure(self, config):
        """Returns the ConfigProto of a session, `config`, as the worker's sessions need it."""
        return config

    def start(self, config):
        """Joins the others: starts the server, with the ConfigProto `config`, and waits until all are there."""

    def share_of(self, count):
        """The slice of `count` things, in order, that is this worker's."""
        return slice(count * self.index // self.count, count * (self.index + 1) // self.count)

    def all_reduce(self, loss, gradients):
        """(loss, gradients), each the sum of all workers'; sparse gradients have each row once, before and after."""
        return loss, gradients

    def broadcast(self, variables):
        """An operation that gives `variables` the chief's values."""
        return tf.no_op()

    def all_gather(self, value):
        """Every worker's `value`, a JSON object, in a list; waits until all have come here."""
        return [value]

    def all_gather_rows(self, rows):
        """All workers' `rows`, a float32 array [n, ...] with a number of rows of each worker's own, one after another."""
        return rows

    def checksum(self, variables):
        """A number that differs where the bits of `variables` do, int64 []."""
        return tf.constant(0, tf.int64)

    def require_equal(self, what, remedy, value):
        """Raises UserError where the workers' dictionaries `value` differ; it says in `what`, and the `remedy`."""

    def guarded(self):
        """A context for work with the others: an error of TensorFlow's in it becomes one that says which of them is gone."""
        return contextlib.nullcontext()

    def finish(self):
        """Waits until all are through."""


class Cluster(Alone):
    """Several workers.

    Args:
      addresses: "host:port" of each worker.
      index: which of them this process is; 0 is the chief.
    """

    def __init__(self, addresses, index):
        self.addresses, self.index, self.count, self.is_chief = addresses, index, len(addresses), index == 0
        self.target = None  # until the server is started
        self._keys = itertools.count(1)  # each collective operation of a worker has one; all workers build the same graphs
        self._ending = threading.Event()

    def named(self, index):
        """What messages call a worker."""
        return "worker %d (%s)" % (index, self.addresses[index])

    # ---- coming together and going apart -----------------------------------------------------------------------------

    def configure(self, config):
        config.experimental.collective_group_leader = "/job:%s/replica:0/task:0" % JOB
        config.device_filters.append("/job:%s/task:%d" % (JOB, self.index))
        config.isolate_session_state = True
        return config

    def start(self, config):
        host, port = _host_and_port(self.addresses[self.index])
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                raise UserError("port %d, which TF_CONFIG gives to this worker, can't be used (%s); end what uses it, or "
                                "name another port" % (port, error.strerror)) from None
        config = type(config).FromString(config.SerializeToString())
        config.experimental.collective_group_leader = "/job:%s/replica:0/task:0" % JOB
        server = tf.train.Server({JOB: self.addresses}, job_name=JOB, task_index=self.index, config=config)
        listen_only_on(host, port)
        self._wait_for_all()
        self.target = server.target
        with tf.Graph().as_default():
            self._mine = tf.placeholder(tf.int32, [None])
            with tf.device(self._device):
                self._everyones = self._all_gather(self._mine, self._sizes([tf.size(self._mine)])[:, 0])
            self._session = Session(self.target, config=self.configure(config))
        threading.Thread(target=self._watch, daemon=True).start()

    def _wait_for_all(self):
        """Waits until every other worker can be connected to: each starts when its user starts it."""
        waiting = [index for index in range(self.count) if index != self.index]
        started, told = time.monotonic(), []
        while waiting:
            waiting = [index for index in waiting if _connection_error(self.addresses[index])]
            if waiting and waiting != told and time.monotonic() > started + 2:
                print("waiting for %s" % ", ".join(map(self.named, waiting)), file=sys.stderr, flush=True)
                told = waiting
            time.sleep(POLL_SECONDS if waiting else 0)

    def _watch(self):
        """Ends this process where another worker is gone: a collective operation would wait for it for ever."""
        refused, silent = [0] * self.count, [None] * self.count
        while not self._ending.wait(POLL_SECONDS):
            for index in set(range(self.count)) - {self.index}:
                error = _connection_error(self.addresses[index])
                refused[index] = refused[index] + 1 if error == errno.ECONNREFUSED else 0
                silent[index] = (silent[index] or time.monotonic()) if error else None
                if not self._ending.is_set() and (refused[index] >= GONE_AFTER or (
                        error and time.monotonic() > silent[index] + UNREACHABLE_SECONDS)):
                    sys.stdout.flush()
                    print("error: %s is gone; see what its own log ends with, then start every worker again with --resume"
                          % self.named(index), file=sys.stderr, flush=True)
                    os._exit(1)  # the main thread may be inside a call of TensorFlow's that never returns

    @contextlib.contextmanager
    def guarded(self):
        try:
            yield
        except tf.errors.OpError as error:
            time.sleep(PATIENCE_SECONDS)  # _watch knows sooner who it was, and ends the process
            raise UserError("the connection to the other workers failed (%s); start every worker again with --resume"
                            % str(error).splitlines()[-1]) from None

    def finish(self):
        self.all_gather("through")
        self._ending.set()  # who is gone from here on has come this far
        with contextlib.suppress(tf.errors.OpError):
            self.all_gather("not needed any more")

    # ---- what the processes tell each other --------------------------------------------------------------------------

    def _exchange(self, numbers):
        """Every worker's `numbers`, int32 [n], in a list."""
        return self._session.run(self._everyones, {self._mine: numbers})

    def all_gather(self, value):
        text = json.dumps(value).encode()
        numbers = np.frombuffer(text + b" " * (-len(text) % 4), np.int32)
        return [json.loads(theirs.tobytes().decode()) for theirs in self._exchange(numbers)]

    def all_gather_rows(self, rows):
        numbers = np.ascontiguousarray(rows, np.float32).reshape(-1).view(np.int32)
        return np.concatenate(self._exchange(numbers)).view(np.float32).reshape((-1,) + rows.shape[1:])

    def require_equal(self, what, remedy, value):
        values = self.all_gather(value)
        for index, theirs in enumerate(values):
            different = ["%s %s instead of %s" % (name, theirs.get(name), values[0].get(name))
                         for name in sorted(set(values[0]) | set(theirs)) if theirs.get(name) != values[0].get(name)]
            if different:
                raise UserError("%s differs from the chief in %s (%s); %s"
                                % (self.named(index), what, ", ".join(different), remedy))

    # ---- what the graphs tell each other -----------------------------------------------------------------------------

    @property
    def _device(self):
        return "/job:%s/task:%d/cpu:0" % (JOB, self.index)  # collective operations of several machines are the CPU's

    def _group(self):
        return dict(group_size=self.count, group_key=1, instance_key=next(self._keys))

    def _reduce(self, x):
        return tf.raw_ops.CollectiveReduce(input=x, merge_op="Add", final_op="Id", subdiv_offsets=[0], **self._group())

    def _sizes(self, sizes):
        """[W, S] every worker's `sizes`, S int32 tensors []."""
        together = tf.raw_ops.CollectiveGather(input=tf.stack(sizes), shape=[self.count * len(sizes)], **self._group())
        return tf.reshape(together, [self.count, len(sizes)])

    def _all_gather(self, numbers, sizes):
        """A list of every worker's `numbers`, int32 [n], of which each has its own count, `sizes` [W].

        TensorFlow 1.15 gathers arrays whose shape is the same in every step, so the numbers are sent in pieces of a power
        of two times PIECE: those of which the largest worker's count is made up, rounded up to three binary digits, which
        is 6% more than needed in the mean, 25% at most, in three pieces at most.
        """
        needed = -(-tf.reduce_max(sizes) // PIECE)
        bits = 31 - PIECE.bit_length()
        powers = 2 ** np.arange(bits, dtype=np.int32)
        unit = tf.maximum(tf.reduce_max(tf.where(powers <= needed, powers, np.ones_like(powers))) // 4, 1)
        pieces = -(-needed // unit) * unit
        numbers = tf.pad(numbers, [[0, pieces * PIECE - tf.size(numbers)]])
        found = []
        for power in reversed(powers.tolist()):
            def gathered(size=power * PIECE, first=pieces // (2 * power) * (2 * power) * PIECE):
                own = tf.reshape(numbers[first:first + size], [size])
                return tf.reshape(tf.raw_ops.CollectiveGather(input=own, shape=[self.count * size], **self._group()),
                                  [self.count, size])
            found.append(tf.cond(tf.equal(pieces // power % 2, 1), gathered,
                                 lambda: tf.zeros([self.count, 0], tf.int32)))
        together = tf.concat(found, axis=1)
        return [together[index, :sizes[index]] for index in range(self.count)]

    def all_reduce(self, loss, gradients):
        sparse = [gradient for gradient in gradients if isinstance(gradient, tf.IndexedSlices)]
        dense = [loss] + [gradient for gradient in gradients if not isinstance(gradient, tf.IndexedSlices)]
        with tf.device(self._device), tf.name_scope("workers"):
            shapes = [gradient.shape.as_list() for gradient in dense]
            vector = self._reduce(tf.concat([tf.reshape(gradient, [-1]) for gradient in dense], axis=0))
            parts = tf.split(vector, [int(np.prod(shape)) for shape in shapes])
            dense = iter([tf.reshape(part, shape) for part, shape in zip(parts, shapes)])
            loss = next(dense)
            # The counts follow from the ids alone, so they are there long before the gradients.
            counts = self._sizes([tf.size(gradient.indices) for gradient in sparse])                    # [W, S]
            widths = [int(np.prod(gradient.values.shape.as_list()[1:])) for gradient in sparse]
            own = [tf.reshape(gradient.indices, [-1]) for gradient in sparse] + [
                tf.bitcast(tf.reshape(gradient.values, [-1]), tf.int32) for gradient in sparse]
            everyones = self._all_gather(tf.concat(own, axis=0), tf.reduce_sum(counts * (1 + np.array(widths, np.int32)), 1))
            split = [tf.split(numbers, tf.concat([counts[index], counts[index] * widths], axis=0), num=2 * len(sparse))
                     for index, numbers in enumerate(everyones)]
            added = []
            for index, gradient in enumerate(sparse):
                ids = [theirs[index] for theirs in split]
                rows = [tf.reshape(tf.bitcast(theirs[len(sparse) + index], tf.float32),
                                   [-1] + gradient.values.shape.as_list()[1:]) for theirs in split]
                distinct, sums = sum_by_id(ids, rows)
                added.append(tf.IndexedSlices(sums, distinct, gradient.dense_shape))
        added = iter(added)
        return loss, [next(added if isinstance(gradient, tf.IndexedSlices) else dense) for gradient in gradients]

    def broadcast(self, variables):
        def of(variable):
            shape = variable.shape.as_list()
            if self.is_chief:
                return tf.raw_ops.CollectiveBcastSend(input=variable.read_value(), shape=shape, **self._group())
            return variable.assign(tf.raw_ops.CollectiveBcastRecv(T=variable.dtype.base_dtype, shape=shape, **self._group()))
        with tf.device(self._device), tf.name_scope("broadcast"):
            return tf.group(*[of(variable) for variable in variables])


    def checksum(self, variables):
        return tf.add_n([tf.reduce_sum(tf.cast(tf.bitcast(variable, tf.int32), tf.int64)) for variable in variables])


def sum_by_id(ids, rows):
    """Adds up the rows that have the same id: ids [R], rows [R, ...] -> (distinct ids [U], sums [U, ...]).

    Rows of one id are brought together first: 137 microseconds for 2,600 rows of 64, where tf.unsorted_segment_sum takes
    404 (one core of an AMD EPYC).

    Args:
      ids, rows: lists of tensors, the parts that make up the R ids and rows.
    """
    distinct, index = tf.unique(tf.concat(ids, axis=0))
    order = tf.argsort(index)
    ranks = tf.split(tf.math.invert_permutation(order), [tf.size(part) for part in ids])
    return distinct, segment_sum(tf.dynamic_stitch(ranks, rows), tf.gather(index, order), tf.size(distinct))


def _host_and_port(address):
    match = re.match(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d{1,5})$", address)
    if not match or not 0 < int(match.group("port")) < 65536:
        raise UserError("TF_CONFIG has the address %r; write it as host:port" % address)
    return match.group("v6") or match.group("host"), int(match.group("port"))


def _connection_error(address):
    """0 where the server at `address` takes connections, else an errno."""
    try:
        socket.create_connection(_host_and_port(address), timeout=2 * POLL_SECONDS).close()
        return 0
    except OSError as error:
        return error.errno or errno.ETIMEDOUT


def from_environment():
    """The `Cluster` that TF_CONFIG describes; `Alone` where it is not set, or names one worker.

    Raises:
      UserError: TF_CONFIG is not as it must be.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return Alone()
    try:
        config = json.loads(text)
        jobs = dict(config["cluster"])
        kind, index = config["task"]["type"], config["task"]["index"]
        lists = list(jobs.values())
        if not all(isinstance(addresses, list) and all(isinstance(address, str) for address in addresses)
                   for addresses in lists) or type(index) is not int:
            raise ValueError("addresses are lists of text, the index is a number")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError('TF_CONFIG can\'t be read (%s: %s); it is like {"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
                        '"task": {"type": "worker", "index": 0}}' % (type(error).__name__, error)) from None
    others = sorted(set(jobs) - {"chief", "worker"})
    if others or len(jobs.get("chief", [])) > 1:
        raise UserError("TF_CONFIG has %s; give one chief or none, and workers: they need no other tasks"
                        % (", ".join(others) if others else "several chiefs"))
    addresses = jobs.get("chief", []) + jobs.get("worker", [])
    if not 0 <= index < len(jobs.get(kind, [])):
        raise UserError("TF_CONFIG says that this is %s %s, which its cluster does not have; give the task that this "
                        "process is" % (kind, index))
    if len(set(addresses)) < len(addresses):
        raise UserError("TF_CONFIG has an address twice; give each worker its own")
    for address in addresses:
        _host_and_port(address)
    if len(addresses) == 1:
        return Alone()
    return Cluster(addresses, index + (len(jobs.get("chief", [])) if kind == "worker" else 0))


# ---- who may connect -------------------------------------------------------------------------------------------------

# Instructions of a socket filter (linux/filter.h), and where in memory a packet's network header begins.
LOAD_WORD, LOAD_BYTE, AND, JUMP_IF_EQUAL, RETURN = 0x20, 0x30, 0x54, 0x15, 0x06
NETWORK_HEADER = 0xfff00000
SO_ATTACH_FILTER = 26
DROP, TAKE = 0, 0xffffffff


def listen_only_on(host, port):
    """Makes this process deaf on `port` to all that is not sent to the IP address `host`, or from this machine to localhost.

    TensorFlow's server listens on every interface, to whoever asks, and runs any graph that it is sent. With a host name
    it stays so: which of a machine's addresses the other workers know it by can't be told from here. The filter is
    Linux's; elsewhere a warning says that there is none.
    """
    try:
        networks = [ipaddress.ip_network(name) for name in (("127.0.0.0/8", "::1") if host == "localhost" else (host,))]
    except ValueError:
        return
    program = b"".join(map(_instructions, networks)) + _instruction(RETURN, DROP)
    try:
        for listening in _listening(port):
            memory = ctypes.create_string_buffer(program)
            listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                                 struct.pack("HL", len(program) // 8, ctypes.addressof(memory)))
    except OSError as error:
        print("warning: port %d is open to every network of this machine (%s)" % (port, error), file=sys.stderr)


def _listening(port):
    """Yields this process's sockets that listen on `port`."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # one that is closed by now
            if os.readlink("/proc/self/fd/" + name).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as own:
                    if own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and own.getsockname()[1] == port:
                        yield own


def _instruction(code, value, if_not=0):
    return struct.pack("HBBI", code, 0, if_not, value)


def _instructions(network):
    """Takes a packet that is sent to `network`; else goes on after these."""
    address, mask = network.network_address.packed, network.netmask.packed
    words = [(offset, *struct.unpack(">II", address[offset:offset + 4] + mask[offset:offset + 4]))
             for offset in range(0, len(address), 4)]
    left = 3 + 3 * len(words) + 1
    lines = []
    for load, offset, mask, value in [(LOAD_BYTE, 0, 0xf0, network.version << 4)] + [
            (LOAD_WORD, {4: 16, 6: 24}[network.version] + offset, mask, word) for offset, word, mask in words]:
        left -= 3
        lines += [_instruction(load, NETWORK_HEADER + offset), _instruction(AND, mask),
                  _instruction(JUMP_IF_EQUAL, value, if_not=left)]
    return b"".join(lines) + _instruction(RETURN, TAKE)
