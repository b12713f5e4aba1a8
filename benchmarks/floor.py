"""The floor: the matrix products that a session call needs, at the same sizes, and nothing else.

It is read off the model's own graph, so that it stays true when the model is written in another way: a product that the
model no longer needs leaves the floor too, and only what it spends beside its products counts against it.
"""
import numpy as np

from utils.engine.session import Session
from utils.tf1 import tf

PRODUCTS = ("MatMul", "SparseMatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")


def products(fetches):
    """The matrix products, operations, that computing `fetches` needs, in the order in which the graph was built."""
    needed = set()
    waiting = [getattr(fetch, "op", fetch) for fetch in tf.nest.flatten(fetches)]
    while waiting:
        op = waiting.pop()
        if op not in needed:
            if any(value.HasField("func") for value in op.node_def.attr.values()):
                raise NotImplementedError("%s calls a function, whose products the floor does not see" % op.name)
            needed.add(op)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return [op for op in tf.nest.flatten(fetches)[0].graph.get_operations() if op in needed and op.type in PRODUCTS]


def operands(ops):
    """The tensors that `ops` read, each once, in order."""
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

    The sizes of a batch are the first rows of an operand that stays in memory: no operand is copied or made anew, and
    one that two products share is one here too. Products that wait for each other, in the model's order, have all
    threads to themselves; those that don't can run side by side. The faster of the two is the floor: here side by side,
    0.4 ms against 0.7 at a batch of 32, 2.4 against 4.3 at 256, 9.4 against 12.4 at 1,024 (training DIN, two cores of an
    AMD EPYC).

    Args:
      ops: the products, as `products` gives them.
      shapes: for each batch, the shape of each of `operands(ops)`, tuples.
      config: the ConfigProto of the session that they come from.

    Attributes:
      runs: two functions that compute all products for batch number `index`: side by side, one after another.
    """

    def __init__(self, ops, shapes, config):
        shapes_of = dict(zip(operands(ops), zip(*shapes)))
        own_config = type(config)()
        own_config.CopyFrom(config)
        # Nothing is to be folded or left out here.
        own_config.graph_options.optimizer_options.opt_level = tf.OptimizerOptions.L0
        own_config.graph_options.rewrite_options.disable_meta_optimizer = True
        with tf.Graph().as_default() as graph:
            varying, tensors = {}, {}
            for name, dtype in {tensor.name: tensor.dtype for op in ops for tensor in op.inputs}.items():
                tensors[name] = self._operand(shapes_of[name], dtype.base_dtype, varying)
            calls = []
            for chained in (False, True):
                done = []
                for op in ops:
                    with tf.control_dependencies(done[-1:] if chained else []):
                        done.append(graph.create_op(
                            op.type, [tensors[tensor.name] for tensor in op.inputs],
                            [tensor.dtype for tensor in op.outputs],
                            attrs={name: value for name, value in op.node_def.attr.items() if name[0] != "_"}))
                calls.append(done)
            self.session = Session(config=own_config)
            self.session.run(tf.global_variables_initializer())
        # The products are the targets of the call: they are computed, and their results stay where they are.
        calls = [self.session.make_callable(done, list(varying.values())) for done in calls]
        feeds = [[np.array(shape, np.int32) for shape in batch] for batch in zip(*varying)] or [[]] * len(shapes)
        self.runs = [lambda index, call=call: call(*feeds[index]) for call in calls]

    @staticmethod
    def _operand(shapes, dtype, varying):
        """Random data of `shapes[index]` in the call for batch `index`; what to feed is added to `varying`."""
        sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
        fixed = len(set(shapes)) == 1
        data = tf.get_variable("operand_%d" % len(tf.global_variables()), dtype=dtype, trainable=False,
                               initializer=tf.cast(tf.random.normal(shapes[0] if fixed else [max(sizes)]), dtype))
        if fixed:
            return tf.identity(data)
        if shapes not in varying:
            varying[shapes] = tf.placeholder(tf.int32, [len(shapes[0])])
        shape = varying[shapes]
        return tf.reshape(tf.slice(data, [0], tf.reduce_prod(shape, keepdims=True)), shape)

    def close(self):
        self.session.close()
