"""Pickles that hold data and nothing else.

A pickle may name any function and have it called while it is read, and these files are passed around.
`load_parts` admits only the contents of the project's files and the original's: NumPy arrays, pandas frames, tuples,
lists, dictionaries, strings and numbers. Anything else is refused before it runs. The stand-ins for NumPy's own
functions make arrays of plain types and of the size of their data: NumPy's would reserve any memory that they are
asked for, and believe a type that calls numbers pointers.
"""
import pickle
import re
import sys

import numpy as np

from utils.files import UserError, replacing


class _Type:
    """A dtype as pickles write it: its code, then a state with its byte order."""

    def __init__(self, code, align=False, copy=False):
        if not re.match(r"([biufM]\d{0,2}|U\d{1,6}|S\d{1,6}|O8?)$", code):
            raise pickle.UnpicklingError("it holds an array of type %.20s" % code)
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        order = state[1]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("it holds an array of a type with parts")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """An array as pickles write it: empty, then a state with its shape, type and data."""

    def __setstate__(self, state):
        _, shape, kind, column_major, data = state
        element = 1 if kind.dtype == object else kind.dtype.itemsize  # data: a list of objects, or bytes
        if type(shape) is not tuple or any(type(length) is not int or length < 0 for length in shape) or (
                len(data) != element * np.prod(np.array(shape, object))):
            raise pickle.UnpicklingError("it holds an array whose data are not of its size")
        super().__setstate__((1, shape, kind.dtype, bool(column_major), data))


def _plain(part):
    """Returns `part` with NumPy's arrays for `_Array`s: for itself, in a dictionary, or among its elements."""
    if isinstance(part, _Array):
        return part.view(np.ndarray)
    if type(part) is dict:
        return {name: _plain(value) for name, value in part.items()}
    if type(part) in (list, tuple) and any(isinstance(element, _Array) for element in part):
        return type(part)(map(_plain, part))
    return part


def _encode(text, encoding):
    if encoding != "latin1":  # how bytes are written in protocol 2
        raise pickle.UnpicklingError("it holds text in %.20s" % encoding)
    return text.encode(encoding)


_ADMITTED = {  # (module, name) of all that a file may name: its stand-in, or None where it stands for itself
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): "ndarray",
    ("numpy.core.multiarray", "_reconstruct"): lambda kind, shape, code: np.ndarray.__new__(_Array, (0,), "b"),
    ("numpy.core.multiarray", "scalar"): lambda kind, data: np.frombuffer(data, kind.dtype).reshape(())[()],
    ("numpy.core.numeric", "_frombuffer"):
        lambda data, kind, shape, order: np.frombuffer(data, kind.dtype).reshape(shape, order=order),
    ("_codecs", "encode"): _encode,
    ("builtins", "bytearray"): lambda data=b"": bytearray(memoryview(data)),  # a number would be a size to reserve
    ("pandas", "DataFrame"): None,
    ("pandas.core.frame", "DataFrame"): None,
    ("pandas", "Categorical"): None,
    ("pandas.core.arrays.categorical", "Categorical"): None}


class _DataUnpickler(pickle.Unpickler):
    """An unpickler that resolves only the names in `_ADMITTED`, DataFrame to `frame` where that is given."""

    def __init__(self, file, frame):
        super().__init__(file)
        self._frame = frame

    def find_class(self, module, name):
        module = module.replace("numpy._core.", "numpy.core.")  # NumPy 2 renamed a package
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError("it names %s.%s, which these files do not hold" % (module, name))
        if name == "DataFrame":
            frame = self._frame or super().find_class(module, name)
            return lambda columns: frame(_plain(columns))
        return _ADMITTED[module, name] or super().find_class(module, name)


def load_parts(path, remedy, frame=None):
    """Returns the list of objects that were dumped one after another into the file `path`.

    `frame` is called with the dictionary of a frame's columns (NumPy arrays), in place of pandas' DataFrame: `dict`
    gives such dictionaries, and spares the import of pandas, 0.3 s.
    Raises `UserError` where the file is missing, damaged, or holds anything but data; `remedy` ends its message and
    says in the imperative how the file is made.
    """
    parts = []
    try:
        with open(path, "rb") as file:
            while file.peek(1):
                parts.append(_plain(_DataUnpickler(file, frame).load()))
    except FileNotFoundError:
        raise UserError("%s not found; %s" % (path, remedy)) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError("%s can't be read (%s); %s" % (path, reason, remedy)) from None
    return parts


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
