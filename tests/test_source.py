"""1_convert_pd.py: which data the raw files are, by their sums, their sample.json, their folder; what needs no work."""
import gzip
import hashlib
import json
import os

import pytest

from tests.test_convert import GOOD_META, GOOD_REVIEWS, META, REVIEWS, convert, lines, read, review, write
from utils.data import raw_files
from utils.files import UserError


def test_unknown_data_needs_skip_checksum(tmp_path):
    raw = write(tmp_path / "raw")
    with pytest.raises(UserError) as error:
        convert(raw, tmp_path / "out", skip_checksum=False)
    assert str(error.value) == (
        "%s: the md5 of its unpacked content is %s, but 89fd3bb8a4a701ecf5be75c840bb6979 is expected; remove the "
        "file and fetch it again, or set SKIP_CHECKSUM=1 for a data set of your own"
        % (raw / REVIEWS, hashlib.md5(GOOD_REVIEWS).hexdigest()))
    assert read(tmp_path / "out") == {}


def test_published_data_is_known_by_its_sums(tmp_path, monkeypatch):
    for kind, content in (("reviews", GOOD_REVIEWS), ("meta", GOOD_META)):
        monkeypatch.setitem(raw_files.KNOWN_MD5, kind, hashlib.md5(content).hexdigest())
    raw = write(tmp_path / "mine", gzip.compress(GOOD_REVIEWS), gzip.compress(GOOD_META), ".gz")
    assert convert(raw, tmp_path / "out", skip_checksum=False)[2] == "amazon_electronics"
    (raw / "sample.json").write_text(sample())
    assert convert(raw, tmp_path / "out", skip_checksum=False)[2] == "amazon_electronics"


def sample(reviews=GOOD_REVIEWS, meta=GOOD_META, **fields):
    """A sample.json of raw files with these contents."""
    sums = {"reviews": hashlib.md5(reviews).hexdigest(), "meta": hashlib.md5(meta).hexdigest()}
    return json.dumps(dict({"dataset": "sample_small", "md5": sums}, **fields))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("suffix, pack", [("", bytes), (".gz", gzip.compress)])
def test_a_sample_bears_its_own_name_and_is_known_by_its_own_sums(tmp_path, suffix, pack, encoding):
    raw = write(tmp_path / "raw", pack(GOOD_REVIEWS), pack(GOOD_META), suffix)
    (raw / "sample.json").write_bytes(sample().encode(encoding))
    assert convert(raw, tmp_path / "out", skip_checksum=False)[2] == "sample_small"


def test_other_files_beside_a_sample_json_are_no_sample(tmp_path):
    raw = write(tmp_path / "raw")
    (raw / "sample.json").write_text(sample(meta=b"another"))
    with pytest.raises(UserError) as error:
        convert(raw, tmp_path / "out", skip_checksum=False)
    assert str(error.value) == (
        "%s: the md5 of its unpacked content is %s, but %s is expected; remove the file and run utils/make_sample.py "
        "again, or remove sample.json where the files are not generated"
        % (raw / META, hashlib.md5(GOOD_META).hexdigest(), hashlib.md5(b"another").hexdigest()))
    assert convert(raw, tmp_path / "out")[2] == "raw"


@pytest.mark.parametrize("content", [
    "", "[]", sample(dataset=3), sample(dataset="amazon_electronics"), sample(dataset="amazon electronics"),
    sample(dataset="unfinished"), sample(md5=None), sample(md5={"meta": "x"}), sample(x="x" * 100000)])
def test_a_sample_that_does_not_say_what_it_is_is_an_error(tmp_path, content):
    raw = write(tmp_path / "raw")
    (raw / "sample.json").write_text(content)
    with pytest.raises(UserError, match="sample.json does not name a sample "):
        convert(raw, tmp_path / "out")


@pytest.mark.parametrize("folder, name", [
    ("my, data", "my__data"), ("amazon_electronics", "unverified_amazon_electronics"),
    ("Amazon Electronics", "unverified_Amazon_Electronics"), ("sample_full", "unverified_sample_full"),
    ("sample_of_mine", "unverified_sample_of_mine"), ("b-1.2", "b-1.2"),
    ("\u043a\u043d\u0438\u0433\u0438", "\u043a\u043d\u0438\u0433\u0438"),
    ("cafe\u0301 \u2603", "caf\xe9__")])
def test_other_data_bears_its_folders_name(tmp_path, folder, name):
    assert convert(write(tmp_path / folder), tmp_path / "out")[2] == name


def test_files_that_were_taken_unverified_are_verified_when_they_have_to_be(tmp_path, monkeypatch):
    raw, out = write(tmp_path / "raw"), tmp_path / "out"
    convert(raw, out)
    before = read(out)
    for if_needed in (True, False):
        with pytest.raises(UserError, match="the md5 of its unpacked content is"):
            convert(raw, out, if_needed=if_needed, skip_checksum=False)
        assert read(out) == before
    for kind, content in (("reviews", GOOD_REVIEWS), ("meta", GOOD_META)):
        monkeypatch.setitem(raw_files.KNOWN_MD5, kind, hashlib.md5(content).hexdigest())
    assert convert(raw, out, if_needed=True, skip_checksum=False)[2] == "amazon_electronics"
    assert convert(raw, out, if_needed=True, skip_checksum=False)[2] is None


def test_if_needed_converts_a_copy_under_another_name_and_a_file_that_bears_the_earlier_ones_time(tmp_path):
    raw, out = write(tmp_path / "raw"), tmp_path / "out"
    convert(raw, out)
    raw.rename(tmp_path / "other")
    assert convert(tmp_path / "other", out, if_needed=True)[2] == "other"
    assert convert(tmp_path / "other", out, if_needed=True)[2] is None
    path = tmp_path / "other" / REVIEWS
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(GOOD_REVIEWS.replace(b"5", b"6"))
    os.utime(str(path), ns=times)
    assert convert(tmp_path / "other", out, if_needed=True)[0][1] == ("u1", "i1", 6)


def test_if_needed_converts_again_only_what_has_changed(tmp_path):
    raw, out = write(tmp_path / "raw"), tmp_path / "out"
    assert convert(raw, out, if_needed=True)[2] == "raw"
    before = read(out)
    assert convert(raw, out, if_needed=True)[2] is None
    assert read(out) == before
    (out / "meta.pkl").unlink()
    assert convert(raw, out, if_needed=True)[2] == "raw"
    write(raw, reviews=lines(review()))
    assert len(convert(raw, out, if_needed=True)[0]) == 1
    (out / "source.json").write_text("junk")
    assert convert(raw, out, if_needed=True)[2] == "raw"
