"""NUM_ACCELERATORS: one model, its batch split over several towers, one update.

A tower is a copy of the model's graph on a device, with the same variables, for a share of the recommendations. The sum
of the towers' losses, divided by the number of all recommendations, is the loss of the whole batch, and its gradient is
the whole batch's, uneven and empty shares included.
"""
import functools
import platform

from utils.environment import sums_changed_by
from utils.files import UserError
from utils.runs.machine import cores, processor
from utils.tf1 import tf

SMALLEST_SHARD = 64  # recommendations; with fewer a tower's operations cost more than a core of its own gains


@functools.lru_cache(maxsize=None)
def gpu_names():
    """The models of the GPUs that TensorFlow sees, in its order; empty on a machine without."""
    if not tf.config.experimental.list_physical_devices("GPU"):
        return ()
    from tensorflow.python.client import device_lib  # the one place that tells a GPU's model on 1.15 and 2.x alike
    config = tf.ConfigProto(gpu_options=tf.GPUOptions(allow_growth=True))  # else asking takes all of their memory
    descriptions = [device.physical_device_desc for device in device_lib.list_local_devices(config)
                    if device.device_type == "GPU"]
    return tuple(dict(part.split(": ", 1) for part in text.split(", ") if ": " in part).get("name", "GPU")
                 for text in descriptions)


def device_names(count):
    """TensorFlow's devices for `count` accelerators: GPUs, or logical CPUs without any; UserError for too few GPUs."""
    if count < 1:
        raise UserError("num_accelerators is %d; give 1 or more" % count)
    gpu_count = len(gpu_names())
    if 0 < gpu_count < count:
        raise UserError("%d accelerators asked for, %d GPUs found; lower NUM_ACCELERATORS, or see that "
                        "CUDA_VISIBLE_DEVICES shows TensorFlow the others" % (count, gpu_count))
    return ["/%s:%d" % ("gpu" if gpu_count else "cpu", index) for index in range(count)]


def shards(num_accelerators, batch_size):
    """How many towers to build on each device for `batch_size` recommendations: one on a GPU, one per core on a CPU.

    On a CPU two towers side by side, each on a core of its own, train DIN with a batch of 1,024 in 20 ms, where one
    tower whose operations share the cores takes 27 (two cores of an AMD EPYC): most operations are too small to share.
    """
    return 1 if gpu_names() else max(1, min(cores() // num_accelerators, batch_size // SMALLEST_SHARD))


def tower_devices(num_accelerators, batch_size):
    """The device of each tower, for `batch_size` recommendations on each accelerator; raises as `device_names`."""
    return [device for device in device_names(num_accelerators) for _ in range(shards(num_accelerators, batch_size))]


def session_config(num_accelerators, num_towers, traced=False):
    """The ConfigProto of a session on `num_accelerators` devices, for `num_towers`; `traced`: its steps are traced."""
    config = tf.ConfigProto(device_count={"CPU": 1 if gpu_names() else num_accelerators}, allow_soft_placement=True,
                            gpu_options=tf.GPUOptions(allow_growth=True))
    if gpu_names():
        # A thread that starts each GPU's operations, and one for the host's: a step of DIN with a batch of 1,024 takes
        # 2.3 ms. TensorFlow's choice, a thread for each of 16 cores, hands operations from thread to thread: 3.0 ms
        # (NVIDIA H200).
        config.inter_op_parallelism_threads = num_accelerators + 1
    else:
        # A tower has about two operations to run at a time. That many at once, each on one of two cores, take 6.5 ms
        # for a step of 256 where operations that share the cores take 8.8.
        config.inter_op_parallelism_threads = cores()
        config.intra_op_parallelism_threads = max(1, cores() // (2 * num_towers))
        # TensorFlow 2 would make one operation of a product, its bias and its activation, which here takes longer than
        # the three: a step of 32 takes 1.25 ms with it and 1.22 without, where the three are next to each other 1.30.
        config.graph_options.rewrite_options.remapping = config.graph_options.rewrite_options.OFF
        if num_accelerators == num_towers == 1 and not traced:
            # One tower's operations wait for each other, so further threads cost more than they gain. Without them a
            # step of 32 takes 1.21 ms instead of 1.39, and scoring a batch of 1,024 takes as long (Intel Xeon with
            # AVX-512). But TensorFlow then records no operations, which a trace needs.
            config.experimental.executor_type = "SINGLE_THREADED_EXECUTOR"
    return config


def describe_device(count):
    """The text of the CSVs' `device` column for `count` accelerators."""
    names = gpu_names()
    if names:
        device = names[0] if count == 1 else "%d x %s" % (count, names[0])
    else:
        device = "CPU %s (%d cores)" % (processor(), cores()) + (" as %d logical devices" % count if count > 1 else "")
    return device + sums_changed_by()


if __name__ == "__main__":  # what setup.sh ends with
    print("TensorFlow %s on Python %s" % (tf.__version__, platform.python_version()))
    print("Devices: %s" % (", ".join(gpu_names()) or "no GPU; %s" % describe_device(1)))
