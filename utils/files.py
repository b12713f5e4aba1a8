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


def unwritable(path, error):
    """The UserError for `error`, what writing `path` raised, or a text that says why it failed."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return UserError("%s can't be written (%s); make room there, or choose another folder" % (path, reason))


def make_folder(path):
    """Makes the folder `path` where it is not there yet; raises UserError where it can't be."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line and exit status 1, as all of the project's are."""

    def error(self, message):
        raise UserError("%s; see %s --help" % (message, self.prog))


def run_main(main):
    """Runs `main()` and exits; a `UserError` becomes one line, `error: ...`, and exit status 1."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # who read the output has left, as `head` does; what is left of it must not be tried again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (UserError, OSError) as error:  # OSError: a folder that can't be written, a full disk
        sys.exit("error: %s" % error)  # sys.exit prints a string to standard error and exits with 1
    except KeyboardInterrupt:
        sys.exit(130)


@contextlib.contextmanager
def replacing(path, mode="wb", **open_options):
    """Opens a file beside `path` for writing and renames it to `path` once the block has ended well.

    Where the block raises, the file beside is removed and `path` stays as it was. What killed processes left beside is
    removed as well: they no longer hold its lock.

    Raises:
      UserError: it can't be written.
    """
    path = os.path.abspath(path)
    make_folder(os.path.dirname(path))
    try:
        handle, beside = _open_beside(path)
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        with open(handle, mode, **open_options) as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.remove(beside)
        if isinstance(error, OSError):
            raise unwritable(path, error) from None
        raise


@contextlib.contextmanager
def replacing_folder(path):
    """Makes a folder beside `path` to write into, which takes the place of `path` once the block has ended well.

    Raises:
      UserError: it can't be written; what was there before stays.
    """
    path = os.path.abspath(path)
    beside, before = (os.path.join(os.path.dirname(path), ".%s.%s" % (os.path.basename(path), kind))
                      for kind in ("part", "before"))
    for left in (beside, before):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    make_folder(os.path.dirname(path))
    try:
        yield beside
        if os.path.exists(path):
            os.rename(path, before)
        os.rename(beside, path)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def _open_beside(path):
    """Makes a locked file beside `path`, and removes those that killed processes left; returns (descriptor, path)."""
    folder, prefix, suffix = os.path.dirname(path), ".%s." % os.path.basename(path), ".part"
    for left in glob.glob(os.path.join(glob.escape(folder), glob.escape(prefix) + "*" + suffix)):
        with contextlib.suppress(OSError), open(left) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.remove(left)
    while True:
        handle, beside = tempfile.mkstemp(suffix, prefix, folder)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, beside
        os.close(handle)  # another process found it before it was locked


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
