"""utils.show_attention: a user's history and its weights, in words and as a plot."""
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import random_dataset, run_script
from utils.data.pickles import dump_parts
from utils.dataset import write_dataset
from utils.files import ROOT

DATASET = random_dataset(users=30, items=60, categories=4)
ASINS = ["B%03d" % item for item in range(60)]
CATEGORIES = ["Cables $1", "<Tablets>", "Caf\xe9", "d"]
REVIEWERS = ["A%d" % user for user in range(27)] + ["../\u7528", "7", "$A_29"]  # "7" looks like another user's number


@pytest.fixture(scope="module")
def folder_and_flags(tmp_path_factory):
    """(a folder with a data set, its original ids and a model that was trained on it; the flags that name these)."""
    folder = tmp_path_factory.mktemp("trained")
    write_dataset(str(folder / "dataset.pkl"), DATASET)
    keys = ASINS, CATEGORIES, REVIEWERS
    dump_parts(str(folder / "remap.pkl"), [{}, DATASET.cate_list, (), keys, {"dataset": "random"}])
    flags = ["--dataset", folder / "dataset.pkl", "--save_path", folder / "save_path"]
    done = run_script("din/train.py", *flags, "--results", folder / "results", "--optimizer", "adam", "--lr", 0.01)
    assert done.returncode == 0, done.stderr
    return folder, flags + ["--remap", folder / "remap.pkl"]


def show(flags, *more):
    return run_script("-m", "utils.show_attention", *flags, *more)


@pytest.mark.parametrize("user, number", [("A7", 7), ("0", 0), ("27", 27), ("7", 28), ("$A_29", 29)])
def test_a_users_purchases_are_shown_with_their_weights(folder_and_flags, user, number):
    folder, flags = folder_and_flags
    done = show(flags, "--user", user)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    index, = np.flatnonzero(DATASET.test.users == number)
    history = DATASET.test.history_items[DATASET.test.offsets[index]:][:DATASET.test.lengths[index]]
    candidates = [DATASET.test.positives[index], DATASET.test.negatives[index]]

    assert lines[0] == "user %s (number %d), %d purchases" % (REVIEWERS[number], number, len(history))
    names = ["%s  %s" % (ASINS[item], CATEGORIES[DATASET.cate_list[item]]) for item in range(60)]
    for line, label, item in zip(lines[1:3], ("positive", "negative"), candidates):
        assert line.startswith("%s: %s  (click probability 0." % (label, names[item]))
    rows = [re.match(r" *([\d.]+)([* ]) +([\d.]+)([* ])  (.*)", line).groups() for line in lines[5:-1]]
    assert [name for *_, name in rows] == [names[item] for item in history]
    assert [(first, second) for _, first, _, second, _ in rows] == [
        tuple("*" if DATASET.cate_list[item] == DATASET.cate_list[candidate] else " " for candidate in candidates)
        for item in history]
    for column in (0, 2):
        assert sum(float(row[column]) for row in rows) == pytest.approx(1, abs=1e-4 * len(history))
    plot = folder / "save_path" / ("attention_%s.png" % REVIEWERS[number].replace("/", "_"))
    assert lines[-1] == "drawn in %s" % os.path.relpath(str(plot), ROOT)
    assert plot.read_bytes().startswith(b"\x89PNG") and plot.stat().st_size > 5000


@pytest.mark.parametrize("flags, error", [
    (["--user", "A99"], "there is no user A99; give a reviewerID, or a number from 0 to 29"),
    (["--user", "30"], "there is no user 30; give a reviewerID, or a number from 0 to 29"),
    (["--user", "1", "--model", "pnn"], "pnn has no attention to show; give --model one that has, such as din"),
    (["--user", "1", "--save_path", "nowhere"], "no checkpoint nowhere/ckpt; train first: python train.py"),
    (["--user", "1", "--model", "din_dice"], "the checkpoint in "),
])
def test_what_is_not_there_is_said(folder_and_flags, flags, error):
    done = show(folder_and_flags[1], *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: " + error) and done.stderr.count("\n") == 1


def test_a_reader_that_leaves_early_sees_no_error(folder_and_flags):
    _, flags = folder_and_flags
    command = [sys.executable, "-m", "utils.show_attention", "--user", "A7"] + list(map(str, flags))
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1
