"""A session whose callables spare what Session.run does in Python before each call."""
import numpy as np

from utils.tf1 import CallableOptions, tf

ALIGNMENT = 64  # bytes
CONTROL_FLOW = {"Enter", "Switch", "RefSwitch"}  # of loops and branches, which the single-threaded executor lacks


class Session(tf.Session):
    """A tf.Session with faster callables.

    A callable of tf.Session goes through Session.run if it is fed, which parses fetches and feeds: 68 microseconds a
    call where these take 5, and a training step of 32 takes 1,200 (two cores of an AMD EPYC).

    Where its graph has loops or branches, it takes TensorFlow's own executor, whatever `config` says.
    """

    def __init__(self, target="", config=None):
        kinds = {op.type for op in tf.get_default_graph().get_operations()}
        if config is not None and kinds & CONTROL_FLOW:
            config = type(config).FromString(config.SerializeToString())
            config.experimental.executor_type = ""
        super().__init__(target, config=config)

    def make_callable(self, fetches, feed_list=None, in_caller=False):
        """As tf.Session's, of a tensor or a list of tensors and operations; of anything else it is that itself.

        Whether a fed value has the shape that its placeholder says is not checked.

        `in_caller`: run the operations in the thread that calls, one after another. Where several threads call, each
        with a core of its own, nothing is handed from core to core: DIN's attention for a history item and 4,096
        candidates takes 9% less.
        """
        several, feeds = isinstance(fetches, list), feed_list or []
        listed = fetches if several else [fetches]
        # TensorFlow has them neither of nothing, nor of what is fed, nor where another process runs the session.
        if not listed or self.sess_str or any(
                isinstance(fetch, (list, tuple, dict)) or fetch in feeds for fetch in listed):
            return super().make_callable(fetches, feed_list)
        elements = [self.graph.as_graph_element(fetch) for fetch in listed]
        are_tensors = [isinstance(element, tf.Tensor) for element in elements]
        dtypes = [feed.dtype.as_numpy_dtype for feed in feeds]
        call = self._make_callable_from_options(CallableOptions(  # as Keras does, on all versions of TensorFlow
            feed=[feed.name for feed in feeds],
            fetch=[element.name for element, is_tensor in zip(elements, are_tensors) if is_tensor],
            target=[element.name for element, is_tensor in zip(elements, are_tensors) if not is_tensor],
            run_options=tf.RunOptions(inter_op_thread_pool=-1 if in_caller else 0)))

        def run(*values):
            results = iter(call(*map(np.asarray, values, dtypes)))
            return [next(results) if is_tensor else None for is_tensor in are_tensors]
        return run if several else lambda *values: run(*values)[0]


def aligned(array):
    """A copy of `array` in memory that a session's callable takes as it is; of others it makes a copy at each call."""
    memory = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    copy = memory[first:first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
