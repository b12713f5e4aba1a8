"""The clocks of the benchmark: system time, time inside the session's training or scoring calls, and time by step."""
import time

STARTED = time.perf_counter()  # each script imports this module first, before TensorFlow: its start-up counts


def system_seconds():
    """Wall-clock seconds since the script was started."""
    return time.perf_counter() - STARTED


class Stopwatch:
    """Adds up the seconds spent in its `with` blocks: `seconds` of all that are over, `last` of the latest of them."""

    def __init__(self, seconds=0.0):
        self.seconds, self.last, self._entered = seconds, 0.0, None

    def __enter__(self):
        self._entered = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.last = time.perf_counter() - self._entered
        self.seconds += self.last
        self._entered = None

    def seconds_now(self):
        """The seconds so far, those of the present block, where this is called in one, included."""
        return self.seconds + (0 if self._entered is None else time.perf_counter() - self._entered)


class Laps:
    """Tells how long each step takes, from the end of the one before: waiting for its batch is part of it."""

    def __init__(self):
        self._began = None

    def begin(self):
        """A step begins now: what went before, such as an evaluation, is part of none."""
        self._began = time.perf_counter()

    def end(self):
        """Returns the seconds since the latest `begin` or `end`, where the next step begins."""
        now = time.perf_counter()
        seconds, self._began = now - self._began, now
        return seconds
