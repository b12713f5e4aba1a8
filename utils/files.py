"""Files that are whole or not there, and errors that are one line.

Every output of the project is written beside its final place and renamed into it, so that a run that is
interrupted, or that meets bad input, leaves what was there before untouched.
"""
import argparse
import contextlib
import fcntl
import glob
import os
import shutil
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class UserError(Exception):
    """Something that the user can mend; the message says what is wrong and what to do, in one line."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line and exit status 1, as all of the project's are."""

    def error(self, message):
        raise UserError("%s; see %s --help" % (message, self.prog))


def run_main(main):
    """Runs `main()` and exits; a `UserError` becomes one line, `error: ...`, and exit status 1."""
    try:
        main()
    except (UserError, OSError) as error:  # OSError: a folder that can't be written, a full disk
        sys.exit("error: %s" % error)  # sys.exit prints a string to standard error and exits with 1
    except KeyboardInterrupt:
        sys.exit(130)


@contextlib.contextmanager
def replacing(path, mode="wb", **open_options):
    """Opens a file beside `path` for writing and renames it to `path` once the block has ended well.

    Where the block raises, the file beside is removed and `path` stays as it was. What killed processes left beside is
    removed as well: they no longer hold its lock.
    """
    path = os.path.abspath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    prefix, suffix = ".%s." % os.path.basename(path), ".part"
    for left in glob.glob(os.path.join(glob.escape(os.path.dirname(path)), glob.escape(prefix) + "*" + suffix)):
        with contextlib.suppress(OSError), open(left) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.remove(left)
    handle, beside = tempfile.mkstemp(suffix, prefix, os.path.dirname(path))
    try:
        with open(handle, mode, **open_options) as output:
            fcntl.flock(output, fcntl.LOCK_EX)
            yield output
            output.flush()
            os.fsync(output.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(beside)
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def dated_folder(folder):
    """Makes `folder_<date>`, a new folder; returns its path."""
    dated = unused = "%s_%s" % (folder, time.strftime("%Y-%m-%d_%H-%M-%S"))
    count = 1
    while os.path.exists(unused):
        count += 1
        unused = "%s_%d" % (dated, count)
    os.makedirs(unused)
    return unused


def set_aside(paths, folder):
    """Moves those of `paths` that exist into `folder_<date>`, a new folder; returns its path, or None if there were none."""
    paths = [path for path in paths if os.path.lexists(path)]
    if not paths:
        return None
    aside = dated_folder(folder)
    for path in paths:
        shutil.move(path, aside)
    return aside
