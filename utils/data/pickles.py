"""Pickles that hold data and nothing else, and that take memory by their size.

A pickle may name any function and have it called while it is read, and these files are passed around.
`load_parts` admits only the contents of the project's files and the original's: NumPy arrays of one axis, pandas
frames, tuples, lists, dictionaries, strings and numbers. Anything else is refused before it runs.

Stand-ins take the place of arrays and frames until a part is read: NumPy's own functions would reserve any memory that
they are asked for, and believe a type that calls numbers pointers. What the stand-ins copy is counted, since a few
bytes are enough to have one array copied again and again.
"""
import mmap
import os
import pickle
import re
import sys

import numpy as np

from utils.files import UserError, replacing

BYTES_MADE = 16  # at most by the stand-ins for a byte of the file; a column of few texts takes as many
FREE_BYTES = 1 << 20  # that they may make for any file
OBJECT_BYTES, COLUMN_BYTES = 40, 4000  # about, of a small object and of an empty column of a frame
REASON_LENGTH = 200  # characters: an error may quote what is in the file


def reason_of(error):
    """What `error` says, as one line."""
    text = "not enough memory" if isinstance(error, MemoryError) else " ".join(str(error).split())
    return text[:REASON_LENGTH] or type(error).__name__


# ---- instructions ----------------------------------------------------------------------------------------------------

# Up to 1,000 instructions (more at once would take memory themselves) that are good whatever comes before: with an
# argument of 4, 1, 2 or 8 bytes; without one; short texts; with an argument that ends with its line.
_PLAIN = re.compile(rb"""(?xs)(?: [jJ].{4} | [hKq\x80]. | M.. | G.{8} | [().012NRabdelstu\]}\x81\x85-\x89\x93\x94]
    | \x8c (?: %b ) | [ILF][^\n]{0,40}\n | [VSg][^\n]*\n | c[^\n]*\n[^\n]*\n ){1,1000}"""
                    % b"|".join(b"\\x%02x.{%d}" % (length, length) for length in range(32)))
_COUNTED = {b"U": 1, b"C": 1, b"\x8a": 1, b"\x8c": 1, b"T": 4, b"X": 4, b"B": 4, b"\x8d": 8, b"\x8e": 8, b"\x96": 8}
_PLACE = re.compile(rb"(?s)r(.{4})|p([0-9]{1,10})\n")  # where in its memory the unpickler is to put an object
_FRAME = b"\x95"  # with the length of what follows, which is instructions again


def _check_instructions(data):
    """Raises UnpicklingError where the pickles in `data` have instructions for which an unpickler would reserve memory.

    Texts and bytes longer than the file, places far away in its memory, numbers of many digits. And sets, which are
    200 bytes for one of the file. These files need none of them.
    """
    position, size = 0, len(data)
    while position < size:
        plain = _PLAIN.match(data, position)
        if plain:
            position = plain.end()
            continue
        instruction = data[position:position + 1]
        place = _PLACE.match(data, position)
        if place and (int.from_bytes(place.group(1), "little") if place.group(1) else int(place.group(2))) <= size:
            position = place.end()
            continue
        width = 8 if instruction == _FRAME else _COUNTED.get(instruction)
        if width is None:
            raise pickle.UnpicklingError("it has an instruction that these files do not need, at byte %d" % position)
        length = int.from_bytes(data[position + 1:position + 1 + width], "little")
        position += 1 + width
        if position + length > size:
            raise pickle.UnpicklingError("pickle data was truncated")
        position += length if instruction != _FRAME else 0


# ---- stand-ins; `spend` is given the number of bytes that are about to be made ---------------------------------------

