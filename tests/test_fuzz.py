"""Every reader, given random bytes and random changes of good files, returns or raises the project's own error.

    FUZZ_EXAMPLES=10000 ./test.sh tests/test_fuzz.py -s

gives 10,000 examples to each reader, and prints how many it took and refused.
The readers run in a process of their own, whose memory is bounded; an example that takes longer than SECONDS fails.
"""
import gzip
import hashlib
import importlib
import json
import multiprocessing
import os
import pickle
import random
import resource
import signal

import numpy as np
import pytest

from tests.rows import write_rows
from utils.data.raw_files import RawFile
from utils.dataset import dataset_of, read_dataset, write_dataset
from utils.files import UserError
from utils.results import POINT, TRAIN_COLUMNS, add_rows, read_rows

convert_pd = importlib.import_module("utils.1_convert_pd")
remap_id = importlib.import_module("utils.2_remap_id")

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 200))
MEMORY = 1 << 30  # bytes beyond what the process has at first
SECONDS = 10

REVIEWS = b"".join(json.dumps({"reviewerID": "u%d" % user, "asin": "i%d" % (3 * user + k & 7), "unixReviewTime": k,
                               "reviewText": "text"}).encode() + b"\n" for user in range(4) for k in range(4))
META = b"".join(b"{'asin': 'i%d', 'title': \"it's\", 'price': 1.5, 'categories': [['E', 'c%d'], ['E']]}\n"
                % (item, item % 3) for item in range(8))
SAMPLE = json.dumps({"dataset": "sample_small", "md5": {
    "reviews": hashlib.md5(REVIEWS).hexdigest(), "meta": hashlib.md5(META).hexdigest()}}).encode()


