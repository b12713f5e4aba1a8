"""The two raw Amazon files: their names, their known sums, their unpacked content and its lines.

`python3 utils/data/raw_files.py verify FILE...` ends with an error where the unpacked content of a file is not that of
the published file. It needs the standard library alone, as 0_download_raw.sh runs it before anything is installed.
"""
import fnmatch
import hashlib
import itertools
import json
import os
import re
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from utils.files import UserError, replacing, run_main

KINDS = ("reviews", "meta")
# Of the unpacked content of reviews_Electronics_5.json and meta_Electronics.json.
KNOWN_MD5 = {"reviews": "89fd3bb8a4a701ecf5be75c840bb6979", "meta": "63cde52ffabc99467bb3a0c754359025"}
UNPACKED_LIMIT = 16 << 30  # bytes, several times the larger file: a file that unpacks without end is not read for ever
UNPACKED_SHARE = 100  # a gzip file may unpack to as many times its size (the real files: 4), or to UNPACKED_FREELY
UNPACKED_FREELY = 256 << 20  # bytes
GZIP_LAYERS = 2  # some servers pack what is packed already
LINE_LIMIT = 16 << 20  # bytes; a real line has thousands, and a record may take 25 times the memory of its line
MARK_LIMIT = 64 << 10  # bytes of a sample.json or source.json; a real one has hundreds
LINES_AT_ONCE = 256 << 10  # bytes; few enough for lines and their records to stay in the processor's cache
_BLOCK = 8 << 20  # bytes; large, as the reading thread must win the interpreter lock a few times for each block
_PACKED = 32 << 10  # bytes unpacked at a time: after each gzip member those that follow it are copied
_GZIP = 16 + zlib.MAX_WBITS  # header and trailer of gzip, its checksum included
_GZIPPED, _BOM = b"\x1f\x8b", b"\xef\xbb\xbf"  # what a gzip file begins with, and UTF-8 text of some programs
_HEAD = 512  # bytes, enough to tell what a file is
_UNPACK = "unpack it, and give what is in it, plain or gzipped"
_OTHERS = [  # (pattern of the beginning, what the file is, what to do) of files that are taken for raw files
    (rb"PK(\x03\x04|\x05\x06)", "a zip archive", _UNPACK), (rb"BZh", "a bzip2 file", _UNPACK),
    (rb"\xfd7zXZ\0", "an xz file", _UNPACK), (rb"\x28\xb5\x2f\xfd", "a Zstandard file", _UNPACK),
    (rb"7z\xbc\xaf", "a 7-Zip archive", _UNPACK), (rb"Rar!", "a RAR archive", _UNPACK),
    (rb"(?s).{257}ustar", "a tar archive", _UNPACK), (_GZIPPED, "a gzip file of gzip files of gzip files", _UNPACK),
    (rb"\xff\xfe|\xfe\xff|\{\0|\0\{", "UTF-16 text", "write it as UTF-8 (PowerShell's > does not)"),
    (rb"(\xef\xbb\xbf)?\s*<", "a web page", "a server sent it in place of the file; fetch the file again")]


def find_raw_file(folder, kind):
    """Returns the path of the one raw file of `kind` ("reviews" or "meta") in `folder`.

    An unpacked file is preferred to a gzipped one of its name. Raises `UserError` where there is none, or several.
    """
    pattern = "%s_Electronics*.json" % kind
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError("%s can't be listed (%s); run utils/0_download_raw.sh, or set RAW_DATA to the folder of the "
                        "raw files" % (folder, error.strerror)) from None
    matches = fnmatch.filter(names, pattern)
    matches += [name for name in fnmatch.filter(names, pattern + ".gz") if name[:-len(".gz")] not in matches]
    if not matches:
        raise UserError("no %s[.gz] in %s; run utils/0_download_raw.sh, or put the file there" % (pattern, folder))
    if len(matches) > 1:
        raise UserError("%s holds several files %s[.gz] (%s); leave one there" % (folder, pattern, ", ".join(matches)))
    return os.path.join(folder, matches[0])


