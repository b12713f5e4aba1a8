"""Raw Amazon files -> reviews.pkl, meta.pkl and source.json.

`python utils/1_convert_pd.py [--raw_data FOLDER] [--output FOLDER] [--if_needed]`

reviews.pkl   frame: reviewerID and asin (categorical, text), unixReviewTime (int64, seconds), in file order
meta.pkl      frame: asin (text), categories (list of category paths, each a list of names), a row per reviewed item
source.json   the data set's name; name, size, times and md5 of the raw files; written last, so that where it is there,
              the two frames are whole and belong together
A raw file is parsed, never evaluated. A line is a record in JSON, or as Python writes a dictionary. Of a review
reviewerID, asin and unixReviewTime are used, of a product asin and categories: other fields may hold what they like.
"""
import ast
import contextlib
import json
import os
import re
import sys
import unicodedata
import warnings
from array import array
from collections import defaultdict
from itertools import count
from operator import itemgetter, methodcaller

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import numpy as np
import orjson
import pandas as pd
from tqdm import tqdm

from utils.data.pickles import dump_parts
from utils.data.raw_files import KINDS, KNOWN_MD5, RawFile, check_sum, find_raw_file, line_error, read_mark, write_mark
from utils.files import ROOT, Parser, UserError, make_folder, run_main

PUBLISHED, SAMPLE = "amazon_electronics", "sample_"  # a name, and what names begin with, that other data can't bear
LITERAL_LIMIT = 64 << 10  # bytes; a longer literal of unusual form could exhaust the C stack of Python 3.7's parser
DEPTH = 100  # of a record's values; deeper ones, which no used field has, are left out where parsers give up on them


def convert(raw_folder, output_folder, if_needed=False, skip_checksum=False):
    """Writes reviews.pkl, meta.pkl and source.json of the raw files in `raw_folder` into `output_folder`.

    Returns the name of the data set, or None where `if_needed` and they were made from these very files already, which
    were verified then unless `skip_checksum`.
    Raises `UserError`, and leaves `output_folder` as it was, where a raw file is missing, malformed or, unless
    `skip_checksum`, neither published nor described by a sample.json beside it.
    """
    paths = {kind: find_raw_file(raw_folder, kind) for kind in KINDS}
    source = {kind: _file_mark(path) for kind, path in paths.items()}
    outputs = {kind: os.path.join(output_folder, kind + ".pkl") for kind in KINDS}
    mark = os.path.join(output_folder, "source.json")
    sample_name, sample_sums = _read_sample(raw_folder)

    def name_of(sums):  # of files with these sums, {kind: md5}; None where they are not verified, and have to be
        if sums == KNOWN_MD5:  # even beside a forgotten sample.json
            return PUBLISHED
        if sample_sums and sums == sample_sums:
            return sample_name
        return _folder_name(raw_folder) if skip_checksum else None

    if if_needed and all(map(os.path.exists, outputs.values())):
        made = read_mark(mark) or {}
        if source.items() <= made.items() and name_of(made.get("md5")) == (made.get("dataset") or ""):
            return None

    sums = {}
    reviews, sums["reviews"] = read_reviews(paths["reviews"])
    expected_sums = KNOWN_MD5 if sums["reviews"] == KNOWN_MD5["reviews"] else sample_sums
    if not skip_checksum:
        check_sum(paths["reviews"], "reviews", sums["reviews"], expected_sums)
    meta, sums["meta"] = read_meta(paths["meta"], reviews["asin"].cat.categories)
    if not skip_checksum:
        check_sum(paths["meta"], "meta", sums["meta"], expected_sums)
    source.update(md5=sums, dataset=name_of(sums))

    make_folder(output_folder)
    with contextlib.suppress(FileNotFoundError):
        os.remove(mark)
    dump_parts(outputs["reviews"], [reviews])
    dump_parts(outputs["meta"], [meta])
    write_mark(mark, source)
    return source["dataset"]


