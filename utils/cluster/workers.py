"""Several machines: one model, one batch split over the workers that TF_CONFIG names, one update.

Each worker runs the same train.py on its share of each batch, with a copy of the variables, by TensorFlow's gRPC server
and collective operations. A step adds up the workers' gradients; each worker makes the same update. The first worker
(task chief, where there is one) is the chief: it alone writes checkpoints, logs and results.

The gradient of an embedding table travels as the rows of the batch's items: traffic follows the batch, not the table.
Parameter servers, TensorFlow's other way, were measured as well: they send about twice as much (the README has more).
"""
import contextlib
import copy
import errno
import itertools
import json
import os
import socket
import sys
import threading
import time

import numpy as np

from utils.cluster.socket_filter import listen_only_on
from utils.cluster.tf_config import host_and_port
from utils.engine.session import Session
from utils.files import UserError, write_line
from utils.layers import segment_sum
from utils.tf1 import tf

JOB = "worker"
POLL_SECONDS = 0.5       # between two attempts to connect to the other workers
MAX_REFUSALS = 2         # in a row, until a worker counts as gone: its process has ended
MAX_SILENT_SECONDS = 20  # until a worker that does not answer counts as gone: its machine or the network is down
PATIENCE_SECONDS = 40    # for finding out which worker is gone, after TensorFlow said that a connection broke
PROXIES = "grpc_proxy", "https_proxy", "http_proxy"  # which gRPC would send what the workers exchange to
PIECE = 1024             # numbers; arrays are gathered in pieces of PIECE times a power of two


class Alone:
    """One worker, which needs no others: the interface of `Cluster`."""

    index, count, is_chief, target = 0, 1, True, ""

    def configure(self, config):
        """Changes `config`, the ConfigProto of a session, as the worker's sessions need it; returns it."""
        return config

    def start(self, config):
        """Starts the server, with the ConfigProto `config`, and waits until all workers are there."""

    def all_reduce(self, loss, gradients):
        """(loss, gradients), each the sum of all workers'; sparse gradients have each row once, before and after."""
        return loss, gradients

    def broadcast(self, variables):
        """An operation that gives `variables` the chief's values."""
        return tf.no_op()

    def all_gather(self, value):
        """A list of every worker's `value`, a JSON object; waits until all workers have given theirs."""
        return [value]

    def all_gather_rows(self, rows):
        """All workers' `rows`, float32 [n, ...], one worker after another; each worker has an n of its own."""
        return rows

    def checksum(self, variables):
        """A number that differs where the bits of `variables` do, int64 []."""
        return tf.constant(0, tf.int64)

    def require_equal(self, what, remedy, value):
        """Raises UserError, which names `what` and the `remedy`, where the workers' dictionaries `value` differ."""

    def guarded(self):
        """A context for work with the others: an error of TensorFlow's ends it with a line that says who is gone."""
        return contextlib.nullcontext()

    def finish(self):
        """Waits until all are through."""


