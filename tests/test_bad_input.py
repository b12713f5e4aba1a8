"""Each kind of bad input ends with one line on standard error and exit status 1, and leaves earlier files untouched.

The commands run in this process, as `python SCRIPT` does, except where the operating system stops them.
"""
import gzip
import json
import os
import pickle
import runpy
import subprocess
import sys

import pytest

from tests.helpers import random_dataset
from tests.rows import error_line
from utils.data.pickles import dump_parts, load_parts
from utils.dataset import read_remap, write_dataset
from utils.files import ROOT

REVIEWS, META = "reviews_Electronics_5.json", "meta_Electronics.json"


def review(user, item, time):
    return json.dumps({"reviewerID": "u%d" % user, "asin": "i%d" % item, "unixReviewTime": time}).encode() + b"\n"


def meta(item):
    return b"{'asin': 'i%d', 'categories': [['E', 'c%d']]}\n" % (item, item % 3)


GOOD = {"raw/" + REVIEWS: b"".join(review(user, user + k, k) for user in range(4) for k in range(4)),
        "raw/" + META: b"".join(map(meta, range(8)))}


class PreparedFolder:
    """Raw files, the files that the commands make of them, and a trained model; paths are relative to it."""

    def __init__(self, path):
        self.path = str(path)
        self.write(GOOD)
        for command in ("convert", "remap", "build", "train"):
            assert self.error_of(command) is None

    def __call__(self, name):
        return os.path.join(self.path, name)

    def write(self, contents):
        """Writes files, a dictionary of bytes by name; None removes one."""
        for name, content in contents.items():
            os.makedirs(os.path.dirname(self(name)), exist_ok=True)
            if content is None:
                os.remove(self(name))
            else:
                with open(self(name), "wb") as file:
                    file.write(content)

    def read(self):
        """All files but the locks: their contents by name."""
        return {os.path.relpath(os.path.join(folder, name), self.path): open(os.path.join(folder, name), "rb").read()
                for folder, _, names in os.walk(self.path) for name in names if not name.endswith(".lock")}

    def arguments(self, command):
        """(script, its flags)."""
        model = ["--dataset", self("dataset.pkl"), "--save_path", self("save_path"), "--results", self("results")]
        return {"convert": ("utils/1_convert_pd.py", ["--raw_data", self("raw"), "--output", self.path]),
                "remap": ("utils/2_remap_id.py", ["--output", self.path]),
                "build": ("pnn/build_dataset.py", ["--remap", self("remap.pkl"), "--output", self("dataset.pkl")]),
                "train": ("pnn/train.py", model + ["--batch_size", "4", "--epochs", "1"]),
                "infer": ("pnn/infer.py", model)}[command]

    def error_of(self, command, *flags, **environment):
        """Runs a command; returns the line that it ends with, the folder left out, or None."""
        script, command_flags = self.arguments(command)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [script] + command_flags + list(flags))
            patch.setattr(sys, "path", list(sys.path))
            patch.setenv("SKIP_CHECKSUM", environment.get("SKIP_CHECKSUM", "1"))
            line = error_line(lambda: runpy.run_path(os.path.join(ROOT, script), run_name="__main__"))
        return line and line.replace(self.path + os.sep, "")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = PreparedFolder(tmp_path_factory.mktemp("made"))
    return folder, folder.read()


@pytest.fixture
def folder(made):
    """The `PreparedFolder`, with all files as the commands made them."""
    folder, contents = made
    now = folder.read()
    folder.write({name: None for name in now if name not in contents})
    folder.write(contents)
    return folder


def reviews(*lines):
    return {"raw/" + REVIEWS: b"".join(lines)}


def with_meta(*lines):
    return {"raw/" + META: b"".join(lines) + GOOD["raw/" + META]}