class _Type:
    """A dtype as pickles write it: its code, then a state with its byte order."""
    __slots__ = ("dtype",)

    def __init__(self, spend, code, align=False, copy=False):
        spend(OBJECT_BYTES)
        if not re.match(r"([biuf]\d{1,2}|O8?)$", code):
            raise pickle.UnpicklingError("it holds an array of type %.20s" % code)
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        order = state[1]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("it holds an array of a type with parts")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array as pickles write it: empty, then a state with its shape, type and data. `array` is None before."""
    __slots__ = ("_spend", "array")

    def __init__(self, spend, kind, shape, code):
        spend(3 * OBJECT_BYTES)
        self._spend, self.array = spend, None

    def __setstate__(self, state):
        _, shape, kind, _, data = state
        is_objects = kind.dtype == object
        if self.array is not None or type(data) is not (list if is_objects else bytes):
            raise pickle.UnpicklingError("it holds an array whose data are not of its type")
        _check_shape(shape, len(data), 1 if is_objects else kind.dtype.itemsize)
        self._spend(len(data) * (8 if is_objects else 1))
        array = np.ndarray((0,), "b")
        array.__setstate__((1, shape, kind.dtype, False, data))
        self.array = array


def _check_shape(shape, size, element):
    """Raises UnpicklingError unless `shape` is one axis of elements of `element` bytes, `size` bytes together."""
    if type(shape) is not tuple or list(map(type, shape)) != [int] or shape[0] * element != size:
        raise pickle.UnpicklingError("it holds an array whose data are not of its size, or not of one axis")


def _array_of_buffer(spend, data, kind, shape, order):
    _check_shape(shape, len(data), kind.dtype.itemsize)
    array = _Array(spend, None, None, None)
    array.array = np.frombuffer(data, kind.dtype)
    return array


def _scalar(spend, kind, data):
    spend(OBJECT_BYTES)
    _check_shape((1,), len(data), kind.dtype.itemsize)
    return np.frombuffer(data, kind.dtype)[0]


def _encoded(spend, text, encoding):
    if encoding != "latin1":  # how bytes are written in protocol 2
        raise pickle.UnpicklingError("it holds text in %.20s" % encoding)
    spend(len(text) + OBJECT_BYTES)
    return text.encode(encoding)


def _bytearray(spend, data=b""):
    spend(len(data) + OBJECT_BYTES)  # a number has no length: it would be a size to reserve
    return bytearray(data)


class _Final:
    """What a file can't change once it is made."""

    def __setstate__(self, state):
        raise pickle.UnpicklingError("it changes a frame, or a column of one")


class _Categorical(_Final):
    """A column of texts, `labels` the distinct ones: both an `_Array` of objects."""

    def __init__(self, spend, values, labels, ordered=False):
        _check_columns([values, labels])
        spend(8 * len(values.array) + COLUMN_BYTES)
        if any(set(map(type, column.array.tolist())) - {str} for column in (values, labels)):
            raise pickle.UnpicklingError("it holds a column of labels that are not all texts")
        import pandas  # not above: 0.3 s, and most files hold no such column

        self.array = pandas.Categorical(values.array, labels.array, bool(ordered))


class _Frame(_Final):
    """A frame as its constructor is called, with its columns: each an `_Array` or a `_Categorical`."""

    def __init__(self, spend, columns):
        _check_columns(columns.values())
        self.columns = {name: column.array for name, column in columns.items()}
        if len(set(map(len, self.columns.values()))) > 1:
            raise pickle.UnpicklingError("it holds a frame whose columns differ in length")
        spend(sum(column.nbytes + COLUMN_BYTES for column in self.columns.values()))


def _check_columns(columns):
    if not all(type(column) in (_Array, _Categorical) and column.array is not None for column in columns):
        raise pickle.UnpicklingError("it holds a frame whose columns are no arrays")


_NDARRAY = "ndarray"  # names the kind of an array, and is not called
_ADMITTED = {  # (module, name) of all that a file may name: its stand-in
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array_of_buffer,
    ("_codecs", "encode"): _encoded,
    ("builtins", "bytearray"): _bytearray,
    ("pandas", "DataFrame"): _Frame,
    ("pandas.core.frame", "DataFrame"): _Frame,
    ("pandas", "Categorical"): _Categorical,
    ("pandas.core.arrays.categorical", "Categorical"): _Categorical}


