"""The two clocks of the benchmark: system time, and time inside the session's training or scoring calls."""
import time

STARTED = time.perf_counter()  # each script imports this module first, before TensorFlow: its start-up counts


def system_seconds():
    """Wall-clock seconds since the script was started."""
    return time.perf_counter() - STARTED


class Stopwatch:
    """Adds up the seconds spent in its `with` blocks: `seconds` of all blocks so far, `last` of the latest."""

    def __init__(self, seconds=0.0):
        self.seconds, self.last = seconds, 0.0

    def __enter__(self):
        self._entered = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.last = time.perf_counter() - self._entered
        self.seconds += self.last
