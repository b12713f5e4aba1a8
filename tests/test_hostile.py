"""Small files that ask for much: each is refused with its line, by a process that has little memory beyond its own."""
import codecs
import gzip
import pickle

import numpy as np
import pandas as pd
import pytest

from tests.test_fuzz import process, read_all  # noqa: F401, the fixture
from utils.results import CURVES_COLUMNS

MEMORY = 512 << 20  # bytes beyond what the process has at first; the largest of these files has 2 million
COPIES = 5000
BLOCK = bytes(300000)  # copied so often it is more than that


class Call:
    """Pickles as the call of a function, or as what else __reduce__ may return."""

    def __init__(self, *reduced):
        self._reduced = reduced

    def __reduce__(self):
        return self._reduced


RECONSTRUCT, _, (VERSION, _, KIND, _, _) = np.arange(3).__reduce__()
EMPTY = (np.ndarray, (0,), b"b")


def parts(*objects):
    return b"".join(pickle.dumps(part, 4) for part in objects)


def array(shape, data, kind=KIND):
    return Call(RECONSTRUCT, EMPTY, (VERSION, shape, kind, False, data))


def copies(*reduced, count=COPIES):
    """The same call again and again: its arguments are written once."""
    return parts([Call(*reduced) for _ in range(count)])


def repeated(container, value):
    """`value` in containers of two that are the same, 60 of them in each other."""
    for _ in range(60):
        value = container(value)
    return value


LAUGHS = repeated(lambda value: [value, value], [1])
OBJECTS = Call(np.dtype, ("O",), (VERSION, "|", None, None, None, -1, -1, 63))
HISTORY = list(range(10000))
PAIRS, CATEGORIES = [(0, [1], (1, 2))], [0, 1, 1]
CURVES = (",".join(CURVES_COLUMNS) + "\r\n").encode()

