"""Locks on files: who works in a folder keeps others out of it. A lock ends with its process, however that ends.

    python utils/runs/locks.py FILE COMMAND [ARGUMENT ...]    runs a command that holds the lock, as do the processes it starts
"""
import contextlib
import fcntl
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from utils.files import UserError, make_folder, run_main, unwritable

PATIENCE = 10  # seconds in which what a killed process started comes to its end, too


def acquire(path):
    """Takes the lock `path`, a file, which then names this process; returns the open file, which holds it.

    Where the process that it names is gone, those it started, which hold the lock too, are given PATIENCE to end: a
    command that was killed can be started again at once.

    Raises:
      UserError: another process holds it, or it can't be written.
    """
    make_folder(os.path.dirname(os.path.abspath(path)))
    try:
        file = open(path, "a+")
    except OSError as error:
        raise unwritable(path, error) from None
    given_up = time.monotonic() + PATIENCE
    while not _taken(file):
        file.seek(0)
        owner = file.read().strip()
        runs = _runs(owner)
        if runs or time.monotonic() > given_up:
            file.close()
            raise UserError("process %s is at work in %s; wait until it has ended" % (
                owner if runs else "%s is gone, but one that it started" % owner, os.path.dirname(path) or "."))
        time.sleep(0.02)
    try:
        file.truncate(0)
        file.write("%d\n" % os.getpid())
        file.flush()
    except OSError as error:
        raise unwritable(path, error) from None
    return file


def _taken(file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _runs(process_id):
    try:
        os.kill(int(process_id), 0)
    except (ProcessLookupError, ValueError, OverflowError):  # gone, or it has not written its name yet
        return False
    except PermissionError:  # it is someone else's
        pass
    return True


@contextlib.contextmanager
def waited_for(path):
    """Holds the lock `path` for the block, once whoever else holds it is through; none in a folder that is read-only."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fcntl.flock(stack.enter_context(open(path, "a")), fcntl.LOCK_EX)
        yield


def main():
    if len(sys.argv) < 3:
        raise UserError("usage: locks.py FILE COMMAND [ARGUMENT ...]")
    lock = acquire(sys.argv[1])
    os.set_inheritable(lock.fileno(), True)
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    run_main(main)
