"""TensorFlow as the project uses it: graphs, placeholders and sessions, on 1.15 and on 2.x alike.

Import `tf` from here and nowhere else, so that v2 behaviour is off before the first graph is built.
"""
import contextlib
import gc
import os
import sys
import tempfile
import warnings

# Errors of the runtime, not its greetings: people tail the log. Of a worker that is gone (cluster.py) the others' runtimes
# say in ten lines what one line of ours says.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if os.environ.get("TF_CONFIG") else "2")
# No Keras: TensorFlow 2.x loads it together with pandas, and with scikit-learn and matplotlib where they are installed,
# which is 1.7 of 3.7 seconds. Asked for the old Keras, which is a package of its own, it goes on without.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


@contextlib.contextmanager
def _standard_error_held_back():
    """Drops what the block writes to file descriptor 2, unless it raises.

    TensorFlow 2.x greets there while it is imported, before any setting of its log level counts.
    """
    with tempfile.TemporaryFile() as held:
        kept = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def _garbage_collector_aside():
    """The collector does not run in the block, and never looks at what the block leaves.

    TensorFlow 2.x, which leaves 400,000 objects, is imported in 1.4 seconds instead of 1.75, and gone 0.5 seconds sooner at
    the end (two cores of an AMD EPYC).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


with _standard_error_held_back(), _garbage_collector_aside(), warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # TensorFlow 1.15 meets a newer NumPy
    import tensorflow.compat.v1 as tf
    from tensorflow.core.protobuf.config_pb2 import CallableOptions  # noqa: F401  for those who import it from here

tf.logging.set_verbosity(tf.logging.ERROR)
tf.disable_v2_behavior()
if hasattr(tf.config.experimental, "enable_tensor_float_32_execution"):  # from 2.4 on
    # The models' arithmetic is float32. From the A100 on, TensorFlow would round the factors of each product to ten bits:
    # logits are then off by up to 1.5e-4.
    tf.config.experimental.enable_tensor_float_32_execution(False)
tf.enable_resource_variables()  # a read sees the value of its step, however the step's operations are ordered
