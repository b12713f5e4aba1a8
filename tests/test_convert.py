"""1_convert_pd.py: raw files in, reviews.pkl, meta.pkl and source.json out."""
import ast
import bz2
import gzip
import importlib
import io
import json
import lzma
import os
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import run_script
from utils.data import raw_files
from utils.data.pickles import load_parts
from utils.files import ROOT, UserError

convert_pd = importlib.import_module("utils.1_convert_pd")

SCRIPT = os.path.join(ROOT, "utils", "1_convert_pd.py")
REVIEWS, META = "reviews_Electronics_5.json", "meta_Electronics.json"


def review(user="u1", item="i1", time=7, **fields):
    return dict({"reviewerID": user, "asin": item, "unixReviewTime": time, "reviewText": "text"}, **fields)


def lines(*records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


GOOD_REVIEWS = lines(review("u2", "i2", 9), review("u1", "i1", 5), review("u2", "i1", 9))
GOOD_META = (b"{'asin': 'i1', 'categories': [['E', 'a'], ['E', 'b']]}\n"
             b"{'asin': 'unreviewed', 'categories': []}\n"
             b"{'asin': 'i2', 'categories': [['E']]}\n")


def write(folder, reviews=GOOD_REVIEWS, meta=GOOD_META, suffix=""):
    folder.mkdir(exist_ok=True)
    (folder / (REVIEWS + suffix)).write_bytes(reviews)
    (folder / (META + suffix)).write_bytes(meta)
    return folder


def convert(raw, output, **options):
    """Converts and returns (rows of reviews, {asin: categories}, name)."""
    name = convert_pd.convert(str(raw), str(output), **dict({"skip_checksum": True}, **options))
    (reviews,), (meta,) = (load_parts(str(output / (kind + ".pkl")), "make it") for kind in ("reviews", "meta"))
    assert str(reviews["unixReviewTime"].dtype) == "int64"
    assert str(reviews["reviewerID"].dtype) == str(reviews["asin"].dtype) == "category"
    return list(reviews.itertuples(index=False, name=None)), dict(zip(meta["asin"], meta["categories"])), name


def read(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@pytest.mark.parametrize("suffix, pack", [
    ("", bytes), (".gz", gzip.compress), (".gz", lambda content: gzip.compress(gzip.compress(content))),
    ("", lambda content: b"\xef\xbb\xbf" + content)], ids=["plain", "gzipped", "gzipped twice", "byte order mark"])
def test_reviews_come_in_file_order_and_meta_of_the_reviewed_items(tmp_path, suffix, pack):
    raw = write(tmp_path / "beauty set", pack(GOOD_REVIEWS), pack(GOOD_META), suffix)
    reviews, meta, name = convert(raw, tmp_path / "out")
    assert reviews == [("u2", "i2", 9), ("u1", "i1", 5), ("u2", "i1", 9)]
    assert meta == {"i1": [["E", "a"], ["E", "b"]], "i2": [["E"]]}
    assert name == "beauty_set"


def test_an_unpacked_file_is_preferred_to_the_gzipped_one_beside_it(tmp_path):
    write(tmp_path / "raw", b"junk", b"junk", ".gz")
    assert len(convert(write(tmp_path / "raw"), tmp_path / "out")[0]) == 3


def test_blank_lines_carriage_returns_and_a_missing_last_newline_do_no_harm(tmp_path):
    reviews = b"\n" + GOOD_REVIEWS.replace(b"\n", b"\r\n \n\n").rstrip()
    raw = write(tmp_path / "raw", reviews, b"\n" + GOOD_META.rstrip())
    reviews, meta, _ = convert(raw, tmp_path / "out")
    assert len(reviews) == 3 and len(meta) == 2


def test_the_last_of_several_meta_lines_of_an_item_counts(tmp_path):
    raw = write(tmp_path / "raw", meta=GOOD_META + b"{'asin': 'i1', 'categories': [['later']]}\n")
    assert convert(raw, tmp_path / "out")[1]["i1"] == [["later"]]


UNUSUAL = ["it's", 'a "quoted" 7" word', "both ' and \"", "back\\slash", "line\u2028separator", "next\x85line", "tab\t",
           "line\nfeed", "\U0001f600", "caf\xe9", "{'asin': 'i2'}", "None", ""]


@pytest.mark.parametrize("text", UNUSUAL, ids=ascii)
@pytest.mark.parametrize("written", [repr, ascii, json.dumps, lambda record: json.dumps(record, ensure_ascii=False)],
                         ids=["Python", "ASCII Python", "JSON", "UTF-8 JSON"])
def test_unusual_text_arrives_as_it_was_written(tmp_path, text, written):
    user, item = "u" + text, "i" + text
    meta = {"title": text, "asin": item, "categories": [["E", text]]}
    raw = write(tmp_path / "raw", json.dumps(review(user, item), ensure_ascii=False).encode() + b"\n",
                written(meta).encode() + b"\n" + written({"asin": item + "?", "categories": [[text]]}).encode())
    assert convert(raw, tmp_path / "out")[:2] == ([(user, item, 7)], {item: [["E", text]]})


@pytest.mark.parametrize("line", [
    "{'asin':'i1','categories':[['E']]}", '{"asin":"i1","categories":[["E"]]}',
    " {'asin': u'i1', 'categories': [[u'E']]}", "{'brand': None, 'asin': 'i' '1', 'categories': [['E',],]}",
    "{'asin': '\\x69\\u0031', 'categories': [['''E''']]}", '{"asin": "\\u0069\\u0031", "categories": [["E"]]}',
    "{'new': True, 'size': (1, 2), 'asin': 'i1', 'categories': [['E']]}"])
def test_every_way_of_writing_a_literal_is_understood(tmp_path, line):
    raw = write(tmp_path / "raw", lines(review()), line.encode())
    assert convert(raw, tmp_path / "out")[1] == {"i1": [["E"]]}


UNUSED = {
    "half a character": '"great \\ud83d"', "halves in the wrong order": '"\\ude00\\ud83d"',
    "not a number": "NaN", "infinities": "[Infinity, -Infinity]", "a huge number": "1e999",
    "a long number": "9" * 100000, "a long fraction": "0." + "1" * 100000,
    "numbers beyond 64 bits": "[18446744073709551616, -9223372036854775809]", "a key twice": '{"a": 1, "a": 2}',
    "NUL": '"\\u0000"', "a raw NUL": '"\0"', "control characters": '"\x01\t\x7f"',
    "a long text": '"%s"' % ("x" * 10 ** 6),
    "a deep list": "[" * 100000 + "]" * 100000, "a deep dictionary": '{"a":' * 100000 + "1" + "}" * 100000,
    "all of it": '["\\ud83d", NaN, 1e999, ' + "[" * 3000 + "]" * 3000 + ', "\x01"]'}


@pytest.mark.parametrize("value", UNUSED.values(), ids=list(UNUSED))
@pytest.mark.parametrize("first", [True, False])
def test_a_field_that_is_not_used_may_hold_what_it_likes(tmp_path, value, first):
    def line(fields):
        unused = '"x": ' + value
        return ("{%s, %s}\n" % ((unused, fields) if first else (fields, unused))).encode()

    reviews = GOOD_REVIEWS + line('"reviewerID": "\\ud83d\\ude00", "asin": "i1", "unixReviewTime": 7')
    raw = write(tmp_path / "raw", reviews, GOOD_META + line('"asin": "i1", "categories": [["\\ud83d\\ude00"]]'))
    reviews, meta, _ = convert(raw, tmp_path / "out")
    assert len(reviews) == 4 and reviews[3] == ("\U0001f600", "i1", 7) and meta["i1"] == [["\U0001f600"]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("literal", ["'C:\\d'", "0x1for x in y", "('\\d',)"])
def test_odd_literals_warn_nobody(tmp_path, literal):
    raw = write(tmp_path / "raw", lines(review()), GOOD_META + b"{'asin': 'i1', 'categories': [['later']], 'x': %s}"
                % literal.encode())
    if "for" in literal:
        with pytest.raises(UserError, match="line 4: not a record"):
            convert(raw, tmp_path / "out")
    else:
        assert convert(raw, tmp_path / "out")[1]["i1"] == [["later"]]


@pytest.mark.parametrize("written", ["1.4e9", "1400000000.0", "14E8"])
def test_a_whole_number_of_seconds_is_one_however_json_writes_it(tmp_path, written):
    raw = write(tmp_path / "raw", lines(review()).replace(b"7", written.encode()))
    assert convert(raw, tmp_path / "out")[0] == [("u1", "i1", 1400000000)]


TEXT = st.text(st.characters(blacklist_categories=("Cs",)) | st.sampled_from("'\"\\\n u{}[]"), max_size=12)
ATOM = (TEXT | st.integers(-2**63, 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.none()
        | st.booleans())
VALUE = st.recursive(ATOM, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))


@given(st.dictionaries(TEXT, VALUE, max_size=5))
def test_a_record_parses_to_what_python_makes_of_it(record):
    assert convert_pd.parse_record(repr(record).encode()) == ast.literal_eval(repr(record)) == record


# name: (reviews, meta, file at fault, the error after the file's name)
MEND = "; mend the line or fetch the file again"
FETCH = "; fetch it again"
UNPACK = "; unpack it, and give what is in it, plain or gzipped"
UTF_8 = "; write it as UTF-8 (PowerShell's > does not)"


def tar(content):
    """A tar archive with one file."""
    archive, about = io.BytesIO(), tarfile.TarInfo(REVIEWS)
    about.size = len(content)
    with tarfile.open(fileobj=archive, mode="w") as file:
        file.addfile(about, io.BytesIO(content))
    return archive.getvalue()


BAD = {
    "a review that is no JSON": (lines(review()) + b"{'reviewerID: 'u1'}\n", GOOD_META, REVIEWS,
                                 ", line 2: not a record" + MEND),
    "a review that is a list": (b"\n[1]\n", GOOD_META, REVIEWS, ", line 2: not a record" + MEND),
    "a review that is a number": (b"12\n", GOOD_META, REVIEWS, ", line 1: not a record" + MEND),
    "no user": (b'{"asin": "i1", "unixReviewTime": 1}\n', GOOD_META, REVIEWS, ", line 1: reviewerID is missing" + MEND),
    "no time": (b'{"reviewerID": "u", "asin": "i1"}\n', GOOD_META, REVIEWS,
                ", line 1: unixReviewTime is missing" + MEND),
    "a user that is a number": (lines(review(user=3)), GOOD_META, REVIEWS, ", line 1: reviewerID is not a text" + MEND),
    "an item that is null": (lines(review(item=None)), GOOD_META, REVIEWS, ", line 1: asin is not a text" + MEND),
    "a fractional time": (lines(review(time=1.5)), GOOD_META, REVIEWS,
                          ", line 1: unixReviewTime is not a whole number of seconds" + MEND),
    "a time that is true": (lines(review(time=True)), GOOD_META, REVIEWS,
                            ", line 1: unixReviewTime is not a whole number of seconds" + MEND),
    "a time beyond 64 bits": (lines(review(time=2**63)), GOOD_META, REVIEWS,
                              ", line 1: unixReviewTime is out of range" + MEND),
    "a review that is not UTF-8": (lines(review()) + b'{"reviewerID": "\xff"}', GOOD_META, REVIEWS,
                                   ", line 2: not UTF-8" + MEND),
    "a deep review": (b"[" * 100000, GOOD_META, REVIEWS, ", line 1: not a record" + MEND),
    "a review whose brackets don't match": (lines(review(x=1)).replace(b"1", b"[" * 2000 + b"}" * 2000), GOOD_META,
                                            REVIEWS, ", line 1: not a record" + MEND),
    "a time beyond what is whole": (lines(review(time=1e300)), GOOD_META, REVIEWS,
                                    ", line 1: unixReviewTime is out of range" + MEND),
    "a time that is infinite": (lines(review(time=float("inf"))), GOOD_META, REVIEWS,
                                ", line 1: unixReviewTime is not a whole number of seconds" + MEND),
    "a time that is a text": (lines(review(time="1400000000")), GOOD_META, REVIEWS,
                              ", line 1: unixReviewTime is not a whole number of seconds" + MEND),
    "a user of half a character": (lines(review(user="u\ud83d")), GOOD_META, REVIEWS,
                                   ", line 1: reviewerID is not Unicode text" + MEND),
    "an item of half a character": (lines(review(item="\ude00i")), GOOD_META, REVIEWS,
                                    ", line 1: asin is not Unicode text" + MEND),
    "a category of half a character": (GOOD_REVIEWS, lines({"asin": "i1", "categories": [["a\ud83d"]]}), META,
                                       ", line 1: a category's name is not Unicode text" + MEND),
    "a category of half a character in Python": (GOOD_REVIEWS, b"{'asin': 'i1', 'categories': [['a\\ud83d']]}", META,
                                                 ", line 1: a category's name is not Unicode text" + MEND),
    "an empty review file": (b"", GOOD_META, REVIEWS, " is empty" + FETCH),
    "blank reviews": (b"\n\n", GOOD_META, REVIEWS, " holds no review" + FETCH),
    "a gzip file cut off": (gzip.compress(GOOD_REVIEWS)[:-9], GOOD_META, REVIEWS,
                            " can't be read (the gzip file is cut off)" + FETCH),
    "a meta line that is no literal": (GOOD_REVIEWS, b"{'asin': 'i1', 'categories': [[\n", META,
                                       ", line 1: not a record" + MEND),
    "a meta line that is a string": (GOOD_REVIEWS, GOOD_META + b"'asin'", META, ", line 4: not a record" + MEND),
    "a meta line that is not UTF-8": (GOOD_REVIEWS, GOOD_META + b"{'asin': 'i1', 'title': '\xff'}", META,
                                      ", line 4: not UTF-8" + MEND),
    "a string without end": (GOOD_REVIEWS, b"{'asin': 'i1', 'title': 'x}", META, ", line 1: not a record" + MEND),
    "a deep meta line": (GOOD_REVIEWS, b"{'asin': 'i1', 'x': " + b"[" * 100000, META,
                         ", line 1: not a record" + MEND),
    "a very deep meta line": (GOOD_REVIEWS, b"{'asin': 'i1', 'x': 1" + b"+1" * 500000 + b"}", META,
                              ", line 1: not a record" + MEND),
    "a meta line without asin": (GOOD_REVIEWS, b"{'categories': [['E']]}", META, ", line 1: asin is missing" + MEND),
    "an asin that is a number": (GOOD_REVIEWS, b"{'asin': 1}", META, ", line 1: asin is not a text" + MEND),
    "no categories": (GOOD_REVIEWS, b"{'asin': 'i1'}", META, ", line 1: categories is missing" + MEND),
    "empty categories": (GOOD_REVIEWS, b"{'asin': 'i1', 'categories': []}", META,
                         ", line 1: the item has no category" + MEND),
    "an empty last path": (GOOD_REVIEWS, b"{'asin': 'i1', 'categories': [['E'], []]}", META,
                           ", line 1: the item has no category" + MEND),
    "categories that are flat": (GOOD_REVIEWS, b"{'asin': 'i1', 'categories': ['E']}", META,
                                 ", line 1: categories is not a list of lists of names" + MEND),
    "reviewed items without meta": (lines(review(), review(item="i8"), review(item="i9")), GOOD_META, META,
                                    " has no line for 2 reviewed items, i8 the first; fetch both files again, they "
                                    "must belong together"),
    "an item with the end of a line in its name": (
        lines(review(item="i\n" + "8" * 99)), GOOD_META, META, " has no line for 1 reviewed item, i\\n%s the first; "
        "fetch both files again, they must belong together" % ("8" * 47)),
    "a zip archive": (b"PK\3\4" + bytes(99), GOOD_META, REVIEWS, " is a zip archive" + UNPACK),
    "a bzip2 file": (bz2.compress(GOOD_REVIEWS), GOOD_META, REVIEWS, " is a bzip2 file" + UNPACK),
    "an xz file": (GOOD_REVIEWS, lzma.compress(GOOD_META), META, " is an xz file" + UNPACK),
    "a Zstandard file": (b"\x28\xb5\x2f\xfd" + bytes(99), GOOD_META, REVIEWS, " is a Zstandard file" + UNPACK),
    "a 7-Zip archive": (b"7z\xbc\xaf\x27\x1c" + bytes(99), GOOD_META, REVIEWS, " is a 7-Zip archive" + UNPACK),
    "a RAR archive": (b"Rar!\x1a\7" + bytes(99), GOOD_META, REVIEWS, " is a RAR archive" + UNPACK),
    "a gzipped tar archive": (gzip.compress(tar(GOOD_REVIEWS)), GOOD_META, REVIEWS, " is a tar archive" + UNPACK),
    "a gzip file in three layers": (gzip.compress(gzip.compress(gzip.compress(GOOD_REVIEWS))), GOOD_META, REVIEWS,
                                    " is a gzip file of gzip files of gzip files" + UNPACK),
    "a web page": (b"\n<!DOCTYPE html><html>", GOOD_META, REVIEWS,
                   " is a web page; a server sent it in place of the file; fetch the file again"),
    "UTF-16": (GOOD_REVIEWS.decode().encode("utf-16"), GOOD_META, REVIEWS, " is UTF-16 text" + UTF_8),
    "UTF-16 without a byte order mark": (GOOD_REVIEWS, GOOD_META.decode().encode("utf-16-be"), META,
                                         " is UTF-16 text" + UTF_8),
    "an empty meta file": (GOOD_REVIEWS, b"", META, " is empty" + FETCH),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_input_is_one_error_and_what_was_there_stays(tmp_path, name):
    reviews, meta, file, fault = BAD[name]
    convert(write(tmp_path / "good"), tmp_path / "out")
    before = read(tmp_path / "out")
    raw = write(tmp_path / "raw", reviews, meta)
    with pytest.raises(UserError) as error:
        convert(raw, tmp_path / "out")
    assert str(error.value) == "%s%s" % (raw / file, fault)
    assert read(tmp_path / "out") == before


def test_a_gzip_file_of_many_members_is_read_in_few_blocks(tmp_path):
    """A block is handed from thread to thread, which takes longer than to unpack a small one."""
    (tmp_path / "many.gz").write_bytes(gzip.compress(b"\n") * 1000)
    assert list(raw_files.RawFile(str(tmp_path / "many.gz"))) == [b"\n" * 1000]


def test_a_damaged_gzip_file_is_an_error(tmp_path):
    packed = bytearray(gzip.compress(GOOD_REVIEWS))
    packed[-6] ^= 1  # in the checksum
    with pytest.raises(UserError, match="can't be read .*; fetch it again"):
        convert(write(tmp_path / "raw", bytes(packed), suffix=".gz"), tmp_path / "out")


def test_a_line_of_absurd_length_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_files, "LINE_LIMIT", 1000)
    monkeypatch.setattr(raw_files, "_BLOCK", 300)
    raw = write(tmp_path / "raw", lines(review()) + lines(review(reviewText="x" * 2000)))
    with pytest.raises(UserError, match="line 2: longer than 1000 bytes"):
        convert(raw, tmp_path / "out")


def test_lines_are_whole_whatever_the_blocks(tmp_path, monkeypatch):
    raw = write(tmp_path / "raw")
    for block, at_once in ((1, 1), (7, 3), (64, 64), (64, 1), (1000, 1), (1000, 80)):
        monkeypatch.setattr(raw_files, "_BLOCK", block)
        monkeypatch.setattr(raw_files, "LINES_AT_ONCE", at_once)
        reviews, meta, _ = convert(raw, tmp_path / "out")
        assert reviews == [("u2", "i2", 9), ("u1", "i1", 5), ("u2", "i1", 9)] and sorted(meta) == ["i1", "i2"]


@pytest.mark.parametrize("at_once", [1, 100, 1000000])
@pytest.mark.parametrize("number", [1, 2, 5, 40])
def test_a_line_at_fault_is_named_by_its_number_blank_lines_counted(tmp_path, monkeypatch, number, at_once):
    monkeypatch.setattr(raw_files, "LINES_AT_ONCE", at_once)
    for kind, whole, bad in (("reviews", GOOD_REVIEWS, b"{}"), ("meta", GOOD_META, b"{'asin'}")):
        good = (whole.replace(b"\n", b"\n\n") + b" \r\n").splitlines() * 6
        raw = write(tmp_path / kind, **{kind: b"\n".join(good[:number - 1] + [bad] + good[number - 1:])})
        with pytest.raises(UserError, match=r"%s_.*, line %d: " % (kind, number)):
            convert(raw, tmp_path / "out")


@pytest.mark.parametrize("value", ["__import__('os').mkdir('ran')", "[].append(open('ran', 'w'))", "[x for x in 'ab']",
                                   "f'{1}'"])
def test_a_meta_line_can_run_nothing(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    raw = write(tmp_path / "raw", meta=("{'asin': 'i1', 'categories': %s}" % value).encode())
    with pytest.raises(UserError, match="line 1: not a record"):
        convert(raw, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_missing_and_ambiguous_files_are_errors(tmp_path):
    with pytest.raises(UserError, match="can't be listed"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    raw = write(tmp_path / "raw")
    (raw / "reviews_Electronics.json.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"several files reviews_Electronics\*.json\[.gz\] \(%s, " % REVIEWS):
        convert(raw, tmp_path / "out")
    (raw / META).unlink()
    (raw / "reviews_Electronics.json.gz").unlink()
    with pytest.raises(UserError, match=r"no meta_Electronics\*.json\[.gz\] in .*; run utils/0_download_raw.sh"):
        convert(raw, tmp_path / "out")


def test_the_mark_is_gone_while_the_pickles_are_replaced(tmp_path, monkeypatch):
    raw, out = write(tmp_path / "raw"), tmp_path / "out"
    convert(raw, out)

    def fail(path, parts):
        raise OSError("no space left")
    monkeypatch.setattr(convert_pd, "dump_parts", fail)
    with pytest.raises(OSError):
        convert(raw, out)
    assert sorted(read(out)) == ["meta.pkl", "reviews.pkl"]


@pytest.mark.parametrize("folder", [ROOT, os.path.join(ROOT, "utils")])
def test_the_script_runs_from_the_root_and_from_utils(tmp_path, folder):
    write(tmp_path / "raw")
    command = [os.path.relpath(SCRIPT, folder), "--output", tmp_path / "out"]
    environment = {"RAW_DATA": str(tmp_path / "raw"), "SKIP_CHECKSUM": "0"}
    refused = run_script(*command, cwd=folder, env=environment)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1 and refused.stdout == ""
    done = run_script(*command, cwd=folder, env=dict(environment, SKIP_CHECKSUM="1"))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(read(tmp_path / "out")) == ["meta.pkl", "reviews.pkl", "source.json"]