def _file_mark(path):
    """Returns what tells a raw file from another in its place, a dictionary; its content is not read."""
    status = os.stat(path)  # a copy may keep the time of the content's change, but not that of its own
    return dict(name=os.path.basename(path), size=status.st_size, mtime_ns=status.st_mtime_ns,
                ctime_ns=status.st_ctime_ns)


_REVIEW = (("reviewerID", str, "a text"), ("asin", str, "a text"), ("unixReviewTime", int, "a whole number of seconds"))
_review_fields = itemgetter(*(name for name, _, _ in _REVIEW))


def read_reviews(path):
    """Returns (frame of reviews.pkl, md5 of the unpacked content) of a review file.

    Raises `UserError`, naming file and line, where a line is not a review.
    """
    texts = [(array("i"), defaultdict(count().__next__)) for _ in range(2)]  # users, items: codes, code of each text
    times = array("q")

    def take(lines):  # as columns, so that no bytecode is run for each line: a third less time than line by line
        columns = list(zip(*map(_review_fields, map(_load_json, lines))))
        if any(set(map(type, column)) - {kind} for column, (_, kind, _) in zip(columns, _REVIEW)):
            raise ValueError
        add(columns)

    def take_line(line):
        *users_and_items, time = _review_fields(parse_record(line))
        if type(time) is float and time.is_integer():
            time = int(time)  # JSON does not tell 1.4e9 from 1400000000
        for value, (name, kind, meaning) in zip(users_and_items + [time], _REVIEW):
            if type(value) is not kind:
                raise ValueError("%s is not %s" % (name, meaning))
            if kind is str:
                _check_text(name, value)
        if not -2 ** 63 <= time < 2 ** 63:
            raise ValueError("unixReviewTime is out of range")
        add([[value] for value in users_and_items] + [[time]])

    def add(columns):
        times.extend(array("q", columns[2]))
        for (codes, code_of), column in zip(texts, columns):
            codes.extend(map(code_of.__getitem__, column))

    md5 = _read_lines(path, take, take_line)
    if not times:
        raise UserError("%s holds no review; fetch it again" % path)
    users, items = (pd.Categorical.from_codes(np.frombuffer(codes, np.int32), pd.Index(list(code_of), dtype=object))
                    for codes, code_of in texts)
    return pd.DataFrame({"reviewerID": users, "asin": items, "unixReviewTime": np.frombuffer(times, np.int64)}), md5


