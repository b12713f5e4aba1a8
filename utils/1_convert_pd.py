"""Raw Amazon files -> reviews.pkl, meta.pkl and source.json.

`python utils/1_convert_pd.py [--raw_data FOLDER] [--output FOLDER] [--if_needed]`

reviews.pkl   frame: reviewerID and asin (categorical, text), unixReviewTime (int64, seconds), in file order
meta.pkl      frame: asin (text), categories (list of category paths), one row per reviewed item
source.json   the data set's name and the raw files that the two were made from; written last, so that where it is
              there, the two are whole and belong together
A raw file is parsed, never evaluated.
"""
import ast
import contextlib
import json
import os
import re
import sys
from array import array
from collections import defaultdict
from itertools import count
from operator import itemgetter

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import numpy as np
import orjson
import pandas as pd
from tqdm import tqdm

from utils.data.pickles import dump_parts
from utils.data.raw_files import KINDS, KNOWN_MD5, RawFile, check_sum, default_folder, find_raw_file
from utils.files import ROOT, Parser, UserError, make_folder, replacing, run_main

RESERVED_NAMES = ("amazon_electronics", "sample_small", "sample_full")  # a data set of the user's can't bear them
LINE_LIMIT = 64 << 20  # bytes; a real line has some thousands
LINES_AT_ONCE = 256 << 10  # bytes; few enough that lines and what is parsed of them stay in the processor's cache
LITERAL_LIMIT = 64 << 10  # bytes; a longer literal of unusual form could exhaust the C stack of Python 3.7's parser


def convert(raw_folder, output_folder, if_needed=False, skip_checksum=False):
    """Writes reviews.pkl, meta.pkl and source.json of the raw files in `raw_folder` into `output_folder`.

    Returns the name of the data set, or None where `if_needed` and they were made from these very files already.
    Raises `UserError`, and leaves `output_folder` as it was, where a raw file is missing, malformed or, unless
    `skip_checksum`, neither published nor described by a sample.json beside it.
    """
    paths = {kind: find_raw_file(raw_folder, kind) for kind in KINDS}
    source = {kind: _describe(path) for kind, path in paths.items()}
    outputs = {kind: os.path.join(output_folder, kind + ".pkl") for kind in KINDS}
    mark = os.path.join(output_folder, "source.json")
    if if_needed and all(map(os.path.exists, outputs.values())) and _was_made_from(mark, source):
        return None

    sample = _sample_name(raw_folder)
    verified = not skip_checksum and sample is None
    found = {}
    reviews, found["reviews"] = read_reviews(paths["reviews"])
    if verified:
        check_sum(paths["reviews"], "reviews", found["reviews"])
    meta, found["meta"] = read_meta(paths["meta"], reviews["asin"].cat.categories)
    if verified:
        check_sum(paths["meta"], "meta", found["meta"])
    source["dataset"] = _dataset_name(raw_folder, sample, found)

    make_folder(output_folder)
    try:
        os.remove(mark)
    except FileNotFoundError:
        pass
    dump_parts(outputs["reviews"], [reviews])
    dump_parts(outputs["meta"], [meta])
    with replacing(mark, "w", encoding="utf-8") as file:
        json.dump(source, file, indent=1)
    return source["dataset"]


def read_reviews(path):
    """Returns (frame, md5) of a review file; the md5 is that of its unpacked content.

    The frame has a row per review, in file order: reviewerID, asin (categorical, text) and unixReviewTime (int64).
    Raises `UserError`, naming file and line, where a line is not a review.
    """
    users, items = defaultdict(count().__next__), defaultdict(count().__next__)  # text -> position of appearance
    user_codes, item_codes, times = array("i"), array("i"), array("q")
    with _open(path) as content:
        for number, lines in numbered_lines(content):
            try:
                columns = _review_columns(lines)
            except (ValueError, LookupError, TypeError, OverflowError):
                for number, line in enumerate(lines, number):
                    fault = _review_fault(line)
                    if fault:
                        raise _line_error(path, number, fault) from None
                columns = _review_columns(list(filter(bytes.strip, lines)))  # blank lines were all that was wrong
            user_codes.extend(map(users.__getitem__, columns[0]))
            item_codes.extend(map(items.__getitem__, columns[1]))
            times.extend(columns[2])
    if not times:
        raise UserError("%s holds no review; fetch it again" % path)
    frame = pd.DataFrame({"reviewerID": _categorical(user_codes, users), "asin": _categorical(item_codes, items),
                          "unixReviewTime": np.frombuffer(times, dtype=np.int64)})
    return frame, content.md5