class Files:
    """A folder with a good file of each kind."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(self.path("raw"))
        for name, content in (
                ("reviews_Electronics.json", REVIEWS), ("meta_Electronics.json", META),
                ("sample.json", SAMPLE), ("reviews.json.gz", gzip.compress(REVIEWS)),
                ("twice.json.gz", gzip.compress(gzip.compress(REVIEWS)))):
            with open(self.path("raw", name), "wb") as file:
                file.write(content)
        convert_pd.convert(self.path("raw"), folder)
        remap_id.remap_files(folder)
        write_dataset(self.path("dataset.pkl"), dataset_of(self.path("remap.pkl")))
        train = [(user, [1, 2, 3], item, item % 2) for user in range(5) for item in range(5)]
        test = [(user, [1, 2, 3, 4], (5, 6)) for user in range(5)]
        with open(self.path("original.pkl"), "wb") as file:
            for part in (train, test, np.arange(8) % 3, (5, 8, 3)):
                pickle.dump(part, file, 2)
        add_rows(self.path("results"), {"train": [row(256)]})
        write_rows(self.path("results"), "curves", {})
        with open(self.path("state.json"), "w") as file:
            json.dump({"run": {"model": "din"}, "state": STATE, "curve": CURVE}, file)

    def path(self, *names):
        return os.path.join(self.folder, *names)


STATE = {"step": 3, "gauc": 0.5, "best_step": 2}
CURVE = [dict(dict.fromkeys(POINT, 0.5), train_loss=None), dict.fromkeys(POINT, 1)]


def read_state(folder):
    """As train.py --resume reads it."""
    from utils.runs import checkpoints, identity  # not above: they import TensorFlow, which the others do without

    state = checkpoints.Checkpoints(folder, None).state()
    identity.check_identity(state["run"], {"model": "din"}, folder)
    identity.check_state(state, STATE, folder)


def row(batch_size):
    return dict(dict.fromkeys(TRAIN_COLUMNS, "x, y"), batch_size=batch_size)


READERS = {  # name: (the file, its reader)
    "reviews": ("raw/reviews_Electronics.json",
                lambda files: convert_pd.read_reviews(files.path("raw", "reviews_Electronics.json"))),
    "meta": ("raw/meta_Electronics.json", lambda files: convert_pd.read_meta(
        files.path("raw", "meta_Electronics.json"), ["i%d" % item for item in range(8)])),
    "gzip in gzip": ("raw/twice.json.gz", lambda files: list(RawFile(files.path("raw", "twice.json.gz")))),
    "gzip": ("raw/reviews.json.gz", lambda files: list(RawFile(files.path("raw", "reviews.json.gz")))),
    "sample.json": ("raw/sample.json", lambda files: convert_pd.convert(files.path("raw"), files.folder)),
    "source.json": ("source.json", lambda files: (
        convert_pd.convert(files.path("raw"), files.path("again"), if_needed=True),
        remap_id.remap_files(files.folder))),
    "reviews.pkl": ("reviews.pkl", lambda files: remap_id.remap_files(files.folder)),
    "meta.pkl": ("meta.pkl", lambda files: remap_id.remap_files(files.folder)),
    "remap.pkl": ("remap.pkl", lambda files: dataset_of(files.path("remap.pkl"))),
    "dataset.pkl": ("dataset.pkl", lambda files: read_dataset(files.path("dataset.pkl"))),
    "the original's dataset.pkl": ("original.pkl", lambda files: read_dataset(files.path("original.pkl"))),
    "state.json": ("state.json", lambda files: read_state(files.folder)),
    "results_train.csv": ("results/results_train.csv",
                          lambda files: add_rows(files.path("results"), {"train": [row(32)]})),
    "results_curves.csv": ("results/results_curves.csv",
                           lambda files: read_rows(files.path("results"), "curves")),
}


PIECES = [  # that mean something to a reader
    b"\\ud83d", b"\\u0000", b"NaN", b"-Infinity", b"1e999", b"1.4e9", b"9" * 30, b"[" * 1100 + b"]" * 1100,
    b'{"a": ' * 200,
    b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b", b"PK\3\4", b"<", b";", b"\t", b"\0", b"\r\n",
    b"\x8f", b"h\x00" * 50, b"h\x01h\x02\x93", b"\x85R", b"r\0\0\1\0", b"K\x00", b"U0", b"\x8c\x02U0", b"\x88",
    b"(", b"}", b"]",
    (1 << 40).to_bytes(8, "little"), b"\x8e", b"\x8b\0\0\1\0"]


def mutated(good, draw):
    """Random bytes, or `good` with a few random changes."""
    if draw.random() < 0.1:
        return bytes(draw.getrandbits(8) for _ in range(draw.randrange(200)))
    data = bytearray(good)
    for _ in range(draw.choice([1, 1, 1, 2, 5, 20])):
        start = draw.randrange(len(data) + 1)
        stop = min(len(data), start + draw.choice([1, 1, 2, 4, 8, 64, 1024]))
        change = draw.randrange(7)
        if change == 0 and start < len(data):
            data[start] ^= 1 << draw.randrange(8)
        elif change == 1:
            data[start:stop] = bytes(draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.getrandbits(8)])
                                     for _ in range(stop - start))
        elif change == 2:
            del data[start:stop]
        elif change == 3:
            data[start:start] = data[start:stop]
        elif change == 4:
            other = draw.randrange(len(data) + 1)
            data[other:other] = data[start:stop]
        elif change == 5:
            data[start:start] = draw.choice(PIECES)
        elif draw.random() < 0.2:
            del data[start:]
    return bytes(data)


def limit_memory(memory):
    """Bounds this process to `memory` bytes beyond what it has, where Linux tells how many these are."""
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as statm:
            size = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + memory, resource.RLIM_INFINITY))


def read_all(name, folder, contents, memory=MEMORY):
    """Gives each of `contents` to a reader; returns how many it took, and the errors by which it refused the others."""
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    files = Files(folder)
    path, read = os.path.join(folder, READERS[name][0]), READERS[name][1]
    good = open(path, "rb").read()
    read(files)  # imports what it needs
    limit_memory(memory)
    taken, errors = 0, []
    for content in contents(good):
        with open(path, "wb") as file:
            file.write(content)
        signal.alarm(SECONDS)  # its default action ends the process
        try:
            read(files)
            taken += 1
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
            errors.append(str(error))
        except BaseException as error:
            raise AssertionError("%s of %r" % (type(error).__name__, content)) from error
        finally:
            signal.alarm(0)
    return taken, errors


class Mutations:
    def __init__(self, name):
        self._name = name

    def __call__(self, good):
        yield good
        for number in range(EXAMPLES):
            yield mutated(good, random.Random("%s %d" % (self._name, number)))


@pytest.fixture(scope="module")
def process():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_reader_takes_or_refuses_whatever_it_is_given(process, tmp_path, name):
    taken, errors = process.apply_async(read_all, (name, str(tmp_path / "files"), Mutations(name))).get(60 + EXAMPLES)
    refused = len(errors)
    print("\n%-28s %6d taken %6d refused" % (name, taken, refused))
    assert taken and refused and taken + refused == EXAMPLES + 1
