"""TensorFlow as the project uses it: graphs, placeholders and sessions, on 1.15 and on 2.x alike.

Import `tf` from here and nowhere else, so that v2 behaviour is off before the first graph is built.
"""
import contextlib
import gc
import os
import sys
import warnings

# Errors of the runtime, not its greetings: people tail the log. Where a worker is gone, the other workers' runtimes say
# in ten lines what utils/cluster/workers.py says in one.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if os.environ.get("TF_CONFIG") else "2")
# No Keras: TensorFlow 2.x loads it together with pandas, and with scikit-learn and matplotlib where they are installed,
# which is 1.7 of 3.7 seconds. Asked for the old Keras, a package of its own, TensorFlow goes on without.
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # the arithmetic is float32, also in NVIDIA's own libraries


@contextlib.contextmanager
def _quick_and_quiet():
    """A context to import TensorFlow in, without garbage collection and without its greetings.

    An import that raises ends the process with one line.

    TensorFlow 2.x writes greetings to file descriptor 2 before any setting of its log level counts, and leaves 400,000
    objects. Where the collector never looks at them, the import takes 1.4 seconds instead of 1.75, and the process ends
    0.5 seconds sooner (two cores of an AMD EPYC).
    """
    with open(os.devnull, "wb") as nowhere:
        standard_error = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        gc.disable()
        try:
            yield
        except ModuleNotFoundError:  # run_main says what to do
            raise
        except Exception as error:
            sys.exit("error: TensorFlow can't be loaded (%s: %s); run ./setup.sh, or mend what python -c 'import "
                     "tensorflow' says" % (type(error).__name__, " ".join(str(error).split())))
        finally:
            gc.freeze()
            gc.enable()
            sys.stderr.flush()
            os.dup2(standard_error, 2)
            os.close(standard_error)


with _quick_and_quiet(), warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # TensorFlow 1.15 meets a newer NumPy
    import tensorflow.compat.v1 as tf
    from tensorflow.core.protobuf.config_pb2 import CallableOptions  # noqa: F401  for engine/session.py

tf.logging.set_verbosity(tf.logging.ERROR)
tf.disable_v2_behavior()
if hasattr(tf.config.experimental, "enable_tensor_float_32_execution"):  # from 2.4 on
    # The models' arithmetic is float32. From the A100 on, TensorFlow would round the factors of each product to ten
    # bits: logits are then off by up to 1.5e-4.
    tf.config.experimental.enable_tensor_float_32_execution(False)
tf.enable_resource_variables()  # a read sees the value of its step, however the step's operations are ordered


def tf_reason(error):
    """What `error` says, in one line: TensorFlow says it before the node's name, 2.x after other lines."""
    return (str(error).split("\n\t [[")[0].strip().splitlines() or [type(error).__name__])[-1]
