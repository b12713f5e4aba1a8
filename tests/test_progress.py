"""Progress: bars on a terminal, the fixed log lines alone in a file."""
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import random_dataset, run_script
from utils.data.pickles import dump_parts
from utils.dataset import write_dataset
from utils.files import ROOT

DATASET = random_dataset(users=300)


def on_a_terminal(*command):
    """What a script of the project writes to a terminal of 120 columns."""
    terminal, script_end = pty.openpty()
    process = subprocess.Popen([sys.executable] + [str(part) for part in command], cwd=ROOT, stdout=script_end,
                               stderr=script_end, env=dict(os.environ, COLUMNS="120"))
    os.close(script_end)
    output = b""
    while True:
        try:
            output += os.read(terminal, 65536)
        except OSError:  # the script has ended
            break
    os.close(terminal)
    assert process.wait() == 0, output
    return output.decode()


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """The flags of a data set, and of the folders for a model and its results."""
    folder = tmp_path_factory.mktemp("progress")
    write_dataset(str(folder / "dataset.pkl"), DATASET)
    return ["--dataset", folder / "dataset.pkl", "--save_path", folder / "save_path", "--results", folder / "results",
            "--batch_size", 16]


def bars(description, total, unit, more=""):
    return description + r": +\d+%%[^\r]*/%s \[\d\d:\d\d<(\d\d:\d\d|\?), +[\d.?]+k? ?%s/s%s\]" % (total, unit, more)


def test_training_on_a_terminal_shows_rate_loss_and_time_left_and_the_same_log(flags):
    output = on_a_terminal("pnn/train.py", *flags, "--epochs", 1, "--eval_every", 100)
    count = len(DATASET.train.items)
    total = "%.2fk" % (count / 1000)
    assert re.search(bars("epoch 0", re.escape(total), "recommendations", r", loss 0\.\d{4}"), output), output
    assert re.search(r"epoch 0: 100%", output)
    lines = [line.split("\r")[-1] for line in output.split("\r\n")]
    in_a_file = run_script("pnn/train.py", *flags, "--epochs", 1, "--eval_every", 100)
    assert in_a_file.returncode == 0 and in_a_file.stderr == ""
    assert re.sub(r"[^\t\n -~]", "?", in_a_file.stdout) == in_a_file.stdout  # no control characters

    def fixed(log):  # the lines that don't depend on the clock
        return [line for line in log if re.match("test_gauc|Epoch . Global|best|Total", line)]
    assert fixed(lines) == fixed(in_a_file.stdout.splitlines()) != []
    known = ("the earlier run|test_gauc: |popularity_gauc: |Epoch 0 |best test_gauc: |Not learnt yet: |Total rec|"
             "Approximate acc|System |Steady ")
    assert all(re.match(known, line) for line in in_a_file.stdout.splitlines())


def test_building_a_data_set_on_a_terminal_shows_a_bar(tmp_path):
    random = np.random.RandomState(0)
    users = np.repeat(np.arange(2000), 5)
    items = np.concatenate([random.permutation(50)[:5] for _ in range(2000)])
    dump_parts(str(tmp_path / "remap.pkl"), [
        {"reviewerID": users, "asin": items, "unixReviewTime": items}, np.zeros(50, np.int32),
        (2000, 50, 1, len(users)), (), {"dataset": "random"}])
    command = ["din/build_dataset.py", "--remap", tmp_path / "remap.pkl", "--output", tmp_path / "dataset.pkl"]
    output = on_a_terminal(*command)
    assert re.search(bars("negatives", r"2\.00k", "users"), output), output
    quiet = run_script(*command)
    assert quiet.stderr == "" and quiet.stdout.count("\n") == 1
