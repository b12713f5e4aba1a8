"""Memory stays flat however long a run is: nothing piles up with steps, evaluations and checkpoints.

    LONG_RUN_STEPS=100000 ./test.sh tests/test_long_runs.py -s      with an evaluation and a checkpoint each 100 steps
"""
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.helpers import random_dataset
from utils.dataset import write_dataset
from utils.files import ROOT

STEPS = int(os.environ.get("LONG_RUN_STEPS", 4000))
EVAL_EVERY = 100
GROWTH = 8  # MiB that the resident memory may grow by after a fifth of the run: what the allocator does not give back


def resident(process):
    """The resident memory of `process` in MiB."""
    with open("/proc/%d/status" % process.pid) as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def steps_done(save_path):
    try:
        with open(os.path.join(str(save_path), "state.json")) as file:
            return json.load(file)["state"]["step"]
    except FileNotFoundError:
        return 0


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells the memory of another process")
def test_memory_stays_flat(tmp_path):
    write_dataset(str(tmp_path / "dataset.pkl"), random_dataset())
    flags = {"dataset": tmp_path / "dataset.pkl", "save_path": tmp_path / "save_path", "results": tmp_path / "results",
             "batch_size": 8, "epochs": STEPS, "max_steps": STEPS, "eval_every": EVAL_EVERY}
    command = [sys.executable, "din/train.py"] + ["--%s=%s" % flag for flag in flags.items()]
    samples = []  # (steps done, MiB)
    with open(str(tmp_path / "log"), "w") as log, subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log) as process:
        while process.poll() is None:
            done = steps_done(tmp_path / "save_path")
            if done and (not samples or done > samples[-1][0]):
                samples.append((done, resident(process)))
            time.sleep(0.02)
    log = (tmp_path / "log").read_text()
    assert process.returncode == 0, log
    after, memory = np.array([sample for sample in samples if sample[0] > STEPS / 5]).T
    first, last = (np.median(part) for part in (memory[:len(memory) // 4], memory[-len(memory) // 4:]))
    print("\n%d steps, %d evaluations and checkpoints: %.1f MiB after %d steps, %.1f MiB at the end"
          % (STEPS, log.count("Global_step"), first, after[0], last))
    assert len(samples) > 10 and last < first + GROWTH