MEND, FETCH = "; mend the line or fetch the file again", "; fetch it again"
TABLE = [  # (the case, command, the bad files, the line that it ends with)
    ("a raw file is missing", "convert", {"raw/" + META: None},
     "error: no meta_Electronics*.json[.gz] in raw; run utils/0_download_raw.sh, or put the file there"),
    ("a gzip file is truncated", "convert", reviews(gzip.compress(GOOD["raw/" + REVIEWS])[:-9]),
     "error: raw/" + REVIEWS + " can't be read (the gzip file is cut off)" + FETCH),
    ("a line is truncated", "convert", reviews(review(1, 1, 1), review(1, 2, 2)[:-9]),
     "error: raw/" + REVIEWS + ", line 2: not a record" + MEND),
    ("a line is not UTF-8", "convert", reviews(review(1, 1, 1), b'{"asin": "\xff"}'),
     "error: raw/" + REVIEWS + ", line 2: not UTF-8" + MEND),
    ("a line is no record", "convert", reviews(b"12\n"),
     "error: raw/" + REVIEWS + ", line 1: not a record" + MEND),
    ("a field is missing", "convert", reviews(b'{"asin": "i1", "unixReviewTime": 1}\n'),
     "error: raw/" + REVIEWS + ", line 1: reviewerID is missing" + MEND),
    ("a field is of the wrong type", "convert", reviews(b'{"reviewerID": 1, "asin": "i1", "unixReviewTime": 1}\n'),
     "error: raw/" + REVIEWS + ", line 1: reviewerID is not a text" + MEND),
    ("an item that is reviewed is unknown", "convert", reviews(review(1, 1, 1), review(1, 99, 2)),
     "error: raw/" + META + " has no line for 1 reviewed item, i99 the first; fetch both files again, they must belong "
     "together"),
    ("an item has no categories", "convert", with_meta(b"{'asin': 'i1', 'categories': []}\n"),
     "error: raw/" + META + ", line 1: the item has no category" + MEND),
    ("a file is empty", "convert", reviews(), "error: raw/" + REVIEWS + " is empty" + FETCH),
    ("reviews.pkl is truncated", "remap", lambda made: {"reviews.pkl": made["reviews.pkl"][:99]},
     "error: reviews.pkl can't be read (pickle data was truncated); remove it, then run ./prepare_dataset.sh again"),
    ("remap.pkl is truncated", "build", lambda made: {"remap.pkl": made["remap.pkl"][:99]},
     "error: remap.pkl can't be read (pickle data was truncated); run ./prepare_dataset.sh to make it"),
    ("remap.pkl is of another version", "build", {"remap.pkl": pickle.dumps({}) * 4},
     "error: remap.pkl holds 4 parts instead of 5; run ./prepare_dataset.sh to make it again"),
    ("dataset.pkl is truncated", "train", lambda made: {"dataset.pkl": made["dataset.pkl"][:99]},
     "error: dataset.pkl can't be read (pickle data was truncated); run python build_dataset.py to make it"),
    ("dataset.pkl is of another version", "train", {"dataset.pkl": pickle.dumps({})},
     "error: dataset.pkl does not hold a data set (not enough values to unpack (expected 4, got 1)); run python "
     "build_dataset.py to make it"),
    ("the checkpoint is missing", "infer", {"save_path/ckpt.index": None},
     "error: no checkpoint save_path/ckpt; train first: python train.py"),
]


@pytest.mark.parametrize("what, command, bad, line", TABLE, ids=[case[0] for case in TABLE])
def test_bad_files(folder, made, what, command, bad, line):
    folder.write(bad(made[1]) if callable(bad) else bad)
    before = folder.read()
    assert folder.error_of(command) == line
    assert folder.read() == before


@pytest.mark.parametrize("what, flags, line", [
    ("batch size 0", ["--batch_size", "0"], "error: argument --batch_size: 0 is less than 1; see train.py --help"),
    ("batch size -1", ["--batch_size", "-1"], "error: argument --batch_size: -1 is less than 1; see train.py --help"),
    ("a batch larger than the data", ["--batch_size", "17"],
     "error: a batch of 17 is larger than the training set of 16; lower --batch_size"),
])
def test_bad_flags(folder, what, flags, line):
    before = folder.read()
    assert folder.error_of("train", *flags) == line
    assert folder.read() == before


def test_a_wrong_checksum(folder):
    before = folder.read()
    assert folder.error_of("convert", SKIP_CHECKSUM="").startswith(
        "error: raw/%s: the md5 of its unpacked content is " % REVIEWS)
    assert folder.read() == before


def test_ids_out_of_range(folder):
    frame, cate_list, counts, keys, source = load_parts(folder("remap.pkl"), "")
    frame["asin"] = frame["asin"] + 1
    dump_parts(folder("remap.pkl"), [frame, cate_list, counts, keys, source])
    assert folder.error_of("build") == (
        "error: remap.pkl does not hold reviews to make examples of (items are not all in 0 .. 6); run "
        "./prepare_dataset.sh to make it again")
    dataset = random_dataset()
    write_dataset(folder("dataset.pkl"), dataset._replace(item_count=dataset.item_count - 1))
    assert folder.error_of("train") == ("error: dataset.pkl does not hold a data set (50 categories for 49 items); run "
                                        "python build_dataset.py to make it")