def read_mark(path):
    """Returns the dictionary in `path`, a JSON file that describes the files beside it (sample.json, source.json).

    None where there is no such file, {} where it is damaged.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:  # with or without a byte order mark
            text = file.read(MARK_LIMIT + 1)
        mark = json.loads(text) if len(text) <= MARK_LIMIT else {}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return mark if type(mark) is dict else {}


def write_mark(path, mark):
    """Writes the dictionary `mark` into `path`, for `read_mark`."""
    with replacing(path, "w") as file:
        file.write(json.dumps(mark, indent=1) + "\n")


def check_sum(path, kind, md5, sums=None):
    """Raises `UserError` unless `md5`, the sum of the unpacked content of `path`, is the one of `kind` in `sums`.

    `sums`, {kind: md5}, are those of the sample.json beside the file, or else the known ones.
    """
    expected = (sums or KNOWN_MD5)[kind]
    if md5 != expected:
        remedy = ("fetch it again, or set SKIP_CHECKSUM=1 for a data set of your own" if expected == KNOWN_MD5[kind]
                  else "run utils/make_sample.py again, or remove sample.json where the files are not generated")
        raise UserError("%s: the md5 of its unpacked content is %s, but %s is expected; remove the file and %s"
                        % (path, md5, expected, remedy))


def line_error(path, number, fault):
    """Returns the `UserError` that names the line `number` (from 1) of a raw file."""
    return UserError("%s, line %d: %s; mend the line or fetch the file again" % (path, number, fault))


class RawFile:
    """The unpacked content of a raw file, read once: of a plain file, a gzipped one, or one that is gzipped twice.

    Iterating gives blocks of bytes, while a thread reads, unpacks and sums up the next one. After the last block `md5`
    is the sum of the content. `on_read` is called with the number of bytes of each block that is read from the disk.
    Raises `UserError` where the file can't be read or unpacked, is empty, is of another kind, or unpacks to far more
    than its size.
    """

    def __init__(self, path, on_read=lambda count: None):
        self.path = path
        self.md5 = None
        self._on_read = on_read

    def __iter__(self):
        digest = hashlib.md5()
        try:
            if not os.path.isfile(self.path):  # opening a pipe would wait for ever
                raise FileNotFoundError("not a file")
            with open(self.path, "rb") as file, ThreadPoolExecutor(max_workers=1) as reader:
                blocks = self._blocks(file, digest)
                ready = reader.submit(next, blocks, None)
                while ready.result():
                    block, ready = ready.result(), reader.submit(next, blocks, None)
                    yield block
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise UserError("%s can't be read (%s); fetch it again" % (self.path, reason)) from None
        self.md5 = digest.hexdigest()

    def lines(self):
        """Yields (number of the first from 1, a list of lines without their ends); a line ends with \\n alone.

        A byte order mark before the first line is left out.
        Raises `UserError` as iterating does, and where a line is longer than LINE_LIMIT.
        """
        number, head = 1, b""  # the head of a line whose end is in a later block
        for block in self:
            if number == 1 and not head and block.startswith(_BOM):
                block = block[len(_BOM):]
            start, end = 0, block.rfind(b"\n") + 1
            while start < end:
                stop = block.find(b"\n", min(start + LINES_AT_ONCE, end) - 1) + 1
                lines = (head + block[start:stop - 1]).split(b"\n")
                yield number, lines
                number += len(lines)
                start, head = stop, b""
            head += block[end:]
            if len(head) > LINE_LIMIT:
                raise line_error(self.path, number, "longer than %d bytes" % LINE_LIMIT)
        if head:
            yield number, [head]

    def _blocks(self, file, digest):
        size, limit = 0, UNPACKED_LIMIT
        packed = iter(lambda: self._read(file), b"")
        for layer in range(GZIP_LAYERS + 1):
            head, blocks = _with_head(packed)
            if layer == GZIP_LAYERS or not head.startswith(_GZIPPED):
                break
            limit = min(limit, max(UNPACKED_FREELY, UNPACKED_SHARE * os.fstat(file.fileno()).st_size))
            packed = _unpacked(blocks)
        for pattern, kind, remedy in _OTHERS:
            if re.match(pattern, head):
                raise UserError("%s is %s; %s" % (self.path, kind, remedy))
        for block in blocks:
            size += len(block)
            if size > limit:
                raise UserError("%s unpacks to more than %d bytes; fetch it again" % (self.path, limit))
            digest.update(block)
            yield block
        if not size:
            raise UserError("%s is empty; fetch it again" % self.path)

    def _read(self, file):
        block = file.read(_BLOCK)
        self._on_read(len(block))
        return block


def _with_head(blocks):
    """Returns (the first _HEAD bytes of `blocks`, `blocks`), the first of these as long as that."""
    first = b""
    for block in blocks:
        first += block
        if len(first) >= _HEAD:
            break
    return first[:_HEAD], itertools.chain([first] if first else [], blocks)


def _unpacked(blocks):
    """Yields the content of the blocks of a gzip file, in blocks of _BLOCK; several members may follow each other."""
    unpacker, parts, size = zlib.decompressobj(_GZIP), [], 0
    for packed in (block[start:start + _PACKED] for block in blocks for start in range(0, len(block), _PACKED)):
        while packed:
            if unpacker.eof:
                packed = packed.lstrip(b"\0")  # a gzip file may be padded with zeros
                unpacker = zlib.decompressobj(_GZIP) if packed else unpacker
                continue
            block = unpacker.decompress(packed, _BLOCK)
            packed = unpacker.unused_data or unpacker.unconsumed_tail
            parts.append(block)
            size += len(block)
            if size >= _BLOCK:
                yield b"".join(parts)
                parts, size = [], 0
    if not unpacker.eof:
        raise EOFError("the gzip file is cut off")
    if size:
        yield b"".join(parts)


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
