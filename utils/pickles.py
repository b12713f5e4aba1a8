"""Pickles that hold data and nothing else.

A pickle may name any function and have it called while it is read, and these files are passed around.
`load_parts` admits only what the project's files and the original's hold: NumPy arrays, pandas frames, tuples,
lists, dictionaries, strings and numbers. Anything else is refused before it runs.
"""
import copyreg
import pickle
import sys

import numpy as np

from utils.files import UserError, replacing

# NumPy 2 renamed a package; a file written under one is read under the other.
_CORE, _OTHER_CORE = ("numpy.core", "numpy._core") if np.__version__ < "2" else ("numpy._core", "numpy.core")

# (module, name) of all that a file may name, with this NumPy's own name of the package.
_ADMITTED = {
    ("numpy", "dtype"), ("numpy", "ndarray"),
    (_CORE + ".multiarray", "_reconstruct"), (_CORE + ".multiarray", "scalar"), (_CORE + ".numeric", "_frombuffer"),
    ("_codecs", "encode"),
    ("builtins", "bytearray"),
    ("pandas", "DataFrame"), ("pandas.core.frame", "DataFrame"),
    ("pandas", "Categorical"), ("pandas.core.arrays.categorical", "Categorical"),
}


class _DataUnpickler(pickle.Unpickler):
    """An unpickler that resolves only the names in `_ADMITTED`, DataFrame to `frame` where that is given."""

    def __init__(self, file, frame):
        super().__init__(file)
        self._frame = frame

    def find_class(self, module, name):
        if module.startswith(_OTHER_CORE + "."):
            module = _CORE + module[len(_OTHER_CORE):]
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError("it names %s.%s, which these files do not hold" % (module, name))
        if name == "DataFrame" and self._frame:
            return self._frame
        return super().find_class(module, name)


def load_parts(path, remedy, frame=None):
    """Returns the list of objects that were dumped one after another into the file `path`.

    `frame` is called with the dictionary of a frame's columns (NumPy arrays), in place of pandas' DataFrame; where it
    is `dict`, frames come as such dictionaries, and pandas, which takes 0.3 s to import, is not needed.

    `remedy` says in the imperative how the file is made; it ends the message of the `UserError` raised where the
    file is missing, damaged, or holds anything but data.
    """
    parts = []
    try:
        with open(path, "rb") as file:
            while file.peek(1):
                parts.append(_DataUnpickler(file, frame).load())
    except FileNotFoundError:
        raise UserError("%s not found; %s" % (path, remedy)) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError("%s can't be read (%s); %s" % (path, reason, remedy)) from None
    return parts


def dump_parts(path, parts):
    """Dumps the objects `parts` one after another into the file `path`, which is replaced when all are written.

    A frame (default index only) is written as its constructor called with its columns, since what pandas itself
    writes names parts of its inside that other versions lack.
    """
    pandas = sys.modules.get("pandas")  # where it is not imported, no part is a frame, and none need wait for it

    with replacing(path) as file:
        for part in parts:
            pickler = pickle.Pickler(file, protocol=4)  # the newest that Python 3.7 reads
            pickler.dispatch_table = dict(copyreg.dispatch_table)
            if pandas:
                pickler.dispatch_table[pandas.DataFrame] = _reduce_frame
                pickler.dispatch_table[pandas.Categorical] = _reduce_categorical
            pickler.dump(part)


def _reduce_frame(frame):
    if not np.array_equal(frame.index, np.arange(len(frame))):
        raise ValueError("only a frame with the default index can be written")
    columns = {name: frame[name].array for name in frame.columns}
    return type(frame), ({name: values if hasattr(values, "codes") else np.asarray(values)
                          for name, values in columns.items()},)


def _reduce_categorical(categorical):
    if (categorical.codes < 0).any():
        raise ValueError("only a column without missing values can be written")
    labels = np.asarray(categorical.categories, dtype=object)
    values = labels[categorical.codes]  # one object per label, so that the pickle holds each text once
    return type(categorical), (values, labels, bool(categorical.ordered))
