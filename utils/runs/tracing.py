"""Where the time of a training step goes: a trace of a few steps, operation by operation."""
import collections
import re

from utils.files import replacing
from utils.tf1 import tf

WARM_UP_STEPS = 10
TRACED_STEPS = 5
MAX_OPERATIONS = 10  # that are printed


def empty_traces(step, last_step):
    """{step: a RunMetadata for it to fill}: of TRACED_STEPS steps of a run, and of the one before them.

    That one is not to be shown: when tracing begins TensorFlow prepares the graph once more. The run goes from `step`
    steps done to `last_step`; a run that is long enough has a warm-up first.
    """
    first = max(step, min(step + WARM_UP_STEPS, last_step - TRACED_STEPS - 1))
    return {done + 1: tf.RunMetadata() for done in range(first, min(first + TRACED_STEPS + 1, last_step))}


def write_trace(steps, path):
    """Writes `steps`, [(step, RunMetadata)], for a browser's trace viewer (chrome://tracing, ui.perfetto.dev)."""
    from tensorflow.python.client import timeline

    merged, devices = tf.RunMetadata().step_stats, {}  # each device once: a row of the viewer
    for _, trace in steps:
        for stats in trace.step_stats.dev_stats:
            if stats.device not in devices:
                devices[stats.device] = merged.dev_stats.add(device=stats.device)
            devices[stats.device].node_stats.extend(stats.node_stats)
    with replacing(path, "w") as file:
        file.write(timeline.Timeline(merged).generate_chrome_trace_format(show_dataflow=False))


def operations_table(steps):
    """Yields lines that name the operations which took longest in `steps`, all towers together."""
    devices = [device for _, trace in steps for device in trace.step_stats.dev_stats]
    # A GPU has the times of launches under its own name, those of each stream, and those of all streams together.
    devices = ([device for device in devices if device.device.endswith("/stream:all")]
               or [device for device in devices if "/stream:" not in device.device])
    microseconds = collections.Counter()
    for node in (node for device in devices for node in device.node_stats):
        kind = re.search(r" = (\w+)\(", node.timeline_label)
        name = re.sub(r"\btower_\d+\b", "tower_*", node.node_name)
        microseconds[kind.group(1) if kind else "", name] += node.op_end_rel_micros - node.op_start_rel_micros
    total = max(sum(microseconds.values()), 1e-6)
    yield "Operations that took longest, of %.3f ms a step in all operations (mean of steps %d to %d):" % (
        total / len(steps) / 1000, steps[0][0], steps[-1][0])
    yield "  ms/step   share  operation"
    for (kind, name), spent in microseconds.most_common(MAX_OPERATIONS):
        yield "%9.3f  %5.1f%%  %s %s" % (spent / len(steps) / 1000, 100 * spent / total, kind, name)
