"""Parts of a graph that are computed once, and fed to, or looked up by, whatever is computed after them."""
import itertools

import numpy as np

from utils.engine.embeddings import gather_rows
from utils.tf1 import tf

IDS_AT_ONCE = 1 << 16  # to bound the memory of what a table is computed from
MAX_BYTES = 1 << 30  # of tables; DIN's for a million items would have 1.2 GB
SHAPING = ("ExpandDims", "Reshape", "Squeeze", "StridedSlice")  # what costs no more than a look-up


class Stages:
    """`fetch` in two stages: what it needs of a group of inputs alone, then the remainder, which is fed with that.

    Variables must not change from then on. The functions may be called by several threads, and compute in these.

    Args:
      session: a session.Session.
      fetch: a tensor that depends on the groups, variables and nothing else.
      groups: lists of placeholders.

    Attributes:
      first: for each group a function of its values, which returns a list of arrays.
      last: a function of such a list for each group, which returns the value of `fetch`.
    """

    def __init__(self, session, fetch, groups):
        *nearest, of_variables = _nearest(fetch, groups)
        nearest = [group + tensors for group, tensors in zip(groups, nearest)]
        self.first = [session.make_callable(list(map(tf.identity, tensors)), group, in_caller=True)
                      for group, tensors in zip(groups, nearest)]
        last = session.make_callable(fetch, sum(nearest, of_variables), in_caller=True)
        constants = session.run(of_variables)
        self.last = lambda *values: last(*itertools.chain(constants, *values))