def _categorical(codes, positions):
    labels = pd.Index(np.array(list(positions), dtype=object), dtype=object)
    return pd.Categorical.from_codes(np.frombuffer(codes, dtype=np.int32), categories=labels)


_REVIEW = (("reviewerID", str, "a text"), ("asin", str, "a text"), ("unixReviewTime", int, "a whole number of seconds"))
_fields = itemgetter(*(field for field, _, _ in _REVIEW))


def _review_columns(lines):
    """Returns the users, items and times (an array) of review lines; raises one of several errors where one is none.

    Columns, as no code of Python's is run then for each line: a third less time than line by line.
    """
    columns = list(zip(*map(_fields, map(orjson.loads, lines)))) or [(), (), ()]
    for column, (_, kind, _) in zip(columns, _REVIEW):
        if not set(map(type, column)) <= {kind}:
            raise TypeError
    return columns[0], columns[1], array("q", columns[2])


def _review_fault(line):
    """Says why `line` is no review; None where it is one, or blank."""
    if not line.strip():
        return None
    try:
        review = orjson.loads(line)
    except ValueError as error:
        return "not UTF-8" if "UTF-8" in str(error) else "not a JSON record"
    if type(review) is not dict:
        return "not a JSON record"
    for field, kind, meaning in _REVIEW:
        if field not in review:
            return "%s is missing" % field
        if type(review[field]) is not kind:
            return "%s is not %s" % (field, meaning)
    return None if -2**63 <= review["unixReviewTime"] < 2**63 else "unixReviewTime is out of range"


# The asin of a record that begins with it, as those of Amazon do, unless it is written with escapes.
_LEADING_ASIN = re.compile(rb"""\s*\{\s*(['"])asin\1\s*:\s*(['"])([^'"\\]*)\2""")


def read_meta(path, reviewed):
    """Returns (frame, md5) of a meta file; the md5 is that of its unpacked content.

    The frame has a row per item of `reviewed` (texts), in that order: asin (text) and categories (a list of
    category paths, each a list of names). Where several lines have one asin, the last counts. Lines of other items
    are skipped without being parsed in full.
    Raises `UserError` where a line is no record, or where a reviewed item has no line or no categories.
    """
    wanted = {asin.encode(): asin for asin in reviewed}
    categories = {}
    with _open(path) as content:
        for first, lines in numbered_lines(content):
            for number, line in enumerate(lines, first):
                leading = _LEADING_ASIN.match(line)
                if leading and leading.group(3) not in wanted or not line.strip():
                    continue
                try:
                    record = parse_record(line)
                except ValueError as error:
                    raise _line_error(path, number, str(error)) from None
                asin = record.get("asin")
                if type(asin) is not str:
                    raise _line_error(path, number, "asin is not a text" if "asin" in record else "asin is missing")
                if asin.encode("utf-8", "replace") in wanted:
                    fault = _categories_fault(record)
                    if fault:
                        raise _line_error(path, number, fault)
                    categories[asin] = record["categories"]
    missing = [asin for asin in reviewed if asin not in categories]
    if missing:
        raise UserError("%s has no line for %d reviewed item%s, %s the first; fetch both files again, they must belong "
                        "together" % (path, len(missing), "s" * (len(missing) > 1), missing[0]))
    asins = np.array(list(reviewed), dtype=object)
    paths = np.empty(len(asins), dtype=object)  # not np.array, which would make a matrix of lists of equal length
    paths[:] = [categories[asin] for asin in asins]
    return pd.DataFrame({"asin": pd.Series(asins, dtype=object), "categories": paths}), content.md5


def _categories_fault(record):
    """Says what is wrong with the categories of a meta record; None where nothing is."""
    if "categories" not in record:
        return "categories is missing"
    paths = record["categories"]
    if type(paths) is not list or not all(type(path) is list and all(type(name) is str for name in path)
                                          for path in paths):
        return "categories is not a list of lists of names"
    if not paths or not paths[-1]:
        return "the item has no category"
    try:
        paths[-1][-1].encode()
    except UnicodeEncodeError:
        return "a category's name is not Unicode text"
    return None


# A stretch of a literal in which strings have neither double quotes nor backslashes inside; any other string; an
# unclosed one, to the end.
_TOKEN = re.compile(rb"""((?:[^'"]+|'[^'"\\]*')+)|'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"|['"].*""", re.DOTALL)


