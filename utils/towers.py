"""NUM_ACCELERATORS: one model, its batch split over several devices, one update.

Each device computes the loss and the gradients of its share of the recommendations, divided by the number of all.
So the sum over the devices is the loss and the gradient of the whole batch, uneven and empty shares included.
"""
import functools
import os
import platform

from utils.files import UserError
from utils.tf1 import tf


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
    """The TensorFlow devices to use for `count` accelerators: GPUs, or logical CPU devices where there is no GPU.

    Raises:
      UserError: there are GPUs, but fewer than asked for.
    """
    if count < 1:
        raise UserError("num_accelerators is %d; give 1 or more" % count)
    found = len(gpu_names())
    if found and count > found:
        raise UserError("%d accelerators asked for, %d GPUs found; lower NUM_ACCELERATORS, or see that "
                        "CUDA_VISIBLE_DEVICES shows TensorFlow the others" % (count, found))
    return ["/%s:%d" % ("gpu" if found else "cpu", index) for index in range(count)]


def session_config(count):
    """The ConfigProto of a session on `count` accelerators."""
    return tf.ConfigProto(device_count={"CPU": 1 if gpu_names() else count}, allow_soft_placement=True,
                          gpu_options=tf.GPUOptions(allow_growth=True))


def describe_device(count):
    """What the CSVs' `device` column says."""
    names = gpu_names()
    if names:
        return names[0] if count == 1 else "%d x %s" % (count, names[0])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return "CPU %s (%d cores)" % (_cpu_model(), cores) + (" as %d logical devices" % count if count > 1 else "")


def _cpu_model():
    """The processor's model, as the system names it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def sum_gradients(gradients):
    """The sum of one variable's gradients over the towers; sparse ones stay sparse, with each row once.

    That each row stands once makes the global norm the norm of the gradient, however often the batch repeats an item.
    """
    if not isinstance(gradients[0], tf.IndexedSlices):
        return tf.add_n(gradients)
    values = tf.concat([gradient.values for gradient in gradients], axis=0)
    rows, index = tf.unique(tf.concat([gradient.indices for gradient in gradients], axis=0))
    values = tf.math.unsorted_segment_sum(values, index, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradients[0].dense_shape)


if __name__ == "__main__":  # what setup.sh ends with
    print("TensorFlow %s on Python %s" % (tf.__version__, platform.python_version()))
    print("Devices: %s" % (", ".join(gpu_names()) or "no GPU; %s" % describe_device(1)))
