"""A share of a data set's raw files: all reviews of a share of the users, and the meta lines that go with them.

    python -m benchmarks.raw_cut RAW_FOLDER SHARE FOLDER

The users are chosen by a checksum of their names. The meta file keeps the lines of all items that they reviewed, and
the same share of the other lines. Both are written unpacked.
"""
import importlib
import os
import sys
import zlib

import orjson

from utils.data.raw_files import RawFile, find_raw_file
from utils.files import UserError, run_main

_convert = importlib.import_module("utils.1_convert_pd")


def cut(raw_folder, share, folder):
    """Writes the share of both raw files into `folder`."""
    def in_share(text):
        return zlib.crc32(text.encode()) < share * 2 ** 32

    reviewed = set()
    with open(os.path.join(folder, "reviews_Electronics_5.json"), "wb") as file:
        for line in _lines(raw_folder, "reviews"):
            review = orjson.loads(line)
            if in_share(review["reviewerID"]):
                reviewed.add(review["asin"])
                file.write(line + b"\n")
    if not reviewed:
        raise UserError("a share of %g of the users in %s is none; take a larger one" % (share, raw_folder))
    with open(os.path.join(folder, "meta_Electronics.json"), "wb") as file:
        for line in _lines(raw_folder, "meta"):
            asin = _convert.parse_record(line)["asin"]
            if asin in reviewed or in_share(asin):
                file.write(line + b"\n")


def _lines(raw_folder, kind):
    for _, lines in RawFile(find_raw_file(raw_folder, kind)).lines():
        yield from filter(bytes.strip, lines)


if __name__ == "__main__":
    run_main(lambda: cut(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
