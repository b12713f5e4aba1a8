"""Which test users a run ranked right, kept for a test over users (reports/statistics.py).

In memory and in state.json they are a text, a bit a user; in a folder of results a file outcomes/<name>.npz, with the
array `right`, bool [U], in the order of the test set. The name is a digest of the content, which the CSVs have.
"""
import base64
import hashlib
import os

import numpy as np

from utils.files import UserError, make_folder, replacing
from utils.results import OUTCOMES


def outcomes_of(scores):
    """The outcomes, a text, of `scores` [U, 2], of each user's positive and negative."""
    return _text(scores[:, 0] > scores[:, 1])


def _text(right):
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def are_outcomes(text):
    """Whether `text` may be what `outcomes_of` returns, or is empty."""
    try:
        return base64.b64encode(base64.b64decode(text)).decode() == text
    except ValueError:
        return False


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def store_outcomes(results, text, users):
    """Writes the outcomes `text` of so many users into the folder `results`; returns the name for the CSVs."""
    folder, name = os.path.join(results, OUTCOMES), _digest(text)
    make_folder(folder)
    right = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))[:users].astype(bool)
    with replacing(os.path.join(folder, name + ".npz")) as file:
        np.savez_compressed(file, right=right)
    return name


def read_outcomes(results, name):
    """The outcomes, bool [U], that the CSVs in the folder `results` call `name`; None where their file is not there.

    Raises:
      UserError: the file is damaged.
    """
    path = os.path.join(results, OUTCOMES, name + ".npz")
    if not name or not os.path.exists(path):
        return None
    try:
        with np.load(path) as arrays:
            right = arrays["right"]
        if not (right.dtype == bool and right.ndim == 1 and _digest(_text(right)) == name):
            raise ValueError("it has other outcomes than its name says")
        return right
    except Exception as error:  # NumPy and zipfile raise a dozen kinds
        raise UserError("%s can't be read (%s); move it away" % (path, error)) from None
