"""utils/data/pickles.py: data goes in and comes out; anything else is refused before it runs."""
import base64
import functools
import os
import pickle

import numpy as np
import pandas as pd
import pytest

from utils.data.pickles import dump_parts, load_parts
from utils.files import UserError


class Call:
    """Pickles as the call of `function` with `arguments`, which a plain unpickler makes."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("name, make", [
    ("system", lambda mark: Call(os.system, "touch " + mark)),
    ("eval", lambda mark: Call(eval, "open(%r, 'w')" % mark)),
    ("open", lambda mark: Call(open, mark, "w")),
    ("builtins.getattr", lambda mark: Call(getattr, pd.DataFrame, "to_csv")),
    ("functools.partial", lambda mark: Call(functools.partial, os.mkdir, mark)),
    ("read_pickle", lambda mark: Call(pd.read_pickle, mark)),
    ("eval", lambda mark: Call(pd.eval, "1")),
    ("load", lambda mark: Call(np.load, mark)),
    ("system", lambda mark: {"nested": [np.array([Call(os.system, "touch " + mark)], dtype=object)]}),
], ids=["os.system", "eval", "open", "getattr", "partial", "pandas.read_pickle", "pandas.eval", "numpy.load", "nested"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_is_refused_before_it_runs(tmp_path, name, make, protocol):
    mark, path = tmp_path / "ran", tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(make(str(mark)), protocol))
    last_name = name.split(".")[-1]
    with pytest.raises(UserError, match=r"evil.pkl can't be read \(it names .*%s, which .*\); make it" % last_name):
        load_parts(str(path), "make it")
    assert not mark.exists()


@pytest.mark.parametrize("dotted", [b"DataFrame.to_csv", b"DataFrame.eval", b"DataFrame.__init__.__globals__"])
def test_a_dotted_name_does_not_reach_through_an_admitted_one(tmp_path, dotted):
    text = b"".join(b"\x8c" + bytes([len(name)]) + name for name in (b"pandas", dotted))
    (tmp_path / "evil.pkl").write_bytes(b"\x80\x04" + text + b"\x93.")
    with pytest.raises(UserError, match="it names pandas.DataFrame"):
        load_parts(str(tmp_path / "evil.pkl"), "make it")


def test_a_type_can_not_make_pointers_of_numbers(tmp_path):
    """NumPy believes the flags in the state of a dtype; those of objects make it follow what is in an array."""
    kind = Call(np.dtype, "i8")
    kind.reduced += ((3, "<", None, None, None, -1, -1, 63),)
    reconstruct, arguments, state = np.arange(3).__reduce__()
    array = Call(reconstruct, *arguments)
    array.reduced += (state[:2] + (kind,) + state[3:],)
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(array, 4))
    loaded, = load_parts(str(tmp_path / "data.pkl"), "make it")
    assert loaded.tolist() == [0, 1, 2] and loaded.dtype.flags == np.dtype("i8").flags and type(loaded) is np.ndarray


def test_a_truncated_pickle_is_an_error_wherever_it_is_cut(tmp_path):
    path = tmp_path / "data.pkl"
    dump_parts(str(path), [frame()])
    whole = path.read_bytes()
    for length in range(1, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="data.pkl can't be read .*; make it"):
            load_parts(str(path), "make it")


def test_junk_and_a_missing_file_are_errors_and_an_empty_file_has_no_parts(tmp_path):
    (tmp_path / "junk.pkl").write_bytes(b"junk\n")
    with pytest.raises(UserError, match="junk.pkl can't be read .*; make it"):
        load_parts(str(tmp_path / "junk.pkl"), "make it")
    with pytest.raises(UserError, match="none.pkl not found; make it"):
        load_parts(str(tmp_path / "none.pkl"), "make it")
    (tmp_path / "empty.pkl").write_bytes(b"")
    assert load_parts(str(tmp_path / "empty.pkl"), "make it") == []


def frame():
    columns = {"text": pd.Categorical(["b", "a", "b"], categories=["b", "a"]), "number": np.array([3, 1, 2**40])}
    result = pd.DataFrame(columns)
    result["lists"] = [[["x"]], [], [["y", "\u2028"], ["z"]]]
    result["word"] = ["p", "q", "r"]
    return result


def same(one, other):
    assert list(one.columns) == list(other.columns) and one.index.tolist() == other.index.tolist()
    assert one.to_numpy().tolist() == other.to_numpy().tolist()
    assert other["text"].cat.categories.tolist() == ["b", "a"] and str(other["number"].dtype) == "int64"


def test_all_that_the_files_hold_comes_back(tmp_path):
    parts = [np.arange(3, dtype=np.int32), (1, 2.5, None, True), (["a"], {"b": ["\xe9"]}), np.int64(7),
             np.array([], dtype="<i8"), {"dataset": "x"}]
    dump_parts(str(tmp_path / "data.pkl"), parts + [frame()])
    loaded = load_parts(str(tmp_path / "data.pkl"), "make it")
    same(frame(), loaded.pop())
    assert repr(loaded) == repr(parts)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_in_tuples_are_read_in_every_protocol(tmp_path, protocol):
    part = [(1, [2, 3], 4, 1), (5, [6], (7, 8)), np.arange(4, dtype=np.int32), np.float32(1.5)]
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(part, protocol))
    assert repr(load_parts(str(tmp_path / "data.pkl"), "make it")) == repr([part])


def test_a_frame_is_read_by_a_plain_unpickler_too(tmp_path):
    dump_parts(str(tmp_path / "data.pkl"), [frame()])
    same(frame(), pickle.loads((tmp_path / "data.pkl").read_bytes()))


# frame(), as dump_parts writes it
WRITTEN_BY = {
    "pandas 1.3, NumPy 1.18": """
        gASVAgIAAAAAAACMEXBhbmRhcy5jb3JlLmZyYW1llIwJRGF0YUZyYW1llJOUfZQojAR0ZXh0lIwecGFuZGFzLmNvcmUuYXJyYXlzLm
        NhdGVnb3JpY2FslIwLQ2F0ZWdvcmljYWyUk5SMFW51bXB5LmNvcmUubXVsdGlhcnJheZSMDF9yZWNvbnN0cnVjdJSTlIwFbnVtcHmU
        jAduZGFycmF5lJOUSwCFlEMBYpSHlFKUKEsBSwOFlGgLjAVkdHlwZZSTlIwCTziUSwBLAYeUUpQoSwOMAXyUTk5OSv////9K/////0
        s/dJRiiV2UKIwBYpSMAWGUaBtldJRiaApoDUsAhZRoD4eUUpQoSwFLAoWUaBeJXZQoaBtoHGV0lGKJh5RSlIwGbnVtYmVylGgKaA1L
        AIWUaA+HlFKUKEsBSwOFlGgUjAJpOJRLAEsBh5RSlChLA4wBPJROTk5K/////0r/////SwB0lGKJQxgDAAAAAAAAAAEAAAAAAAAAAA
        AAAAABAACUdJRijAVsaXN0c5RoCmgNSwCFlGgPh5RSlChLAUsDhZRoF4ldlChdlF2UjAF4lGFhXZRdlChdlCiMAXmUjAPigKiUZV2U
        jAF6lGFlZXSUYowEd29yZJRoCmgNSwCFlGgPh5RSlChLAUsDhZRoF4ldlCiMAXCUjAFxlIwBcpRldJRidYWUUpQu
    """,
    "pandas 3.1, NumPy 2.4": """
        gASV1QEAAAAAAACMBnBhbmRhc5SMCURhdGFGcmFtZZSTlH2UKIwEdGV4dJRoAIwLQ2F0ZWdvcmljYWyUk5SMFm51bXB5Ll9jb3JlLm
        11bHRpYXJyYXmUjAxfcmVjb25zdHJ1Y3SUk5SMBW51bXB5lIwHbmRhcnJheZSTlEsAhZRDAWKUh5RSlChLAUsDhZRoCowFZHR5cGWU
        k5SMAk84lImIh5RSlChLA4wBfJROTk5K/////0r/////Sz90lGKJXZQojAFilIwBYZRoGmV0lGJoCWgMSwCFlGgOh5RSlChLAUsChZ
        RoFoldlChoGmgbZXSUYomHlFKUjAZudW1iZXKUaAloDEsAhZRoDoeUUpQoSwFLA4WUaBOMAmk4lImIh5RSlChLA4wBPJROTk5K////
        /0r/////SwB0lGKJQxgDAAAAAAAAAAEAAAAAAAAAAAAAAAABAACUdJRijAVsaXN0c5RoCWgMSwCFlGgOh5RSlChLAUsDhZRoFoldlC
        hdlF2UjAF4lGFhXZRdlChdlCiMAXmUjAPigKiUZV2UjAF6lGFlZXSUYowEd29yZJRoCWgMSwCFlGgOh5RSlChLAUsDhZRoFoldlCiM
        AXCUjAFxlIwBcpRldJRidYWUUpQu
    """,
}


@pytest.mark.parametrize("versions", sorted(WRITTEN_BY))
def test_a_frame_is_read_whichever_versions_wrote_it(tmp_path, versions):
    (tmp_path / "data.pkl").write_bytes(base64.b64decode(WRITTEN_BY[versions]))
    (loaded,) = load_parts(str(tmp_path / "data.pkl"), "make it")
    same(frame(), loaded)


@pytest.mark.parametrize("versions", sorted(WRITTEN_BY))
def test_a_frame_is_read_as_its_columns_where_a_dictionary_is_asked_for(tmp_path, versions):
    (tmp_path / "data.pkl").write_bytes(base64.b64decode(WRITTEN_BY[versions]))
    (columns,) = load_parts(str(tmp_path / "data.pkl"), "make it", frame=dict)
    assert type(columns) is dict and list(columns) == ["text", "number", "lists", "word"]
    assert type(columns["number"]) is np.ndarray and columns["number"].tolist() == [3, 1, 2**40]


def test_a_frame_that_would_not_come_back_the_same_is_not_written(tmp_path):
    for unfit in (frame()[1:], pd.DataFrame({"text": pd.Categorical(["a", None])})):
        with pytest.raises(ValueError):
            dump_parts(str(tmp_path / "data.pkl"), [unfit])
    assert list(tmp_path.iterdir()) == []