UNREADABLE = "original.pkl can't be read (%s); run python build_dataset.py to make it"
NO_DATA = "original.pkl does not hold a data set (%s); run python build_dataset.py to make it"
NOT_REVIEWS = "reviews.pkl can't be read (%s); remove it, then run ./prepare_dataset.sh again"
MUCH = "it asks for more memory than a file of its size may"
TRUNCATED, UNKNOWN = "pickle data was truncated", "it has an instruction that these files do not need, at byte %d"
SIZE = "it holds an array whose data are not of its size, or not of one axis"
CSV, RAW = "results/results_curves.csv ", "raw/reviews_Electronics.json"
ORIGINAL = {  # the original's dataset.pkl: (its bytes, the line, or a beginning where Python's version tells the end)
    "an array of objects made at once": (
        parts(Call(np.ndarray, ((1 << 32,), "O"))), UNREADABLE % "'str' object is not callable"),
    "an array of objects, reconstructed": (
        parts(Call(RECONSTRUCT, (np.ndarray, (1 << 32,), b"O"))), "original.pkl does not hold a data set ("),
    "an array larger than its data": (parts(array((1 << 32,), bytes(8))), UNREADABLE % SIZE),
    "an array of many axes": (parts(array((1,) * 1000, bytes(8))), UNREADABLE % SIZE),
    "an array of two axes": (parts(array((2, 1), bytes(16))), UNREADABLE % SIZE),
    "an array of nothing along a long axis": (parts(array((0, 1 << 40), b"")), UNREADABLE % SIZE),
    "an array of items of size zero": (
        parts(array((1 << 30,), b"", Call(np.dtype, ("U0",)))), UNREADABLE % "it holds an array of type U0"),
    "an array of long texts": (
        parts(Call(np.dtype, ("U999999",))), UNREADABLE % "it holds an array of type U999999"),
    "a type of huge size": (
        parts(Call(np.dtype, ("V%d" % (1 << 30),))), UNREADABLE % "it holds an array of type V1073741824"),
    "a type with fields": (
        parts(np.zeros(2, [("a", "i8"), ("b", "O")])), UNREADABLE % "it holds an array of type V16"),
    "a number with a long shape": (
        parts(Call(np.int64(1).__reduce__()[0], (KIND, bytes(1 << 20)))), UNREADABLE % SIZE),
    "bytes reserved by their number": (
        parts(Call(bytearray, (1 << 36,))), UNREADABLE % "object of type 'int' has no len()"),
    "bytes copied again and again": (copies(bytearray, (BLOCK,)), UNREADABLE % MUCH),
    "a text encoded again and again": (copies(codecs.encode, (BLOCK.decode(), "latin1")), UNREADABLE % MUCH),
    "an array copied again and again": (
        copies(RECONSTRUCT, EMPTY, (VERSION, (len(BLOCK) // 2,), np.dtype(">i2"), False, BLOCK)), UNREADABLE % MUCH),
    "objects copied again and again": (
        copies(RECONSTRUCT, EMPTY, (VERSION, (10000,), np.dtype("O"), False, [None] * 10000)), UNREADABLE % MUCH),
    "bytes copied by one part after the other": (
        copies(bytearray, (BLOCK[:30000],), count=200) * 60, UNREADABLE % MUCH),
    "empty arrays": (
        parts([Call(RECONSTRUCT, EMPTY) for _ in range(100000)]), "original.pkl "),
    "a long frame": (b"\x80\x04\x95" + (1 << 62).to_bytes(8, "little") + b"N.", UNREADABLE % TRUNCATED),
    "long bytes": (b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.", UNREADABLE % TRUNCATED),
    "a long text": (b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little") + b"x.", UNREADABLE % TRUNCATED),
    "a long number": (b"\x80\x02\x8b" + (2 ** 31 - 1).to_bytes(4, "little") + b"x.", UNREADABLE % UNKNOWN % 2),
    "a number of many digits": (b"I" + b"9" * 100000 + b"\n.", UNREADABLE % UNKNOWN % 0),
    "a place far away in the memory of a pickle": (b"\x80\x02Nr\0\0\0\x10.", UNREADABLE % UNKNOWN % 3),
    "a place far away in an old pickle": (b"Np268435456\n.", UNREADABLE % UNKNOWN % 1),
    "many sets": (b"\x80\x04(" + b"\x8f" * 2000000 + b"l.", UNREADABLE % UNKNOWN % 3),
    "a deep list": (b"\x80\x02" + b"]" * 1000000 + b"a" * 999999 + b".", "original.pkl does not hold a data set ("),
    "a deep dictionary": (
        b"\x80\x02" + b"}K\x00" * 100000 + b"N" + b"s" * 100000 + b".", "original.pkl does not hold a data set ("),
    "dictionaries of dictionaries": (
        parts(repeated(lambda value: {"a": value, "b": value}, {})), "original.pkl does not hold a data set ("),
    "a name of a column that is long": (
        parts({"x" * 100000: 1}, {}, [], ()), "original.pkl does not hold a data set ("),
    "lists of lists as examples": (
        parts(LAUGHS, PAIRS, CATEGORIES, (1, 3, 2)), NO_DATA % "its examples are not tuples of 4"),
    "lists of lists as categories": (
        parts([(0, [1], 1, 1)], PAIRS, LAUGHS, (1, 3, 2)), "original.pkl does not hold a data set ("),
    "lists of lists as items": (
        parts([(LAUGHS, [1], 1, 1)], PAIRS, CATEGORIES, (1, 3, 2)), "original.pkl does not hold a data set ("),
    "lists of lists as a history": (
        parts([(0, LAUGHS, 1, 1)], PAIRS, CATEGORIES, (1, 3, 2)), "original.pkl does not hold a data set ("),
    "one long history for all": (
        parts([(0, HISTORY, 1, 1) for _ in HISTORY], PAIRS, [0] * 10000, (1, 10000, 1)),
        NO_DATA % "its histories have 100000000 items"),
    "one example again and again": (
        b"\x80\x02](" + b"(K\x00]K\x01aK\x01K\x01tq\x01" + b"h\x01" * 1000000 + b"e."
        + parts(PAIRS, CATEGORIES, (1, 3, 4)), NO_DATA % "4 kinds of categories for 3 items"),
    "a category for each atom": (
        parts([(0, [1], 1, 1)], PAIRS, CATEGORIES, (1, 3, 10 ** 12)), NO_DATA % "its counts are out of range"),
    "counts of many digits": (
        parts([(0, [1], 1, 1)], PAIRS, CATEGORIES, (1 << 2000,) * 3), NO_DATA % "its counts are out of range"),
}
FRAMES = {  # reviews.pkl
    "a column under many names": (
        parts(Call(pd.DataFrame, (dict.fromkeys(map(str, range(COPIES)), np.zeros(50000)),))), NOT_REVIEWS % MUCH),
    "many columns": (
        parts(Call(pd.DataFrame, (dict.fromkeys(map(str, range(100000)), np.zeros(0)),))), NOT_REVIEWS % MUCH),
    "a frame of lists of lists": (
        parts(Call(pd.DataFrame, ({"reviewerID": LAUGHS},))),
        NOT_REVIEWS % "it holds a frame whose columns are no arrays"),
    "labels that are lists of lists": (
        parts(Call(pd.Categorical, (LAUGHS, LAUGHS))), NOT_REVIEWS % "it holds a frame whose columns are no arrays"),
    "labels that are tuples of tuples": (
        parts(Call(pd.Categorical, (array((1,), [repeated(lambda value: (value, value), ())], OBJECTS),) * 2)),
        NOT_REVIEWS % "it holds a column of labels that are not all texts"),
    "a column of labels again and again": (
        copies(pd.Categorical, (np.array(["a"] * 10000, object), np.array(["a"], object))), NOT_REVIEWS % MUCH),
    "columns that differ in length": (
        parts(Call(pd.DataFrame, ({"a": np.arange(2), "b": np.arange(3)},))),
        NOT_REVIEWS % "it holds a frame whose columns differ in length"),
    "a frame that is changed": (
        parts(Call(pd.DataFrame, ({},), {"columns": {"reviewerID": LAUGHS}})),
        NOT_REVIEWS % "it changes a frame, or a column of one"),
}
HOSTILE = {name: ("the original's dataset.pkl",) + case for name, case in ORIGINAL.items()}
HOSTILE.update({name: ("reviews.pkl",) + case for name, case in FRAMES.items()})
HOSTILE.update({
    "a gzip file that unpacks without end": (
        "reviews", gzip.compress((b" " * (1 << 20) + b"\n") * 300, 1),
        RAW + " unpacks to more than 268435456 bytes; fetch it again"),
    "a line without end": (
        "reviews", gzip.compress(b"{" * (20 << 20), 1),
        RAW + ", line 1: longer than 16777216 bytes; mend the line or fetch the file again"),
    "a line of many lists": (
        "reviews", gzip.compress(b'{"x": [' + b"[]," * (1 << 20) + b"[]]}", 1),
        RAW + ", line 1: reviewerID is missing; mend the line or fetch the file again"),
    "a line of many lists that is slow to read": (
        "reviews", gzip.compress(b'{"x": [' + b"[]," * (1 << 20) + b"NaN]}", 1),
        RAW + ", line 1: reviewerID is missing; mend the line or fetch the file again"),
    "a long sample.json": (
        "sample.json", b'{"dataset": "sample_small", "x": [' + b"[]," * 500000 + b"1]}",
        "raw/sample.json does not name a sample"),
    "a number of many digits in sample.json": (
        "sample.json", b'{"dataset": ' + b"9" * 50000 + b"}", "raw/sample.json does not name a sample"),
    "a deep sample.json": ("sample.json", b"[" * 60000, "raw/sample.json does not name a sample"),
    "a field of a CSV that is long": (
        "results_curves.csv", CURVES + b"x" * 2000000,
        CSV + "can't be read (field larger than field limit (131072)); move it away"),
    "many short rows of a CSV": (
        "results_curves.csv", CURVES + b"x\r\n" * 600000,
        CSV + "has a row with more or fewer columns than its header; mend it or move it away"),
    "a long row of a CSV": (
        "results_curves.csv", CURVES + b"," * 2000000,
        CSV + "has a row with more or fewer columns than its header; mend it or move it away"),
})


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_small_file_that_asks_for_much_is_refused(process, tmp_path, name):  # noqa: F811
    reader, content, line = HOSTILE[name]
    assert len(content) < 2.2e6
    arguments = reader, str(tmp_path / "files"), Contents(content), MEMORY
    taken, (error,) = process.apply_async(read_all, arguments).get(60)
    assert taken == 0 and error.replace(str(tmp_path / "files") + "/", "").startswith(line)


class Contents:
    """What `read_all` is to give to a reader: one file."""

    def __init__(self, content):
        self._content = content

    def __call__(self, good):
        yield self._content