def parse_record(line):
    """Returns the dictionary that `line` (bytes) writes as JSON or as a Python literal; nothing in it is run.

    Dictionaries, lists, strings and numbers as `repr` writes them are turned into JSON, which is several times
    faster than `ast.literal_eval` and can't exhaust the stack, however deep the line. Other literals (None, a tuple,
    a trailing comma) are left to that function.
    Raises `ValueError`, which says why, where `line` is neither.
    """
    try:
        if line.startswith(b"{'"):  # no JSON: an error need not be raised and described to see it
            raise ValueError
        record = orjson.loads(line)
    except ValueError:
        try:
            record = orjson.loads(_TOKEN.sub(_to_json, line))
        except (ValueError, SyntaxError):
            record = _evaluate_literal(line)
    if type(record) is not dict:
        raise ValueError("not a record")
    return record


def _to_json(match):
    token = match.group()
    if match.group(1):
        return token.replace(b"'", b'"')  # the same in JSON
    if token.startswith(b'"') and b"\\" not in token:
        return token
    text = ast.literal_eval(token.decode())  # one string, so that there is nothing to nest
    return orjson.dumps(text.encode("utf-8", "replace").decode())


def _evaluate_literal(line):
    try:
        text = line.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    if len(line) > LITERAL_LIMIT:
        raise ValueError("not a record")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("not a record") from None


@contextlib.contextmanager
def _open(path):
    """Gives the `RawFile` of `path`; a bar on a terminal shows how much of the file on the disk is read."""
    with tqdm(total=os.path.getsize(path), desc=os.path.basename(path), unit="B", unit_scale=True, disable=None) as bar:
        yield RawFile(path, on_read=bar.update)


def numbered_lines(content):
    """Yields (number of the first from 1, some lines without their ends) of a `RawFile`; a line ends with \\n alone.

    Raises `UserError` where a line is longer than LINE_LIMIT.
    """
    number = 1
    rest = b""
    for block in content:
        start, end = 0, block.rfind(b"\n") + 1
        while start < end:
            stop = block.find(b"\n", min(start + LINES_AT_ONCE, end) - 1) + 1
            lines = (rest + block[start:stop - 1]).split(b"\n")
            yield number, lines
            number += len(lines)
            start, rest = stop, b""
        rest += block[end:]
        if len(rest) > LINE_LIMIT:
            raise _line_error(content.path, number, "longer than %d bytes" % LINE_LIMIT)
    if rest:
        yield number, [rest]


def _line_error(path, number, fault):
    return UserError("%s, line %d: %s; mend the line or fetch the file again" % (path, number, fault))


def _describe(path):
    status = os.stat(path)
    return {"name": os.path.basename(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _was_made_from(mark, source):
    try:
        with open(mark, encoding="utf-8") as file:
            made_from = json.load(file)
        return all(made_from[kind] == described for kind, described in source.items())
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False  # no mark, or a damaged one: made again


def _sample_name(raw_folder):
    """Returns the name that sample.json in `raw_folder` gives to the generated data there; None without that file."""
    path = os.path.join(raw_folder, "sample.json")
    try:
        with open(path, encoding="utf-8") as file:
            name = json.load(file)["dataset"]
        if type(name) is str and name and name != RESERVED_NAMES[0]:
            return _safe(name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    raise UserError('%s does not name a data set ("dataset"); remove it where the files beside it are not generated, '
                    "else run utils/make_sample.py again" % path)


def _dataset_name(raw_folder, sample, found_md5):
    """Returns the name of a data set: the published one's, that of the `sample`, or the folder's own."""
    if found_md5 == KNOWN_MD5:  # first, as a sample.json may lie forgotten beside the real files
        return RESERVED_NAMES[0]
    if sample:
        return sample
    name = _safe(os.path.basename(os.path.realpath(raw_folder))) or "unnamed"  # the root folder has no name
    return name + "_unverified" if name in RESERVED_NAMES else name


def _safe(name):
    """Returns `name` with nothing in it that would need quoting in a CSV or a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def main():
    parser = Parser(description="Raw Amazon files -> reviews.pkl, meta.pkl, source.json.")
    parser.add_argument("--raw_data", default=default_folder(),
                        help="folder of the raw files (default: $RAW_DATA, else raw_data)")
    parser.add_argument("--output", default=os.path.join(ROOT, "raw_data"),
                        help="folder of what is made (default: raw_data)")
    parser.add_argument("--if_needed", action="store_true", help="do nothing where these files are converted already")
    arguments = parser.parse_args()
    name = convert(arguments.raw_data, arguments.output, arguments.if_needed, os.environ.get("SKIP_CHECKSUM") == "1")
    if name is None:
        print("%s: reviews.pkl and meta.pkl are up to date" % arguments.output)
    else:
        print("%s: reviews.pkl and meta.pkl made, data set %s" % (arguments.output, name))


if __name__ == "__main__":
    run_main(main)