class _DataUnpickler(pickle.Unpickler):
    """An unpickler that resolves only the names in `_ADMITTED`, to their stand-ins."""

    def __init__(self, file, spend):
        super().__init__(file)
        self._spend = spend

    def find_class(self, module, name):
        module = module.replace("numpy._core.", "numpy.core.")  # NumPy 2 renamed a package
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError("it names %.200s.%.200s, which these files do not hold" % (module, name))
        stand_in = _ADMITTED[module, name]
        if stand_in is _NDARRAY:
            return stand_in
        return lambda *arguments: stand_in(self._spend, *arguments)  # a file could change a class, or a partial


class _Allowance:
    """The bytes that the stand-ins may make for a file of `size` bytes."""

    def __init__(self, size):
        self._left = FREE_BYTES + BYTES_MADE * size

    def spend(self, count):
        """Takes `count` of them; raises UnpicklingError where they are not there any more."""
        self._left -= count
        if self._left < 0:
            raise pickle.UnpicklingError("it asks for more memory than a file of its size may")


def _plain(part, frame):
    """Returns `part` with arrays and frames for their stand-ins: arrays also in a dictionary, or among its elements."""
    if type(part) is _Frame:
        return frame(part.columns)
    if type(part) is dict:
        return {name: _array_of(value) for name, value in part.items()}
    if type(part) in (list, tuple) and _Array in set(map(type, part)):
        return type(part)(map(_array_of, part))
    return _array_of(part)


def _array_of(value):
    return value.array if type(value) is _Array else value


def _pandas_frame(columns):
    import pandas  # not above: 0.3 s, and who asks for columns needs none

    return pandas.DataFrame(columns)


def load_parts(path, remedy, frame=_pandas_frame):
    """Returns the list of objects that were dumped one after another into the file `path`.

    `frame` is called with the dictionary of a frame's columns (NumPy arrays), in place of pandas' DataFrame: `dict`
    gives such dictionaries, and spares the import of pandas, 0.3 s.
    Raises `UserError` where the file is missing, damaged, or holds anything but data; `remedy` ends its message and
    says in the imperative how the file is made.
    """
    parts = []
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for ever
            raise OSError("it is no file")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    _check_instructions(data)
            allowance = _Allowance(size)
            while file.peek(1):
                parts.append(_plain(_DataUnpickler(file, allowance.spend).load(), frame))
    except FileNotFoundError:
        raise UserError("%s not found; %s" % (path, remedy)) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError("%s can't be read (%s); %s" % (path, reason_of(error), remedy)) from None
    return parts


def source_of(path):
    """Returns what a remap.pkl or a dataset.pkl says of the data that it was made from, its fifth part.

    None where there is no such file, where it is damaged, or where it does not say.
    """
    try:
        parts = load_parts(path, "", frame=dict)
    except UserError:
        return None
    return parts[4] if len(parts) > 4 and type(parts[4]) is dict and "md5" in parts[4] else None


def dump_parts(path, parts):
    """Dumps the objects `parts` one after another into the file `path`, which is replaced when all are written.

    A frame (default index only) is written as its constructor called with its columns, since a pickle of pandas' own
    names internals that other versions lack.
    """
    pandas = sys.modules.get("pandas")  # where it is not imported, no part is a frame, so it need not be
    reducers = {pandas.DataFrame: _reduce_frame, pandas.Categorical: _reduce_categorical} if pandas else {}
    with replacing(path) as file:
        for part in parts:
            pickler = pickle.Pickler(file, protocol=4)  # the newest that Python 3.7 reads
            pickler.dispatch_table = reducers
            pickler.dump(part)


def _reduce_frame(frame):
    if not np.array_equal(frame.index, np.arange(len(frame))):
        raise ValueError("only a frame with the default index can be written")
    columns = {name: column.array if hasattr(column, "cat") else column.to_numpy() for name, column in frame.items()}
    return type(frame), (columns,)


def _reduce_categorical(categorical):
    if (categorical.codes < 0).any():
        raise ValueError("only a column without missing values can be written")
    labels = np.asarray(categorical.categories, dtype=object)
    values = labels[categorical.codes]  # one object per label, so that the pickle holds each text once
    return type(categorical), (values, labels, bool(categorical.ordered))
