"""0_download_raw.sh against a server on this machine."""
import gzip
import hashlib
import os
import shutil
import subprocess

import pytest

from tests.raw_server import CONTENT, META, REVIEWS, Handler, serving
from utils.data import raw_files
from utils.files import ROOT, UserError

SCRIPT = os.path.join(ROOT, "utils", "0_download_raw.sh")


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


WHOLE = {name.lstrip("/"): body for name, body in CONTENT.items()}


def test_both_files_are_fetched_and_kept_gzipped(download):
    with serving(CONTENT) as server:
        result = download(server.base)
    assert result.returncode == 0, result.stderr
    assert files_in(download.folder) == WHOLE
    assert "\r" not in result.stderr and "\x1b" not in result.stderr and result.stdout == ""


def test_an_interpreter_that_the_users_shell_names_is_not_the_projects(download):
    with serving(CONTENT) as server:
        result = download(server.base, PYTHON="/gone")
    assert result.returncode == 0, result.stderr


def test_an_interrupted_download_is_resumed_where_it_stopped(download):
    with serving(CONTENT, cut={"/" + REVIEWS: 10000}) as server:
        result = download(server.base)
    assert result.returncode == 0, result.stderr
    assert server.asked == [(REVIEWS, None), (REVIEWS, "bytes=10000-"), (META, None)]
    assert files_in(download.folder) == WHOLE


def test_a_part_of_an_earlier_run_is_resumed(download):
    download.folder.mkdir()
    (download.folder / (REVIEWS + ".part")).write_bytes(WHOLE[REVIEWS][:25000])
    with serving(CONTENT) as server:
        result = download(server.base)
    assert result.returncode == 0, result.stderr
    assert server.asked[0] == (REVIEWS, "bytes=25000-")
    assert files_in(download.folder) == WHOLE


def test_an_interrupted_download_starts_over_where_the_server_has_no_ranges(download):
    with serving(CONTENT, ranges=False, cut={"/" + REVIEWS: 10000}) as server:
        result = download(server.base)
    assert result.returncode == 0, result.stderr
    assert [wanted for name, wanted in server.asked if name == REVIEWS] == [None, "bytes=10000-", None]
    assert files_in(download.folder) == WHOLE


@pytest.mark.parametrize("part", [b"x" * 100, b"x" * len(WHOLE[REVIEWS]), b"x" * 90000],
                         ids=["another file's beginning", "as long as the file", "longer than the file"])
def test_a_stale_part_is_discarded(download, part):
    download.folder.mkdir()
    (download.folder / (REVIEWS + ".part")).write_bytes(part)
    with serving(CONTENT) as server:
        result = download(server.base)
    assert result.returncode == 0, result.stderr
    assert files_in(download.folder) == WHOLE


def test_a_wrong_sum_is_an_error_that_names_file_and_sums(download):
    other = gzip.compress(b"other")
    with serving(dict(CONTENT, **{"/" + META: other})) as server:
        result = download(server.base)
    assert result.returncode == 1
    expected = hashlib.md5(gzip.decompress(WHOLE[META])).hexdigest()
    error = result.stderr.splitlines()[-1]
    assert error == ("error: %s: the md5 of its unpacked content is %s, but %s is expected; remove the file and "
                     "fetch it again, or set SKIP_CHECKSUM=1 for a data set of your own"
                     % (download.folder / META, hashlib.md5(b"other").hexdigest(), expected))
    assert files_in(download.folder) == {REVIEWS: WHOLE[REVIEWS]}


def test_skip_checksum_takes_a_file_whatever_its_sum(download):
    content = {"/" + REVIEWS: gzip.compress(b"one"), "/" + META: gzip.compress(b"other")}
    with serving(content) as server:
        result = download(server.base, SKIP_CHECKSUM="1")
    assert result.returncode == 0, result.stderr
    marks = {".%s.unverified" % name: b"" for name in (REVIEWS, META)}
    assert files_in(download.folder) == dict(marks, **{REVIEWS: content["/" + REVIEWS], META: content["/" + META]})


