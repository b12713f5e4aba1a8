"""Files that are whole or not there, and errors that are one line. Needs the standard library only.

The project writes each of its files beside the file's final place, and renames it into that place. A run that is
interrupted, or that meets bad input, leaves the earlier file untouched. What is renamed is on the disk by then, so that
this holds for a power cut, too.
"""
import argparse
import contextlib
import errno
import fcntl
import glob
import itertools
import os
import shutil
import stat
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class UserError(Exception):
    """Something that the user can mend; the message says what is wrong and what to do, in one line."""


def unwritable(path, reason):
    """The UserError that says why `path` can't be written; `reason` is the system's text, or has it."""
    lacks_room = any(os.strerror(number) in reason for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    return UserError("%s can't be written (%s); %s" % (
        path, reason, "make room there, or choose another folder" if lacks_room else "choose another place"))


@contextlib.contextmanager
def writing(path, errors=OSError):
    """A context for writing `path`: where it raises one of `errors`, a UserError takes that error's place."""
    try:
        yield
    except errors as error:
        raise unwritable(path, getattr(error, "strerror", None) or str(error).splitlines()[0]) from None


def make_folder(path):
    """Makes the folder `path` where it is not there yet; raises UserError where it can't be made."""
    with writing(path):
        os.makedirs(path, exist_ok=True)


def check_writable(folder):
    """Raises UserError where files can't be made in `folder`, which need not be there yet; leaves nothing there."""
    place = os.path.abspath(folder)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    with writing(folder), tempfile.TemporaryFile(dir=place):
        pass


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line and exit status 1, as all of the project's are."""

    def error(self, message):
        raise UserError("%s; see %s --help" % (message, self.prog))


def write_line(line):
    """Writes `line` to standard error in one piece, so that the lines of processes that share it stay whole.

    print() and sys.exit() write a text and the end of its line apart.
    """
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _fail(message):
    write_line("error: " + message)
    sys.exit(1)


def run_main(main):
    """Runs `main()` and exits; a `UserError` becomes one line, `error: ...`, and exit status 1.

    What in its message would begin another line, such as a name's, is escaped.
    """
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has left, as `head` does; Python must not flush to it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except UnicodeEncodeError as error:
        _fail("%s can't be in a file's name in this locale, whose encoding is %s; set LC_ALL=C.UTF-8"
              % (ascii(error.object[error.start:error.end]), error.encoding))
    except (UserError, OSError) as error:  # OSError: a folder that can't be written, a full disk
        _fail("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(error)))
    except MemoryError:
        _fail("there is not enough memory; give smaller data or batches, or end other programs")
    except ModuleNotFoundError as error:
        _fail("%s; run ./setup.sh, then: source .venv/bin/activate" % error)
    except KeyboardInterrupt:
        sys.exit(130)


@contextlib.contextmanager
def replacing(path, mode="wb", **open_options):
    """Opens a file beside `path` for writing and renames it to `path` once the block has ended well.

    Where the block raises, the file beside is removed and `path` stays as it was. Files beside of killed processes are
    removed as well: nobody holds their locks any more. The new file has the permissions of the one that it replaces. A
    link is followed; what is no file, such as a device or a pipe, is written itself, and so is this process's output.
    Raises UserError where `path` can't be written.
    """
    path = os.path.abspath(path)
    place = os.path.realpath(path)
    make_folder(os.path.dirname(place))
    with writing(path):
        before = _status(path)
        written_itself = _written_itself(path, before)
        if written_itself is not None:
            with open(written_itself, mode, **open_options) as output:
                yield output
            return
        handle, beside = _open_beside(place)
        try:
            with open(handle, mode, **open_options) as output:
                yield output
                output.flush()
                _set_permissions(output.fileno(), before)
                os.fsync(output.fileno())
            os.replace(beside, place)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(beside)
            raise
        sync(os.path.dirname(place))


def _status(path):
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _written_itself(path, before):
    """What to open where `path`, of the os.stat `before`, is not to be replaced: a descriptor, or the path; else None.

    The descriptor is a copy of that of this process's output, where `path` is that, as /dev/stdout is.
    """
    if before is None:
        return None
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream that has no descriptor
            if os.path.samestat(before, os.fstat(stream.fileno())):
                stream.flush()
                return os.dup(stream.fileno())
    return None if stat.S_ISREG(before.st_mode) else path


def _set_permissions(file, before):
    """Gives the open `file` those of a file that is new, or of the one that it replaces, of the os.stat `before`."""
    if before is None:
        mask = os.umask(0)  # it can't be read without setting it
        os.umask(mask)
        permissions = 0o666 & ~mask
    else:
        permissions = before.st_mode & 0o777
        for owners in ((before.st_uid, -1), (-1, before.st_gid)):
            with contextlib.suppress(PermissionError):
                os.fchown(file, *owners)
        if os.fstat(file).st_gid != before.st_gid:
            permissions &= ~0o070  # they were another group's
    os.fchmod(file, permissions)


def sync(path):
    """Sees to it that a file, or the list of a folder's files, is on the disk, not in memory alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP):  # not all file systems have it
            raise
    finally:
        os.close(descriptor)


def sync_all(folder):
    """Sees to it that `folder` with all that is in it is on the disk, not in memory alone."""
    for inner, _, names in os.walk(folder):
        for name in names:
            sync(os.path.join(inner, name))
        sync(inner)


@contextlib.contextmanager
def new_folder(path):
    """Yields the path of a folder for the block to make, which becomes `path` once the block has ended well.

    Raises UserError where the folder can't be written, or `path` is there already; what is there stays.
    """
    path = os.path.abspath(path)
    beside = os.path.join(os.path.dirname(path), ".%s.part" % os.path.basename(path))
    shutil.rmtree(beside, ignore_errors=True)  # of a killed process
    make_folder(os.path.dirname(path))
    with writing(path):
        try:
            yield beside
            sync_all(beside)
            os.rename(beside, path)  # which fails where a folder with files is there
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        sync(os.path.dirname(path))


def _open_beside(path):
    """Makes a locked file beside `path`, and removes those that killed processes left; returns (descriptor, path)."""
    folder, prefix, suffix = os.path.dirname(path), ".%s." % os.path.basename(path), ".part"
    for remnant in glob.glob(os.path.join(glob.escape(folder), glob.escape(prefix) + "*" + suffix)):
        with contextlib.suppress(OSError), open(remnant, "ab") as file:  # NFS locks what may be written alone
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.remove(remnant)
    while True:
        handle, beside = tempfile.mkstemp(suffix, prefix, folder)
        with contextlib.suppress(OSError):  # a file system without locks, where remnants stay
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, beside
        os.close(handle)  # another process took it for a killed one's, before it was locked


@contextlib.contextmanager
def plain_path(folder):
    """Yields a path of `folder` for TensorFlow, which takes paths for patterns and for UTF-8: a link where need be.

    A checkpoint in `x[1]` is written there, but not found when it is to be restored.
    """
    folder = os.path.abspath(folder)
    try:
        folder.encode("utf-8")
        is_plain = not set(folder) & set("*?[\\")
    except UnicodeEncodeError:
        is_plain = False
    if is_plain:
        yield folder
    else:
        with tempfile.TemporaryDirectory() as links:
            link = os.path.join(links, "folder")
            os.symlink(folder, link)
            yield link


def dated_folder(folder):
    """Makes `folder_<date>`, a new folder with the permissions of `folder`; returns its path."""
    dated = "%s_%s" % (folder, time.strftime("%Y-%m-%d_%H-%M-%S"))
    names = itertools.chain([dated], ("%s_%d" % (dated, number) for number in itertools.count(2)))
    path = next(name for name in names if not os.path.exists(name))
    os.makedirs(path)
    if os.path.isdir(folder):
        shutil.copymode(folder, path)
    return path


def set_aside(paths, folder):
    """Moves those of `paths` that exist into a new `folder_<date>`; returns its path, or None where none exists."""
    paths = [path for path in paths if os.path.lexists(path)]
    if not paths:
        return None
    aside = dated_folder(folder)
    for path in paths:
        shutil.move(path, aside)
    return aside