def test_a_damaged_checkpoint(folder):
    folder.write({"save_path/ckpt.data-00000-of-00001": b"x"})
    line = folder.error_of("infer")
    assert line.startswith("error: checkpoint save_path/ckpt does not fit or is damaged (") and "Graph exec" not in line
    assert line.endswith("); train again: python train.py")


def prepared(folder, *lines):
    """The line that building a data set of these reviews ends with, or None."""
    folder.write(reviews(*lines))
    assert folder.error_of("convert") is folder.error_of("remap") is None
    return folder.error_of("build")


def test_users_with_one_or_two_reviews(folder):
    """The first has no example at all, the second a test example alone."""
    lines = [review(user, user + k, k) for user, count in ((1, 1), (2, 2), (3, 4)) for k in range(count)]
    assert prepared(folder, *lines) is None
    assert read_remap(folder("remap.pkl"))[2][0] == 3
    train, test = load_parts(folder("dataset.pkl"), "")[:2]
    assert sorted(train["users"]) == [2] * 4 and sorted(test["users"]) == [1, 2]
    assert prepared(folder, review(1, 1, 1), review(2, 2, 1), review(2, 3, 2)) == (
        "error: remap.pkl does not hold reviews to make examples of (it has no examples); run ./prepare_dataset.sh to "
        "make it again")


def test_one_item_only(folder):
    assert prepared(folder, *[review(1, 1, time) for time in range(5)]) == (
        "error: a user owns all of the 1 items, so that no negative can be drawn; use data with more items")


@pytest.mark.parametrize("command, flag, output", [
    ("convert", "--output", "file/in"), ("build", "--output", "file/in/dataset.pkl"),
    ("train", "--save_path", "file/in")])
def test_a_folder_that_can_not_be_written(folder, command, flag, output):
    """A file is where the folder should be."""
    folder.write({"file": b""})
    before = folder.read()
    assert folder.error_of(command, flag, folder(output)) == (
        "error: file/in can't be written (Not a directory); choose another place")
    assert folder.read() == before


def run_with_files_up_to(kibibytes, folder, command, *flags):
    """Runs a command as a process that may not write longer files, so that its calls fail as on a full disk."""
    script, command_flags = folder.arguments(command)
    limit = ["bash", "-c", 'ulimit -f %d; exec "$@"' % kibibytes, "-"]
    return subprocess.run(limit + [sys.executable, script] + command_flags + list(flags), cwd=ROOT,
                          env=dict(os.environ, SKIP_CHECKSUM="1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True)


@pytest.mark.parametrize("command, file", [
    ("convert", "reviews.pkl"), ("remap", "remap.pkl"), ("build", "dataset.pkl")])
def test_a_disk_that_fills_up(folder, command, file):
    before = folder.read()
    done = run_with_files_up_to(0, folder, command)
    assert done.returncode == 1 and done.stderr == (
        "error: %s can't be written (File too large); make room there, or choose another folder\n" % folder(file))
    if command == "convert":  # the pickles are about to be replaced: they no longer count as whole
        before.pop("source.json")
    assert folder.read() == before


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(folder):
    longest = max(len(content) for name, content in folder.read().items() if "events" in name)
    assert longest < len(folder.read()["save_path/latest.data-00000-of-00001"]), "else this shows nothing"
    before = {name: content for name, content in folder.read().items() if "events" not in name}
    done = run_with_files_up_to(longest // 1024 + 8, folder, "train", "--epochs", "2", "--resume")
    assert done.returncode == 1
    assert done.stderr.startswith("error: %s can't be written (" % folder("save_path")), done.stderr
    assert done.stderr.endswith("File too large); make room there, or choose another folder\n")
    assert {name: content for name, content in folder.read().items() if "events" not in name} == before


@pytest.mark.parametrize("command, name", [("train", "results_train.csv"), ("train", "results_curves.csv"),
                                           ("infer", "results_infer.csv")])
def test_results_that_can_not_take_the_rows_are_refused_before_the_work(folder, command, name):
    folder.write({"file": b"", "other/" + name: b"of,another,version\n1,2,3\n"})
    before = folder.read()
    assert folder.error_of(command, "--results", folder("file/in")) == (
        "error: file/in can't be written (Not a directory); choose another place")
    assert folder.error_of(command, "--results", folder("other")) == (
        "error: other/%s has other columns than this version writes; move it away" % name)
    assert folder.read() == before