class Tables:
    """What `fetch` needs of an id alone, or of variables alone, computed once; copies of `fetch` look it up.

    An example is the product of a history item's embedding with a kernel. The variables must not change from then on.

    Args:
      session: a tf.Session.
      fetch: a float tensor that depends on `ids`, `others`, variables and nothing else.
      ids: placeholders of ids, below `count`, [N] or [B, C]; a list.
      others: other placeholders, a list.
      count: a number.
    """

    def __init__(self, session, fetch, ids, others, count):
        self._session, self._fetch, self._count, self._bytes = session, fetch, count, 0
        self._inputs = ids + others
        self._replaced = {}  # {tensor's name: (a variable with its values; the ids to look them up by, or None)}
        for tensor in _nearest(fetch, [], self._inputs)[-1]:
            if tensor.dtype == tf.float32:
                self._replace(tensor, session.run(tensor), None)
        for source, waiting in zip(ids, _nearest(fetch, [[source] for source in ids], others)):
            seen = set(self._replaced)
            while waiting:
                tensor = waiting.pop()
                if tensor.name in seen or _is_given(tensor):
                    continue
                seen.add(tensor.name)
                values = None if tensor.op.type in SHAPING else self._values_of_ids(tensor, source)
                if values is None:
                    waiting += tensor.op.inputs
                else:
                    self._replace(tensor, values, source)
        self._graph, self._needed = _between({tensor.name for tensor in self._inputs}.union(self._replaced), fetch)
        self._leave_device()

    def _values_of_ids(self, tensor, source):
        """The values of `tensor` for each id, [count, ...]; None if they don't depend on an id each, or are too many.

        That they do is tried out: ids drawn without the highest, two to a row where they have rows, must give what they
        gave when all were together.
        """
        rank = source.shape.ndims
        shape = tensor.shape.as_list() if tensor.shape.ndims is not None else []
        if len(shape) < rank or None in shape[rank:] or tensor.dtype != tf.float32 or not _can_be_fed(tensor):
            return None
        size = 4 * self._count * int(np.prod(shape[rank:]))
        if self._bytes + size > MAX_BYTES:
            return None
        every = np.arange(self._count, dtype=np.int32).reshape([-1] + [1] * (rank - 1))
        drawn = np.random.RandomState(0).randint(max(1, self._count - 1), size=[300] + [2] * (rank - 1), dtype=np.int32)
        again = self._session.run(tensor, {source: drawn})
        if again.shape[:rank] != drawn.shape:  # such as rows [B C, ...], of which all would take more than `size`
            return None
        blocks = np.array_split(every, -(-self._count // IDS_AT_ONCE))
        values = np.concatenate([self._session.run(tensor, {source: ids}) for ids in blocks])
        if values.shape[:rank] != every.shape:
            return None
        values = values.reshape([self._count] + shape[rank:])
        if not np.allclose(values[drawn], again, rtol=1e-4, atol=1e-6):
            return None
        self._bytes += size
        return values

    def _replace(self, tensor, values, source):
        """Replaces `tensor` by a variable with `values`, to be looked up by `source`, ids, or to be taken as it is."""
        for variable, _ in self._replaced.values():  # what is the same has one
            if variable.shape.as_list() == list(values.shape) and np.array_equal(self._session.run(variable), values):
                break
        else:
            with tf.device(self._fetch.device), tf.variable_scope(None, "once"):
                variable = tf.get_variable("values", values.shape, trainable=False, collections=[
                    tf.GraphKeys.LOCAL_VARIABLES], initializer=tf.zeros_initializer())
            variable.load(values, self._session)
        self._replaced[tensor.name] = variable, source

    def _leave_device(self):
        """Takes the device of `fetch` off the copies' nodes; variables and what is on the host stay where they are."""
        names = {("loc:@" + node.name).encode() for node in self._graph.node}
        for node in self._graph.node:
            if "_class" in node.attr and not names.issuperset(node.attr["_class"].list.s):
                del node.attr["_class"]  # to be where something is that is replaced
            op = self._fetch.graph.get_operation_by_name(node.name)
            if node.device == self._fetch.device and not any(
                    tensor.dtype == tf.resource for tensor in list(op.inputs) + op.outputs):
                node.device = ""

    def copy(self, inputs, device):
        """A tensor on `device` that is of `inputs` what `fetch` is of ids + others."""
        known = {before.name: after for before, after in zip(self._inputs, inputs)}
        for node in self._graph.node:
            if "frame_name" in node.attr:  # a loop's, in the graph where its name is given once
                node.attr["frame_name"].s += b"_copy"
        with tf.device(device):
            for name, (variable, source) in self._replaced.items():
                known[name] = tf.identity(variable) if source is None else gather_rows(variable, known[source.name])
            fetch, = tf.import_graph_def(self._graph, {name: known[name] for name in self._needed}, [self._fetch.name],
                                         name="with_tables")
        return fetch


def _nearest(fetch, groups, others=()):
    """The tensors nearest to `fetch` that depend on one of `groups` alone, but for those that nothing is computed for.

    Args:
      groups: lists of placeholders.
      others: further placeholders.

    Returns:
      A list for each group, and one of those that depend on variables alone.
    """
    groups_of = _dependencies(fetch.graph, groups + [others])
    ends = {tensor.name for tensor in itertools.chain(others, *groups)}
    nearest, seen, waiting = [[] for _ in groups + [None]], set(), [fetch]
    while waiting:
        tensor = waiting.pop()
        if tensor.name in seen or tensor.name in ends:
            continue
        seen.add(tensor.name)
        depends_on = groups_of[tensor.op]
        if len(depends_on) > 1 or len(groups) in depends_on or not _can_be_fed(tensor):
            waiting += tensor.op.inputs
        elif not _is_given(tensor):
            nearest[min(depends_on, default=len(groups))].append(tensor)
    return nearest


def _dependencies(graph, groups):
    """{operation: the set of the indexes of the groups that it depends on}, groups being lists of placeholders."""
    fed = {tensor.op: {index} for index, group in enumerate(groups) for tensor in group}
    groups_of, before = {op: set() for op in graph.get_operations()}, None
    while groups_of != before:  # once, and again for as long as something comes round a loop
        before = dict(groups_of)
        for op in graph.get_operations():
            groups_of[op] = fed.get(op, set()).union(*[groups_of[tensor.op] for tensor in op.inputs])
    return groups_of


def _between(given, fetch):
    """(the GraphDef of what computes `fetch` from the tensors named in `given`; those of them that it needs)."""
    ops, needed, waiting = {}, set(), [fetch.op]
    while waiting:
        op = waiting.pop()
        if op.name not in ops:
            ops[op.name] = op
            needed.update(tensor.name for tensor in op.inputs if tensor.name in given)
            waiting += [tensor.op for tensor in op.inputs if tensor.name not in given] + list(op.control_inputs)
    return tf.GraphDef(node=[op.node_def for op in ops.values()], versions=fetch.graph.graph_def_versions), needed


def _can_be_fed(tensor):
    """Whether it has a value outside of loops and branches, in which nothing is computed once."""
    return (tensor.graph.is_fetchable(tensor.op) and tensor.graph.is_feedable(tensor)
            and tensor.dtype not in (tf.resource, tf.variant) and not tensor.op.type.startswith("TensorArray"))


def _is_given(tensor):
    """Whether it is a constant, a placeholder, a variable or a variable's value."""
    return not tensor.op.inputs or all(input_.dtype == tf.resource for input_ in tensor.op.inputs)
