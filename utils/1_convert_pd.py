"""Raw Amazon files -> reviews.pkl, meta.pkl and source.json.

`python utils/1_convert_pd.py [--raw_data FOLDER] [--output FOLDER] [--if_needed]`

reviews.pkl   frame: reviewerID and asin (categorical, text), unixReviewTime (int64, seconds), in file order
meta.pkl      frame: asin (text), categories (list of category paths, each a list of names), a row per reviewed item
source.json   the data set's name, and name, size and time of the raw files; written last, so that where it is there,
              the two frames are whole and belong together
A raw file is parsed, never evaluated.
"""
import ast
import contextlib
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
from utils.data.raw_files import KINDS, KNOWN_MD5, RawFile, check_sum, find_raw_file, line_error, read_mark, write_mark
from utils.files import ROOT, Parser, UserError, make_folder, run_main

RESERVED_NAMES = ("amazon_electronics", "sample_small", "sample_full")  # a data set of the user's can't bear them
LITERAL_LIMIT = 64 << 10  # bytes; a longer literal of unusual form could exhaust the C stack of Python 3.7's parser


def convert(raw_folder, output_folder, if_needed=False, skip_checksum=False):
    """Writes reviews.pkl, meta.pkl and source.json of the raw files in `raw_folder` into `output_folder`.

    Returns the name of the data set, or None where `if_needed` and they were made from these very files already.
    Raises `UserError`, and leaves `output_folder` as it was, where a raw file is missing, malformed or, unless
    `skip_checksum`, neither published nor described by a sample.json beside it.
    """
    paths = {kind: find_raw_file(raw_folder, kind) for kind in KINDS}
    source = {kind: dict(name=os.path.basename(path), size=os.path.getsize(path), mtime_ns=os.stat(path).st_mtime_ns)
              for kind, path in paths.items()}
    outputs = {kind: os.path.join(output_folder, kind + ".pkl") for kind in KINDS}
    mark = os.path.join(output_folder, "source.json")
    if if_needed and all(map(os.path.exists, outputs.values())) and source.items() <= (read_mark(mark) or {}).items():
        return None

    sample = read_mark(os.path.join(raw_folder, "sample.json"))
    name = _dataset_name(raw_folder, sample)
    verify = sample is None and not skip_checksum
    sums = {}
    reviews, sums["reviews"] = read_reviews(paths["reviews"])
    if verify:
        check_sum(paths["reviews"], "reviews", sums["reviews"])
    meta, sums["meta"] = read_meta(paths["meta"], reviews["asin"].cat.categories)
    if verify:
        check_sum(paths["meta"], "meta", sums["meta"])
    source["dataset"] = RESERVED_NAMES[0] if sums == KNOWN_MD5 else name  # even beside a forgotten sample.json

    make_folder(output_folder)
    with contextlib.suppress(FileNotFoundError):
        os.remove(mark)
    dump_parts(outputs["reviews"], [reviews])
    dump_parts(outputs["meta"], [meta])
    write_mark(mark, source)
    return source["dataset"]


_REVIEW = (("reviewerID", str, "a text"), ("asin", str, "a text"), ("unixReviewTime", int, "a whole number of seconds"))
_review_fields = itemgetter(*(name for name, _, _ in _REVIEW))


