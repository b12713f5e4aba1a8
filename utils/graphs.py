"""Parts of a graph that are computed once, and fed to, or looked up by, whatever is computed after them."""
import itertools

import numpy as np

from utils.embeddings import look_up
from utils.tf1 import tf

MOST_BYTES = 1 << 30  # of tables; DIN's for a million items would have 1.2 GB
SHAPING = ("ExpandDims", "Reshape", "Squeeze", "StridedSlice")  # what costs no more than a look-up


def in_stages(session, fetch, groups, rest):
    """Splits the computing of `fetch`, so that what depends on one of `groups` alone is computed once for several calls.

    What depends on variables alone goes with the first group. The functions may be called by several threads, and compute in
    the thread that calls.

    Args:
      session: a session.Session.
      fetch: a tensor that depends on `groups`, `rest`, variables and nothing else.
      groups: lists of tensors whose values go together.
      rest: a list of tensors.

    Returns:
      (starts, finish): for each group a function of its values, which returns a list of arrays; and a function of such a
      list for each group and the values of `rest`, which returns that of `fetch`.
    """
    found = _nearest(fetch, groups, rest)
    found[0] = found.pop() + found[0]

    def start(group, of_group):
        compute = session.make_callable(of_group, group, in_caller=True)
        return lambda *values: [*values, *compute(*values)]
    call = session.make_callable(fetch, [
        tensor for group, of_group in zip(groups, found) for tensor in group + of_group] + rest, in_caller=True)

    def finish(*values):
        return call(*itertools.chain(*values[:len(groups)]), *values[len(groups):])
    return [start(*both) for both in zip(groups, found)], finish


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
        self._graph = self._for_any_device()
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

    def _for_any_device(self):
        """The GraphDef of `fetch`, without its device; but variables, and what is on the host, stay where they are."""
        find = self._fetch.graph.get_operation_by_name
        graph = tf.graph_util.extract_sub_graph(self._fetch.graph.as_graph_def(), [self._fetch.op.name])
        for node in graph.node:
            op = find(node.name)
            if node.device == self._fetch.device and not any(
                    tensor.dtype == tf.resource for tensor in list(op.inputs) + op.outputs):
                node.device = ""
        return graph

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
        names = {node.name for node in self._graph.node}
        own = {before.name: after for before, after in zip(self._inputs, inputs)}
        with tf.device(device):
            replaced = {name: tensor for name, tensor in own.items() if name.split(":")[0] in names}
            for name, (variable, source) in self._found.items():
                replaced[name] = tf.identity(variable) if source is None else look_up(variable, own[source.name])
            fetch, = tf.import_graph_def(self._graph, replaced, [self._fetch.name], name="with_tables")
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