@pytest.mark.parametrize("is_known", [True, False])
def test_a_file_that_was_fetched_unverified_is_verified_by_the_next_run_that_does_not_skip_it(download, is_known):
    content = CONTENT if is_known else {"/" + REVIEWS: gzip.compress(b"one"), "/" + META: gzip.compress(b"other")}
    with serving(content) as server:
        assert download(server.base, SKIP_CHECKSUM="1").returncode == 0
        result = download(server.base)
    error = "error: %s: the md5 of its unpacked content is " % (download.folder / REVIEWS)
    assert result.returncode == (not is_known) and result.stderr.startswith(error) == (not is_known)
    assert {name: body for name, body in files_in(download.folder).items() if not name.startswith(".")} == {
        name.lstrip("/"): body for name, body in content.items()}
    assert len(server.asked) == 2 and is_known == (len(files_in(download.folder)) == 2)


def test_the_next_base_is_used_where_one_fails_or_has_another_file(download):
    with serving({"/" + REVIEWS: b"<html>moved</html>"}) as first, serving(CONTENT) as second:
        result = download(first.base, second.base + "/")
    assert result.returncode == 0, result.stderr
    assert [name for name, _ in first.asked] == [REVIEWS, META]
    assert files_in(download.folder) == WHOLE


def test_an_error_names_the_bases_where_all_fail(download):
    with serving({}) as server:
        result = download(server.base, "http://127.0.0.1:1")
    assert result.returncode == 1
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: %s could not be fetched from %s http://127.0.0.1:1;" % (REVIEWS, server.base))
    assert files_in(download.folder) == {}


@pytest.mark.parametrize("reviews, meta", [(REVIEWS, META), ("reviews_Electronics.json", "meta_Electronics.json")])
def test_a_file_that_is_there_is_not_fetched(download, reviews, meta):
    download.folder.mkdir()
    for name in (reviews, meta):
        (download.folder / name).write_bytes(b"the user's own")
    with serving(CONTENT) as server:
        result = download(server.base)
    assert result.returncode == 0, result.stderr
    assert server.asked == []
    assert files_in(download.folder) == {reviews: b"the user's own", meta: b"the user's own"}


def test_without_curl_the_error_says_so(tmp_path):
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    result = subprocess.run([str(tmp_path / "bash"), SCRIPT, str(tmp_path / "raw")], env={"PATH": str(tmp_path)},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: curl not found; install it") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("pack", [lambda text: text, gzip.compress,
                                  lambda text: gzip.compress(text[:7]) + gzip.compress(text[7:]) + b"\0" * 9],
                         ids=["plain", "gzip", "gzip of several members, padded"])
@pytest.mark.parametrize("block", [2, 5, 1 << 20])
def test_the_content_and_its_sum_are_the_same_however_packed(tmp_path, monkeypatch, pack, block):
    monkeypatch.setattr(raw_files, "_BLOCK", block)
    text = b"some text\nmore of it, more of it, more of it\n" * 5
    (tmp_path / "file").write_bytes(pack(text))
    counts = []
    content = raw_files.RawFile(str(tmp_path / "file"), counts.append)
    assert b"".join(content) == text
    assert content.md5 == hashlib.md5(text).hexdigest()
    assert sum(counts) == len(pack(text))


def test_the_server_chooses_no_path(download, tmp_path):
    """It can't name a file that lies elsewhere, and a redirection to a file of this machine is not followed."""
    class Naming(Handler):
        def end_headers(self):
            self.send_header("Content-Disposition", 'attachment; filename="../escaped"')
            super().end_headers()

    class Redirecting(Handler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", "file://%s" % secret)
            self.end_headers()

    secret = tmp_path / "secret"
    secret.write_bytes(WHOLE[REVIEWS])
    with serving(CONTENT, handler=Redirecting) as server:
        refused = download(server.base)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("error: %s could not be fetched" % REVIEWS)
    assert not list(download.folder.glob("*.gz"))
    with serving(CONTENT, handler=Naming) as server:
        assert download(server.base).returncode == 0
    assert files_in(download.folder) == WHOLE and not list(tmp_path.rglob("escaped"))


def test_a_file_that_unpacks_without_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_files, "_BLOCK", 1000)
    monkeypatch.setattr(raw_files, "UNPACKED_LIMIT", 5000)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"0" * 1000000))
    read = 0
    with pytest.raises(UserError, match="unpacks to more than 5000 bytes"):
        for block in raw_files.RawFile(str(tmp_path / "bomb.gz")):
            read += len(block)
    assert read <= 5000