def _check_text(name, text):
    """Raises `ValueError` where the text of the field `name` can't be written: half a character, as in "\\ud83d"."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("%s is not Unicode text" % name) from None


# The asin at the beginning of a record, where Amazon's have it, unless it is written with escapes.
_LEADING_ASIN = re.compile(rb"""\s*\{\s*(['"])asin\1\s*:\s*(['"])([^'"\\]*)\2""")


def read_meta(path, reviewed):
    """Returns (frame of meta.pkl, md5 of the unpacked content) of a meta file.

    The items are those in `reviewed` (distinct texts), in that order. Where several lines have one asin, the last
    counts. Lines of other items are skipped without being parsed in full.
    Raises `UserError` where a line is no record, or where a reviewed item has no line or no categories.
    """
    paths_of = dict.fromkeys(reviewed)
    reviewed_bytes = {asin.encode() for asin in paths_of}

    def take(lines):
        for line in lines:
            take_line(line)

    def take_line(line):
        leading = _LEADING_ASIN.match(line)
        if leading and leading.group(3) not in reviewed_bytes:
            return
        record = parse_record(line)
        asin = record["asin"]
        if type(asin) is not str:
            raise ValueError("asin is not a text")
        if asin in paths_of:
            paths_of[asin] = record["categories"]
            _check_category_paths(record["categories"])

    md5 = _read_lines(path, take, take_line)
    missing = [asin for asin, paths in paths_of.items() if paths is None]
    if missing:
        first = json.dumps(missing[0])[1:-1][:50]  # less than a line, whatever is in it
        raise UserError("%s has no line for %d reviewed item%s, %s the first; fetch both files again, they must belong "
                        "together" % (path, len(missing), "s" * (len(missing) > 1), first))
    return pd.DataFrame({"asin": list(paths_of), "categories": list(paths_of.values())}, dtype=object), md5


def _check_category_paths(paths):
    """Raises `ValueError`, which says why, where `paths` are no category paths with a category at the end."""
    if type(paths) is not list or any(type(path) is not list or set(map(type, path)) - {str} for path in paths):
        raise ValueError("categories is not a list of lists of names")
    if not paths or not paths[-1]:
        raise ValueError("the item has no category")
    _check_text("a category's name", paths[-1][-1])


# A stretch of a literal in which strings have neither double quotes nor backslashes inside; any other string; an
# unclosed one, to the end.
_TOKEN = re.compile(rb"""(?s)((?:[^'"]+|'[^'"\\]*')+)|'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"|['"].*""")


def parse_record(line):
    """Returns the dictionary that `line` (bytes) writes as JSON or as a Python literal; nothing in it is run.

    Dictionaries, lists, strings and numbers as `repr` writes them are turned into JSON, which is several times
    faster than `ast.literal_eval` and can't exhaust the stack, however deep the line. Other literals (None, a tuple,
    a trailing comma) are left to that function.
    Raises `ValueError`, which says why, where `line` is neither.
    """
    record = _parse(line)
    if record is None:
        record = _parse(_without_depths(line))
    if type(record) is not dict:
        raise ValueError("not a record")
    return record


def _parse(line):
    """Returns the value that `line` writes; None where it writes none, or one that is too deep."""
    try:
        if line.startswith(b"{'"):  # no JSON: an error need not be raised and described to see it
            raise ValueError
        return _parse_json(line)
    except (ValueError, RecursionError):
        try:
            return _parse_json(_TOKEN.sub(_to_json, line))
        except (ValueError, SyntaxError, RecursionError):
            return _evaluate_literal(line)


def _parse_json(line):
    """Returns the value of a line of JSON, or of what `json.dumps` writes beyond JSON: NaN, halves of characters.

    Ends of lines and the like inside strings are taken, too. Raises `ValueError` or `RecursionError`.
    """
    try:
        return _load_json(line)
    except ValueError:  # some 20 times as slow, so for few lines
        return json.loads(line.decode(), strict=False, parse_int=_number)


def _load_shallow(line):
    if line.count(b"[") + line.count(b"{") > 1000:
        raise ValueError("perhaps too deep")
    return orjson.loads(line)


# Before 3.9.15, which Python 3.7 does not have, orjson ends the process where a line is too deep.
_load_json = orjson.loads if tuple(map(int, orjson.__version__.split("."))) >= (3, 9, 15) else _load_shallow


def _number(digits):
    return int(digits) if len(digits) < 20 else float(digits)  # as orjson; Python's time for digits is their square


# The parts of a literal that nest, and those between them: strings are whole.
_PART = re.compile(rb"""(?s)[^'"\[\]{}()]+|'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"|.""")
_CLOSING = {b"[": b"]", b"{": b"}", b"(": b")"}


def _without_depths(line):
    """Returns `line` with 0 for each list, tuple and dictionary that is nested deeper than DEPTH.

    Raises `ValueError` where brackets don't match.
    """
    open_brackets, parts = [], []
    for part in map(methodcaller("group"), _PART.finditer(line)):
        if part in _CLOSING:
            open_brackets.append(part)
            parts += [part] if len(open_brackets) <= DEPTH else [b"0"] if len(open_brackets) == DEPTH + 1 else []
        elif part in _CLOSING.values():
            if not open_brackets or _CLOSING[open_brackets.pop()] != part:
                raise ValueError("not a record")
            parts += [part] if len(open_brackets) < DEPTH else []
        elif len(open_brackets) <= DEPTH:
            parts.append(part)
    return b"".join(parts)


def _to_json(match):
    token = match.group()
    if match.group(1):
        return token.replace(b"'", b'"')  # the same in JSON
    if token.startswith(b'"') and b"\\" not in token:
        return token
    return json.dumps(ast.literal_eval(token.decode())).encode()  # one string, so that there is nothing to nest


def _evaluate_literal(line):
    """Returns the value of a literal; None where `line` is none, or too long to be tried."""
    try:
        text = line.decode().strip()
        return ast.literal_eval(text) if len(line) <= LITERAL_LIMIT else None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _read_lines(path, take, take_line):
    """Gives `take` the lines of a raw file, one list after another; returns the md5 of the unpacked content.

    Where `take` refuses lines by an error, and has taken none of them or may take them again, `take_line` is given
    those that are not blank one by one: `UserError` names the line that it refuses by `KeyError` or `ValueError`.
    """
    with warnings.catch_warnings(), tqdm(
            total=os.path.getsize(path), desc=os.path.basename(path), unit="B", unit_scale=True, disable=None) as bar:
        warnings.simplefilter("ignore")  # what Python says of a literal such as '\\d' has no place among the lines here
        content = RawFile(path, on_read=bar.update)
        for first, lines in content.lines():
            try:
                take(lines)
            except (KeyError, ValueError, TypeError, OverflowError):
                for number, line in enumerate(lines, first):
                    try:
                        if line.strip():
                            take_line(line)
                    except (KeyError, ValueError) as error:
                        fault = error if isinstance(error, ValueError) else "%s is missing" % error.args[0]
                        raise line_error(path, number, fault) from None
    return content.md5


def _read_sample(raw_folder):
    """Returns (name of the data set, {kind: md5 of the raw file}) of the sample.json in `raw_folder`.

    (None, None) where there is none; raises `UserError` where it does not say.
    """
    path = os.path.join(raw_folder, "sample.json")
    sample = read_mark(path)
    if sample is None:
        return None, None
    name, sums = _plain_name(sample.get("dataset")), sample.get("md5")
    if not name.startswith(SAMPLE) or type(sums) is not dict or not all(
            re.match("[0-9a-f]{32}$", str(sums.get(kind))) for kind in KINDS):
        raise UserError('%s does not name a sample ("dataset") and the sums of its files ("md5"); remove it where the '
                        "files beside it are not generated, else run utils/make_sample.py again" % path)
    return name, sums


def _folder_name(raw_folder):
    """Returns the name of data that are neither published nor generated: that of their folder."""
    path = os.fsencode(os.path.realpath(raw_folder)).decode("utf-8", "replace")  # the same name in every locale
    name = _plain_name(os.path.basename(path)) or "unnamed"  # the root folder has no name
    return "unverified_" + name if name.lower() == PUBLISHED or name.lower().startswith(SAMPLE) else name


def _plain_name(name):
    """Returns `name` with "_" for all but letters of any alphabet, digits, "-" and "."; "" where it is no text."""
    return re.sub(r"[^\w.-]", "_", unicodedata.normalize("NFC", name)) if type(name) is str else ""


def main():
    parser = Parser(description="Raw Amazon files -> reviews.pkl, meta.pkl, source.json.")
    parser.add_argument("--raw_data", default=os.environ.get("RAW_DATA") or os.path.join(ROOT, "raw_data"),
                        help="folder of the raw files (default: $RAW_DATA, else raw_data)")
    parser.add_argument("--output", default=os.path.join(ROOT, "raw_data"),
                        help="folder of the three files (default: raw_data)")
    parser.add_argument("--if_needed", action="store_true", help="do nothing where these files are converted already")
    arguments = parser.parse_args()
    name = convert(arguments.raw_data, arguments.output, arguments.if_needed, os.environ.get("SKIP_CHECKSUM") == "1")
    outcome = "are up to date" if name is None else "made, data set " + name
    print("%s: reviews.pkl and meta.pkl %s" % (arguments.output, outcome))


if __name__ == "__main__":
    run_main(main)
