"""Where the time of a training step goes: a trace of a few steps, operation by operation."""
import collections
import re

from utils.files import replacing
from utils.tf1 import tf

WARM_UP_STEPS = 10
TRACED_STEPS = 5
MOST_EXPENSIVE = 10  # operations that are printed


class Tracer:
    """Traces TRACED_STEPS steps of a run, after a warm-up where the run is long enough for one.

    Args:
      step: the number of steps done.
      last_step: the number of steps done when the run ends.
    """

    def __init__(self, step, last_step):
        self._first = max(step, min(step + WARM_UP_STEPS, last_step - TRACED_STEPS - 1))
        self._traces = []

    def trace(self, step):
        """Returns a RunMetadata for the next step, `step` being done, to fill; None where it is not to be traced."""
        if not self._first <= step <= self._first + TRACED_STEPS:
            return None
        self._traces.append(tf.RunMetadata())
        return self._traces[-1]

    def steps(self):
        """[(step, its RunMetadata)] without the first: when tracing begins TensorFlow prepares the graph once more."""
        return list(enumerate(self._traces, self._first + 1))[len(self._traces) > 1:]

    def _operations(self):
        """[(device, NodeExecStats)] of all operations of the traced steps."""
        found = [(device.device, node) for _, trace in self.steps() for device in trace.step_stats.dev_stats
                 for node in device.node_stats]
        # Of a GPU's operations there are the times of the launches, by its name, those of each stream, and those of all.
        on_gpu = [pair for pair in found if pair[0].endswith("/stream:all")]
        return on_gpu or [pair for pair in found if "/stream:" not in pair[0]]

    def write(self, path):
        """Writes the steps to `path`, which a browser's trace viewer opens (chrome://tracing, ui.perfetto.dev)."""
        from tensorflow.python.client import timeline

        merged, devices = tf.RunMetadata().step_stats, {}  # each device once: a row of the viewer
        for _, trace in self.steps():
            for stats in trace.step_stats.dev_stats:
                if stats.device not in devices:
                    devices[stats.device] = merged.dev_stats.add(device=stats.device)
                devices[stats.device].node_stats.extend(stats.node_stats)
        with replacing(path, "w") as file:
            file.write(timeline.Timeline(merged).generate_chrome_trace_format(show_dataflow=False))

    def table(self):
        """Lines that name the operations which took longest, those of all towers taken together."""
        milliseconds = collections.Counter()
        for _, node in self._operations():
            kind = re.search(r" = (\w+)\(", node.timeline_label)
            name = re.sub(r"\btower_\d+\b", "tower_*", node.node_name)
            milliseconds[kind.group(1) if kind else "", name] += (node.op_end_rel_micros - node.op_start_rel_micros) / 1000
        total = max(sum(milliseconds.values()), 1e-9)
        steps = len(self.steps())
        yield "Operations that took longest, of %.3f ms a step in all operations (mean of steps %d to %d):" % (
            total / steps, self.steps()[0][0], self.steps()[-1][0])
        yield "  ms/step   share  operation"
        for (kind, name), spent in milliseconds.most_common(MOST_EXPENSIVE):
            yield "%9.3f  %5.1f%%  %s %s" % (spent / steps, 100 * spent / total, kind, name)
