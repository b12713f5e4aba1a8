"""Parts of a graph that are computed once, and fed to, or looked up by, whatever is computed after them."""
import functools
import itertools

import numpy as np

from utils.engine.embeddings import look_up
from utils.tf1 import tf

MOST_BYTES = 1 << 30  # of tables; DIN's for a million items would have 1.2 GB
SHAPING = ("ExpandDims", "Reshape", "Squeeze", "StridedSlice")  # what costs no more than a look-up


def in_stages(session, fetch, groups, rest, pieces=1):
    """Splits the computing of `fetch`, so that what depends on one of `groups` alone is computed once for several calls.

    A call computes `fetch` for up to `pieces` values of the first group and of `rest`, one after another: a piece at a time is
    in the cache of a core. What depends on variables alone is computed here, so these must not change from then on. The
    functions may be called by several threads, and compute in the thread that calls.

    Args:
      session: a session.Session.
      fetch: a tensor that depends on `groups`, `rest`, variables and nothing else.
      groups: lists of tensors whose values go together.
      rest: a list of tensors.
      pieces: a number.

    Returns:
      (starts, finish): for each group a function of its values, which returns a list of arrays; and a function of a list of
      pieces, each such a list for the first group followed by the values of `rest`, and of such a list for each other group,
      which returns the value of `fetch` for each piece, a list.
    """
    found = _nearest(fetch, groups, rest)
    fixed = found.pop()
    given = {tensor.name for tensor in itertools.chain(fixed, rest, *groups, *found)}
    graph, needed = _between(given, fetch)

    def start(group, of_group):
        compute = session.make_callable(of_group, group, in_caller=True) if of_group else lambda *_: []
        kept = [index for index, tensor in enumerate(group) if tensor.name in needed]
        return lambda *values: [values[index] for index in kept] + compute(*values)
    # What the functions for the groups return.
    kept = [[tensor for tensor in group + of_group if tensor.name in needed] for group, of_group in zip(groups, found)]
    shared, of_piece = list(itertools.chain(*kept[1:])), kept[0] + rest

    with tf.device(fetch.device), tf.name_scope("in_stages"):
        known = {tensor.name: tf.constant(value) for tensor, value in zip(fixed, session.run(fixed))}
        known.update((tensor.name, tensor) for tensor in shared)
        fed, results = [], []
        for _ in range(pieces):
            fed += [tf.placeholder(tensor.dtype, tensor.shape) for tensor in of_piece]
            with tf.control_dependencies(results[-1:]):
                known.update(zip((tensor.name for tensor in of_piece), map(tf.identity, fed[-len(of_piece):])))
            results += tf.import_graph_def(graph, {name: known[name] for name in needed}, [fetch.name], name="piece")

    @functools.lru_cache(maxsize=None)
    def call(count):
        return session.make_callable(results[:count], fed[:count * len(of_piece)] + shared, in_caller=True)

    def finish(values, *others):
        return call(len(values))(*itertools.chain(*values, *others))
    return [start(*both) for both in zip(groups, found)], finish


def _between(given, fetch):
    """(the GraphDef of what computes `fetch` from the tensors named in `given`; those of them that it needs)."""
    ops, needed, waiting = {}, set(), [fetch.op]
    while waiting:
        op = waiting.pop()
        if op.name not in ops:
            ops[op.name] = op
            needed.update(tensor.name for tensor in op.inputs if tensor.name in given)
            waiting += [tensor.op for tensor in op.inputs if tensor.name not in given]
    return tf.GraphDef(node=[op.node_def for op in ops.values()], versions=fetch.graph.graph_def_versions), needed