class Cluster(Alone):
    """Several workers; `addresses` has "host:port" of each, the chief's first, and this process is number `index`."""

    def __init__(self, addresses, index):
        self.addresses, self.index, self.count, self.is_chief = addresses, index, len(addresses), index == 0
        self.names = ["worker %d (%s)" % worker for worker in enumerate(addresses)]
        self.target = None  # until the server is started
        self._others = [other for other in range(self.count) if other != index]
        self._task = "/job:%s/task:%d" % (JOB, index)
        self._device = self._task + "/cpu:0"  # collective operations of several machines run on CPUs
        self._instance_keys = itertools.count(1)  # one for each collective operation: all workers build the same graphs
        self._ending = threading.Event()

    def configure(self, config):
        config.experimental.collective_group_leader = "/job:%s/replica:0/task:0" % JOB
        config.device_filters.append(self._task)
        config.isolate_session_state = True
        return config

    def start(self, config):
        host, port = host_and_port(self.addresses[self.index])
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                raise UserError("port %d, which TF_CONFIG gives to this worker, can't be used (%s); end what uses it, "
                                "or name another port" % (port, error.strerror)) from None
        for variable in PROXIES:
            os.environ.pop(variable, None)
        config = copy.deepcopy(config)
        config.experimental.collective_group_leader = "/job:%s/replica:0/task:0" % JOB
        server = tf.train.Server({JOB: self.addresses}, job_name=JOB, task_index=self.index, config=config)
        listen_only_on(host, port)
        self._wait_for_all()
        self.target = server.target
        with tf.Graph().as_default(), tf.device(self._device):
            numbers = tf.placeholder(tf.int32, [None])
            all_numbers = self._gather_numbers(numbers, self._gather(tf.size(numbers), 1)[:, 0])
            session = Session(self.target, config=self.configure(config))
            self._exchange = session.make_callable(all_numbers, [numbers])  # int32 [n] -> a list of every worker's
        threading.Thread(target=self._watch, daemon=True).start()

    def _wait_for_all(self):
        """Waits until every other worker can be connected to: each starts when its user starts it."""
        started, announced, waiting = time.monotonic(), [], self._others
        while True:
            waiting = [index for index in waiting if _connection_error(self.addresses[index])]
            if not waiting:
                return
            if waiting != announced and time.monotonic() > started + 2:
                write_line("waiting for %s" % ", ".join(self.names[index] for index in waiting))
                announced = waiting
            time.sleep(POLL_SECONDS)

    def _watch(self):
        """Ends this process where another worker is gone: a collective operation would wait for it for ever."""
        refusals, silent_since = [0] * self.count, [None] * self.count
        while not self._ending.wait(POLL_SECONDS):
            for index in self._others:
                error = _connection_error(self.addresses[index])
                refusals[index] = refusals[index] + 1 if error == errno.ECONNREFUSED else 0
                silent_since[index] = (silent_since[index] or time.monotonic()) if error else None
                if not self._ending.is_set() and (refusals[index] >= MAX_REFUSALS or (
                        error and time.monotonic() > silent_since[index] + MAX_SILENT_SECONDS)):
                    sys.stdout.flush()
                    write_line("error: %s is gone; see what its own log ends with, then start every worker again with "
                               "--resume" % self.names[index])
                    os._exit(1)  # the main thread may be inside a call of TensorFlow's that never returns

    @contextlib.contextmanager
    def guarded(self):
        try:
            yield
        except tf.errors.OpError as error:
            time.sleep(PATIENCE_SECONDS)  # _watch finds out sooner which worker is gone, and ends the process
            raise UserError("the connection to the other workers failed (%s); start every worker again with --resume"
                            % str(error).splitlines()[-1]) from None

    def finish(self):
        self.all_gather("through")
        self._ending.set()  # a worker that goes from here on is through
        with contextlib.suppress(tf.errors.OpError):
            self.all_gather("not needed any more")

    def all_gather(self, value):
        text = json.dumps(value).encode()
        numbers = np.frombuffer(text + b" " * (-len(text) % 4), np.int32)
        return [json.loads(received.tobytes().decode()) for received in self._exchange(numbers)]

    def all_gather_rows(self, rows):
        numbers = np.ascontiguousarray(rows, np.float32).reshape(-1).view(np.int32)
        return np.concatenate(self._exchange(numbers)).view(np.float32).reshape((-1,) + rows.shape[1:])

    def require_equal(self, what, remedy, value):
        chief, *others = self.all_gather(value)
        for index, other in enumerate(others, 1):
            differences = ["%s %s instead of %s" % (name, other.get(name), chief.get(name))
                           for name in sorted(set(chief) | set(other)) if other.get(name) != chief.get(name)]
            if differences:
                raise UserError("%s differs from the chief in %s (%s); %s"
                                % (self.names[index], what, ", ".join(differences), remedy))

    def _group(self):
        return dict(group_size=self.count, group_key=1, instance_key=next(self._instance_keys))

    def _gather(self, numbers, size):
        """[W, size] every worker's `numbers`, int32 [size]."""
        together = tf.raw_ops.CollectiveGather(input=tf.reshape(numbers, [size]), shape=[self.count * size],
                                               **self._group())
        return tf.reshape(together, [self.count, size])

    def _gather_numbers(self, numbers, sizes):
        """A list of every worker's `numbers`, int32 [n]; the workers' n are `sizes` [W].

        TensorFlow 1.15 gathers arrays whose shape is the same in every step, so the numbers are sent in pieces of a
        power of two times PIECE. The largest worker's count of pieces, rounded up to three binary digits, decides
        which: three pieces at most, 6% more numbers than needed in the mean, 25% at most.
        """
        needed = -(-tf.reduce_max(sizes) // PIECE)
        powers = 2 ** np.arange(31 - PIECE.bit_length(), dtype=np.int32)
        unit = tf.maximum(tf.reduce_max(tf.where(powers <= needed, powers, np.ones_like(powers))) // 4, 1)
        pieces = -(-needed // unit) * unit
        numbers = tf.pad(numbers, [[0, pieces * PIECE - tf.size(numbers)]])
        parts = []
        for power in reversed(powers.tolist()):
            def gather(size=power * PIECE, start=pieces // (2 * power) * (2 * power) * PIECE):
                return self._gather(numbers[start:start + size], size)
            parts.append(tf.cond(tf.equal(pieces // power % 2, 1), gather, lambda: tf.zeros([self.count, 0], tf.int32)))
        together = tf.concat(parts, axis=1)
        return [together[index, :sizes[index]] for index in range(self.count)]

    def all_reduce(self, loss, gradients):
        sparse = [gradient for gradient in gradients if isinstance(gradient, tf.IndexedSlices)]
        dense = [loss] + [gradient for gradient in gradients if not isinstance(gradient, tf.IndexedSlices)]
        with tf.device(self._device), tf.name_scope("workers"):
            vector = tf.raw_ops.CollectiveReduce(
                input=tf.concat([tf.reshape(tensor, [-1]) for tensor in dense], axis=0), merge_op="Add", final_op="Id",
                subdiv_offsets=[0], **self._group())
            parts = tf.split(vector, [tensor.shape.num_elements() for tensor in dense])
            loss, *dense = [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, dense)]
            sparse = self._sum_sparse(sparse)
        dense, sparse = iter(dense), iter(sparse)
        return loss, [next(sparse if isinstance(gradient, tf.IndexedSlices) else dense) for gradient in gradients]

    def _sum_sparse(self, gradients):
        """The sum over the workers of each of `gradients`, S IndexedSlices."""
        count = len(gradients)
        shapes = [gradient.values.shape[1:] for gradient in gradients]
        widths = np.array([shape.num_elements() for shape in shapes], np.int32)
        # The counts of rows follow from the ids alone, so they are there long before the gradients.
        counts = self._gather(tf.stack([tf.size(gradient.indices) for gradient in gradients]), count)           # [W, S]
        numbers = [tf.reshape(gradient.indices, [-1]) for gradient in gradients] + [
            tf.bitcast(tf.reshape(gradient.values, [-1]), tf.int32) for gradient in gradients]
        numbers = self._gather_numbers(tf.concat(numbers, axis=0), tf.reduce_sum(counts * (1 + widths), axis=1))
        parts = [tf.split(numbers[index], tf.concat([counts[index], counts[index] * widths], axis=0), num=2 * count)
                 for index in range(self.count)]
        ids_and_rows = list(zip(*parts))  # each gradient's ids, then each gradient's rows; W parts of each
        sums = []
        for gradient, shape, ids, rows in zip(gradients, shapes, ids_and_rows, ids_and_rows[count:]):
            ids, rows = sum_by_id(ids, [tf.reshape(tf.bitcast(part, tf.float32), [-1] + shape.as_list())
                                        for part in rows])
            sums.append(tf.IndexedSlices(rows, ids, gradient.dense_shape))
        return sums

    def broadcast(self, variables):
        def one(variable):
            group = dict(self._group(), shape=variable.shape)
            if self.is_chief:
                return tf.raw_ops.CollectiveBcastSend(input=variable.read_value(), **group)
            return variable.assign(tf.raw_ops.CollectiveBcastRecv(T=variable.dtype.base_dtype, **group))
        with tf.device(self._device), tf.name_scope("broadcast"):
            return tf.group(*map(one, variables))

    def checksum(self, variables):
        return tf.add_n([tf.reduce_sum(tf.cast(tf.bitcast(variable, tf.int32), tf.int64)) for variable in variables])


def sum_by_id(ids, rows):
    """Adds up the rows that have the same id: ids [R], rows [R, ...] -> (distinct ids [U], sums [U, ...]).

    `ids` and `rows` are lists of tensors, parts of the R ids and rows. Rows of one id are brought together first: 137
    microseconds for 2,600 rows of 64, where tf.unsorted_segment_sum takes 404 (one core of an AMD EPYC).
    """
    distinct, index = tf.unique(tf.concat(ids, axis=0))
    order = tf.argsort(index)
    ranks = tf.split(tf.math.invert_permutation(order), [tf.size(part) for part in ids])
    return distinct, segment_sum(tf.dynamic_stitch(ranks, rows), tf.gather(index, order), tf.size(distinct))


def _connection_error(address):
    """0 where the server at `address` takes connections, else an errno."""
    try:
        socket.create_connection(host_and_port(address), timeout=2 * POLL_SECONDS).close()
        return 0
    except OSError as error:
        return error.errno or errno.ETIMEDOUT
