"""The two raw Amazon files: their names, their known sums, and their unpacked content.

`python3 utils/data/raw_files.py verify FILE...` ends with an error where the content of a file, unpacked, is not that of
the published one. Needs the standard library only, as 0_download_raw.sh runs it before anything is installed.
"""
import fnmatch
import hashlib
import os
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from utils.files import ROOT, UserError, run_main

KINDS = ("reviews", "meta")
KNOWN_MD5 = {  # of the unpacked content
    "reviews": "89fd3bb8a4a701ecf5be75c840bb6979",  # reviews_Electronics_5.json
    "meta": "63cde52ffabc99467bb3a0c754359025",  # meta_Electronics.json
}
UNPACKED_LIMIT = 16 << 30  # bytes, several times the larger file: a file that unpacks without end is not read for ever
_BLOCK = 8 << 20  # bytes; large, as the reading thread must win the interpreter lock a few times for each block
_GZIP = 16 + zlib.MAX_WBITS  # header and trailer of gzip, its checksum included


def default_folder():
    """Returns the folder of the raw files: $RAW_DATA, else the project's raw_data."""
    return os.environ.get("RAW_DATA") or os.path.join(ROOT, "raw_data")


def find_raw_file(folder, kind):
    """Returns the path of the one raw file of `kind` ("reviews" or "meta") in `folder`.

    Where a file is there both unpacked and gzipped, the unpacked one is taken. Raises `UserError` where there is
    none, or where there are several.
    """
    pattern = "%s_Electronics*.json" % kind
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError("%s can't be listed (%s); run utils/0_download_raw.sh, or set RAW_DATA to the folder of the "
                        "raw files" % (folder, error.strerror)) from None
    plain = fnmatch.filter(names, pattern)
    found = plain + [name for name in fnmatch.filter(names, pattern + ".gz") if name[:-len(".gz")] not in plain]
    if not found:
        raise UserError("no %s[.gz] in %s; run utils/0_download_raw.sh, or put the file there" % (pattern, folder))
    if len(found) > 1:
        raise UserError("%s holds several files %s[.gz] (%s); leave one there" % (folder, pattern, ", ".join(found)))
    return os.path.join(folder, found[0])


def check_sum(path, kind, found):
    """Raises `UserError` unless `found`, the md5 of the unpacked content of `path`, is the known one of `kind`."""
    expected = KNOWN_MD5[kind]
    if found != expected:
        raise UserError("%s: the md5 of its unpacked content is %s, but %s is expected; fetch the file again, or set "
                        "SKIP_CHECKSUM=1 for a data set of your own" % (path, found, expected))


class RawFile:
    """The unpacked content of a raw file, gzipped or not, read once.

    Iterating gives blocks of bytes. A thread reads, unpacks and sums up one block ahead of the caller, which parses
    the present one meanwhile. After the last block `md5` is the sum of the content. `on_read` is called with the
    numbers of bytes read from the disk.
    Raises `UserError` where the file can't be read or unpacked, is empty, or unpacks to more than UNPACKED_LIMIT.
    """

    def __init__(self, path, on_read=None):
        self.path = path
        self.md5 = None
        self._on_read = on_read or (lambda count: None)

    def __iter__(self):
        digest = hashlib.md5()
        size = 0
        try:
            if not os.path.isfile(self.path):  # opening a pipe would wait for ever
                raise FileNotFoundError("not a file")
            with open(self.path, "rb") as file, ThreadPoolExecutor(max_workers=1) as reader:
                blocks = self._summed(_unpacked(self._packed(file)), digest)
                ahead = reader.submit(next, blocks, None)
                while True:
                    block = ahead.result()
                    if block is None:
                        break
                    size += len(block)
                    if size > UNPACKED_LIMIT:
                        raise UserError("%s unpacks to more than %d bytes; fetch it again" % (self.path, UNPACKED_LIMIT))
                    ahead = reader.submit(next, blocks, None)
                    yield block
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise UserError("%s can't be read (%s); fetch it again" % (self.path, reason)) from None
        if not size:
            raise UserError("%s is empty; fetch it again" % self.path)
        self.md5 = digest.hexdigest()

    def _packed(self, file):
        block = file.read(_BLOCK)
        while block:
            self._on_read(len(block))
            yield block
            block = file.read(_BLOCK)

    @staticmethod
    def _summed(blocks, digest):
        for block in blocks:
            digest.update(block)
            yield block


def _unpacked(blocks):
    """Yields `blocks`, unpacked where they begin as a gzip file does; several gzip members may follow each other."""
    unpacker = None
    for packed in blocks:
        if unpacker is None:
            if not packed.startswith(b"\x1f\x8b"):
                yield packed
                yield from blocks
                return
            unpacker = zlib.decompressobj(_GZIP)
        while packed:
            if unpacker.eof:
                packed = packed.lstrip(b"\0")  # a gzip file may be padded with zeros
                unpacker = zlib.decompressobj(_GZIP) if packed else unpacker
                continue
            block = unpacker.decompress(packed, _BLOCK)
            packed = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            if block:
                yield block
    if unpacker is not None and not unpacker.eof:
        raise EOFError("the gzip file is cut off")


def main():
    if len(sys.argv) < 3 or sys.argv[1] != "verify":
        raise UserError("usage: raw_files.py verify FILE...")
    for path in sys.argv[2:]:
        kind = os.path.basename(path).split("_")[0]
        if kind not in KINDS:
            raise UserError("%s: the name begins with neither of %s" % (path, ", ".join(KINDS)))
        content = RawFile(path)
        for _ in content:
            pass
        check_sum(path, kind, content.md5)


if __name__ == "__main__":
    run_main(main)
