"""A session whose callables spare what Session.run does in Python before each call."""
import numpy as np

from utils.tf1 import tf  # before TensorFlow itself
from tensorflow.core.protobuf.config_pb2 import CallableOptions


class Session(tf.Session):
    """A tf.Session with faster callables.

    A callable of tf.Session goes through Session.run if it is fed, which parses fetches and feeds: 68 microseconds a call
    where these take 5, and a training step of 32 takes 1,200 (two cores of an AMD EPYC).
    """

    def make_callable(self, fetches, feed_list=None, in_caller=False):
        """As tf.Session's, of a tensor or a list of tensors and operations; of anything else it is that itself.

        Whether a fed value has the shape that its placeholder says is not checked.

        `in_caller`: run the operations in the thread that calls, one after another. Where several threads call, each with a
        core of its own, nothing is handed from core to core: DIN's attention for a history item and 4,096 candidates takes 9%
        less.
        """
        several, feeds = isinstance(fetches, list), feed_list or []
        listed = fetches if several else [fetches]
        # TensorFlow offers them neither for nothing or what is fed and fetched, nor where another process runs the session.
        if not listed or self.sess_str or any(isinstance(fetch, (list, tuple, dict)) or fetch in feeds for fetch in listed):
            return super().make_callable(fetches, feed_list)
        found = [self.graph.as_graph_element(fetch) for fetch in listed]
        fetched = [isinstance(element, tf.Tensor) for element in found]
        dtypes = [feed.dtype.as_numpy_dtype for feed in feeds]
        call = self._make_callable_from_options(CallableOptions(  # as Keras does, on all versions of TensorFlow
            feed=[feed.name for feed in feeds],
            fetch=[element.name for element, is_tensor in zip(found, fetched) if is_tensor],
            target=[element.name for element, is_tensor in zip(found, fetched) if not is_tensor],
            run_options=tf.RunOptions(inter_op_thread_pool=-1 if in_caller else 0)))

        def run(*values):
            results = iter(call(*map(np.asarray, values, dtypes)))
            return [next(results) if is_tensor else None for is_tensor in fetched]
        return run if several else lambda *values: run(*values)[0]
