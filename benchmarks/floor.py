"""The floor: the matrix products that a session call needs, at the same sizes, and nothing else.

It is read off the model's own graph, so that it stays true when the model is written in another way. A product that the
model no longer needs leaves the floor too; only the time that a step spends beside its products counts against it.
"""
import numpy as np

from utils.engine.session import Session
from utils.tf1 import tf

PRODUCTS = ("MatMul", "SparseMatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")


def products(fetches):
    """The matrix products, operations, that computing `fetches` needs, in the order in which the graph was built."""
    stack = [getattr(fetch, "op", fetch) for fetch in tf.nest.flatten(fetches)]
    graph, needed_ops = stack[0].graph, set()
    while stack:
        op = stack.pop()
        if op not in needed_ops:
            if any(value.HasField("func") for value in op.node_def.attr.values()):
                raise NotImplementedError("%s calls a function, whose products the floor does not see" % op.name)
            needed_ops.add(op)
            stack += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return [op for op in graph.get_operations() if op in needed_ops and op.type in PRODUCTS]


def operands(ops):
    """The names of the tensors that `ops` read, each once, in order."""
    return list(dict.fromkeys(tensor.name for op in ops for tensor in op.inputs))


def multiply_adds(op, shape_of):
    """How many multiplications and additions the product `op` takes.

    Args:
      op: a product of two matrices, or of two batches of them.
      shape_of: the shape of each operand by its name.
    """
    a, b = (shape_of[tensor.name] for tensor in op.inputs)
    transposed = op.get_attr("transpose_b" if op.type.endswith("MatMul") and "Batch" not in op.type else "adj_y")
    return int(np.prod(a, dtype=np.int64)) * b[-2 if transposed else -1]


class Floor:
    """Computes products on random data, each product once in a session call, and nothing else.

    An operand stays in memory, and a batch takes as many of its first rows as it needs: no operand is copied or made
    anew. An operand that two products share is one here too. The products run one after another, in the model's order,
    so that each has all threads; or side by side. The faster of these two ways is the floor: here side by side, 0.4 ms
    against 0.7 at a batch of 32, 2.4 against 4.3 at 256, 9.4 against 12.4 at 1,024 (training DIN, two cores of an AMD
    EPYC).

    Args:
      ops: the products, as `products` gives them.
      shapes: for each call, the shape of each of `operands(ops)`, tuples.
      config: the ConfigProto of the session that they come from.

    Attributes:
      runs: two functions that compute all products of call number `index`: side by side, one after another.
    """

    def __init__(self, ops, shapes, config):
        shapes_of = dict(zip(operands(ops), zip(*shapes)))
        floor_config = type(config)()
        floor_config.CopyFrom(config)
        # Nothing is to be folded or left out here.
        floor_config.graph_options.optimizer_options.opt_level = tf.OptimizerOptions.L0
        floor_config.graph_options.rewrite_options.disable_meta_optimizer = True
        with tf.Graph().as_default() as graph:
            placeholders, tensors, ways = {}, {}, []
            for name, dtype in {tensor.name: tensor.dtype for op in ops for tensor in op.inputs}.items():
                tensors[name] = self._operand(shapes_of[name], dtype.base_dtype, placeholders)
            for one_by_one in (False, True):
                copies = []
                for op in ops:
                    with tf.control_dependencies(copies[-1:] if one_by_one else []):
                        copies.append(graph.create_op(
                            op.type, [tensors[tensor.name] for tensor in op.inputs],
                            [tensor.dtype for tensor in op.outputs],
                            attrs={name: value for name, value in op.node_def.attr.items() if name[0] != "_"}))
                ways.append(copies)
            self.session = Session(config=floor_config)
            self.session.run(tf.global_variables_initializer())
        # The products are the targets of the call: they are computed, and their results stay where they are.
        calls = [self.session.make_callable(copies, list(placeholders.values())) for copies in ways]
        feeds = [[np.array(shape, np.int32) for shape in call] for call in zip(*placeholders)] or [[]] * len(shapes)
        self.runs = [lambda index, call=call: call(*feeds[index]) for call in calls]

    @staticmethod
    def _operand(shapes, dtype, placeholders):
        """Random data of `shapes[index]` in call number `index`.

        A shape that differs from call to call is fed: it gets an entry in `placeholders`, {shapes: placeholder}.
        """
        sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
        same_shape = len(set(shapes)) == 1
        data = tf.get_variable("operand_%d" % len(tf.global_variables()), dtype=dtype, trainable=False,
                               initializer=tf.cast(tf.random.normal(shapes[0] if same_shape else [max(sizes)]), dtype))
        if same_shape:
            return tf.identity(data)
        if shapes not in placeholders:
            placeholders[shapes] = tf.placeholder(tf.int32, [len(shapes[0])])
        shape = placeholders[shapes]
        return tf.reshape(tf.slice(data, [0], tf.reduce_prod(shape, keepdims=True)), shape)

    def close(self):
        self.session.close()