class Tables:
    """What `fetch` needs of an id alone, or of variables alone, computed once; copies of `fetch` look it up.

    An example is the product of a history item's embedding with a kernel. The variables must not change from then on.

    Args:
      session: a tf.Session.
      fetch: a float tensor that depends on `ids`, `others`, variables and nothing else.
      ids: placeholders of ids, below `count`; a list.
      others: other placeholders, a list.
    """

    def __init__(self, session, fetch, ids, others, count):
        self._session, self._fetch, self._count, self._bytes = session, fetch, count, 0
        self._inputs = ids + others
        self._found = {}  # by the name of what is replaced: (its values, a variable; the ids that are looked up, or None)
        self._arrays = []
        for tensor in _nearest(fetch, [], self._inputs)[0]:
            if tensor.dtype == tf.float32:
                self._found[tensor.name] = self._kept(session.run(tensor)), None
        for source, waiting in zip(ids, _nearest(fetch, [[source] for source in ids], others)):
            seen = set(self._found)
            while waiting:
                tensor = waiting.pop()
                if tensor.name in seen or _is_given(tensor):
                    continue
                seen.add(tensor.name)
                values = None if tensor.op.type in SHAPING else self._of_each_id(tensor, source)
                if values is None:
                    waiting += tensor.op.inputs
                else:
                    self._found[tensor.name] = self._kept(values), source
        del self._arrays
        self._graph, self._needed = _between({tensor.name for tensor in self._inputs}.union(self._found), fetch)
        self._leave_device()

    def _leave_device(self):
        """Takes the device of `fetch` off the nodes of the graph; but variables, and what is on the host, stay where they are."""
        for node in self._graph.node:
            op = self._fetch.graph.get_operation_by_name(node.name)
            if node.device == self._fetch.device and not any(
                    tensor.dtype == tf.resource for tensor in list(op.inputs) + op.outputs):
                node.device = ""

    def _of_each_id(self, tensor, source):
        """The values of `tensor` for each id, [count, ...]; None if they don't depend on an id each, or take too much memory.

        That they do is tried out: the last ids, in reverse, must give what all together gave.
        """
        rank = source.shape.ndims
        shape = tensor.shape.as_list() if tensor.shape.ndims is not None else []
        if len(shape) < rank or None in shape[rank:] or tensor.dtype != tf.float32:
            return None
        size = 4 * self._count * int(np.prod(shape[rank:]))
        if self._bytes + size > MOST_BYTES:
            return None

        def of(some):
            fed = some.reshape([-1] + [1] * (rank - 1))
            values = self._session.run(tensor, {source: fed})
            return values.reshape([len(some)] + shape[rank:]) if values.shape[:rank] == fed.shape else None
        every = np.arange(self._count, dtype=np.int32)
        last = every[::-1][:1000]
        values, again = of(every), of(last)
        if values is None or again is None or not np.allclose(values[last], again, rtol=1e-4, atol=1e-6):
            return None
        self._bytes += size
        return values

    def _kept(self, values):
        """A variable with `values`, an array; what is the same has one."""
        for array, variable in self._arrays:
            if array.shape == values.shape and np.array_equal(array, values):
                return variable
        with tf.device(self._fetch.device), tf.variable_scope(None, "once"):
            variable = tf.get_variable("values", values.shape, trainable=False, initializer=tf.zeros_initializer(),
                                       collections=[tf.GraphKeys.LOCAL_VARIABLES])
        variable.load(values, self._session)
        self._arrays.append((values, variable))
        return variable

    def copy(self, inputs, device):
        """A tensor on `device` that is of `inputs` what `fetch` is of ids + others."""
        own = {before.name: after for before, after in zip(self._inputs, inputs)}
        with tf.device(device):
            known = dict(own)
            for name, (variable, source) in self._found.items():
                known[name] = tf.identity(variable) if source is None else look_up(variable, own[source.name])
            fetch, = tf.import_graph_def(self._graph, {name: known[name] for name in self._needed}, [self._fetch.name],
                                         name="with_tables")
        return fetch


def _nearest(fetch, groups, rest):
    """The tensors nearest to `fetch` that depend on one of `groups` alone, but for those that nothing is computed for.

    Returns a list for each group, and one of those that depend on variables alone.
    """
    ends = {tensor.name: {index} for index, group in enumerate(groups + [rest]) for tensor in group}
    known, found, seen, waiting = dict(ends), [[] for _ in groups + [rest]], set(), [fetch]

    def needed(tensor):  # the indexes of what it depends on
        if tensor.name not in known:
            known[tensor.name] = set().union(*map(needed, tensor.op.inputs))
        return known[tensor.name]

    while waiting:
        tensor = waiting.pop()
        if tensor.name in seen:
            continue
        seen.add(tensor.name)
        if len(needed(tensor)) < 2 and len(groups) not in needed(tensor):
            if tensor.name not in ends and not _is_given(tensor):
                found[min(needed(tensor), default=len(groups))].append(tensor)
        elif tensor.name not in ends:
            waiting += tensor.op.inputs
    return found


def _is_given(tensor):
    """Whether it is a constant, a placeholder, a variable or a variable's value."""
    return not tensor.op.inputs or all(input_.dtype == tf.resource for input_ in tensor.op.inputs)