def read_reviews(path):
    """Returns (frame of reviews.pkl, md5 of the unpacked content) of a review file.

    Raises `UserError`, naming file and line, where a line is not a review.
    """
    texts = [(array("i"), defaultdict(count().__next__)) for _ in range(2)]  # users, items: codes, code of each text
    times = array("q")

    def take(lines):  # as columns, so that no bytecode is run for each line: a third less time than line by line
        try:
            columns = list(zip(*map(_review_fields, map(orjson.loads, lines))))
            for column, (name, kind, meaning) in zip(columns, _REVIEW):
                if not set(map(type, column)) <= {kind}:
                    raise ValueError("%s is not %s" % (name, meaning))
            times.extend(array("q", columns[2]))
        except OverflowError:
            raise ValueError("unixReviewTime is out of range") from None
        except (orjson.JSONDecodeError, TypeError) as error:  # TypeError: a record that is no dictionary
            raise ValueError("not UTF-8" if "UTF-8" in str(error) else "not a JSON record") from None
        for (codes, code_of), column in zip(texts, columns):
            codes.extend(map(code_of.__getitem__, column))

    md5 = _read_lines(path, take)
    if not times:
        raise UserError("%s holds no review; fetch it again" % path)
    users, items = (pd.Categorical.from_codes(np.frombuffer(codes, np.int32), pd.Index(list(code_of), dtype=object))
                    for codes, code_of in texts)
    return pd.DataFrame({"reviewerID": users, "asin": items, "unixReviewTime": np.frombuffer(times, np.int64)}), md5


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
            leading = _LEADING_ASIN.match(line)
            if leading and leading.group(3) not in reviewed_bytes:
                continue
            record = parse_record(line)
            asin = record["asin"]
            if type(asin) is not str:
                raise ValueError("asin is not a text")
            if asin in paths_of:
                paths_of[asin] = record["categories"]
                _check_category_paths(record["categories"])

    md5 = _read_lines(path, take)
    missing = [asin for asin, paths in paths_of.items() if paths is None]
    if missing:
        raise UserError("%s has no line for %d reviewed item%s, %s the first; fetch both files again, they must belong "
                        "together" % (path, len(missing), "s" * (len(missing) > 1), missing[0]))
    return pd.DataFrame({"asin": list(paths_of), "categories": list(paths_of.values())}, dtype=object), md5


def _check_category_paths(paths):
    """Raises `ValueError`, which says why, where `paths` are no category paths with a category at the end."""
    if type(paths) is not list or any(type(path) is not list or set(map(type, path)) - {str} for path in paths):
        raise ValueError("categories is not a list of lists of names")
    if not paths or not paths[-1]:
        raise ValueError("the item has no category")
    try:
        paths[-1][-1].encode()
    except UnicodeEncodeError:
        raise ValueError("a category's name is not Unicode text") from None


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
    """Returns the value of a literal; None where `line` is none, or too long to be tried."""
    try:
        text = line.decode().strip()
        return ast.literal_eval(text) if len(line) <= LITERAL_LIMIT else None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _read_lines(path, take):
    """Gives `take` the lines of a raw file, one list after another; returns the md5 of the unpacked content.

    Where `take` raises `KeyError` or `ValueError`, it is given the lines that are not blank one by one: `UserError`
    names the line that it refuses then.
    """
    with tqdm(total=os.path.getsize(path), desc=os.path.basename(path), unit="B", unit_scale=True, disable=None) as bar:
        content = RawFile(path, on_read=bar.update)
        for first, lines in content.lines():
            try:
                take(lines)
            except (KeyError, ValueError):
                for number, line in enumerate(lines, first):
                    try:
                        if line.strip():
                            take([line])
                    except (KeyError, ValueError) as error:
                        fault = error if isinstance(error, ValueError) else "%s is missing" % error.args[0]
                        raise line_error(path, number, fault) from None
    return content.md5


def _dataset_name(raw_folder, sample):
    """Returns the name of data that are not the published: that in their sample.json (`sample`), or the folder's."""
    if sample is None:
        name = os.path.basename(os.path.realpath(raw_folder)) or "unnamed"  # the root folder has no name
    else:
        name = sample.get("dataset")
        if type(name) is not str or name in ("", RESERVED_NAMES[0]):
            raise UserError('%s does not name a data set ("dataset"); remove it where the files beside it are not '
                            "generated, else run utils/make_sample.py again" % os.path.join(raw_folder, "sample.json"))
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)  # safe in a CSV and in a file name
    return name + "_unverified" if name in RESERVED_NAMES and sample is None else name


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
