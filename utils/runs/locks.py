"""Locks on files, which keep other processes out of a folder; a lock ends with its process, however that ends.

    python utils/runs/locks.py FILE COMMAND [ARGUMENT ...]    runs a command that holds the lock, as do its children
"""
import contextlib
import fcntl
import hashlib
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from utils.files import UserError, make_folder, run_main, write_line, writing

PATIENCE = 10  # seconds in which the children of a killed process come to their end, too


def acquire(path):
    """Takes the lock `path`, a file, which then names this process; returns the open file, which holds it.

    Raises UserError where another process holds it, or it can't be written. Where the named process is gone, its
    children, which hold the lock too, are given PATIENCE to end: a killed command can be started again at once.
    On a file system without locks the lock is one of this machine alone, or none where its temporary folder has none
    either, of which a warning says so.
    """
    folder = os.path.dirname(path) or "."
    make_folder(folder)
    with writing(path):
        file = _open(path)
    has_lock = _has_lock(file)
    if file.name != path or has_lock is None:
        write_line("warning: the file system of %s has no locks; start nothing else there%s"
                   % (folder, "" if has_lock is None else " from another machine"))
    deadline = time.monotonic() + PATIENCE
    while has_lock is False:
        file.seek(0)
        holder = file.read().strip()
        runs = _runs(holder)
        if runs or time.monotonic() > deadline:
            file.close()
            raise UserError("process %s is at work in %s; wait until it has ended" % (
                holder if runs else "%s is gone, but one that it started" % holder, folder))
        time.sleep(0.02)
        has_lock = _has_lock(file)
    with writing(path):
        file.truncate(0)
        file.write("%d\n" % os.getpid())
        file.flush()
    return file


def _open(path):
    """Opens the lock `path`, or on a file system without locks one for it in this machine's temporary folder."""
    file = open(path, "a+")
    if _has_lock(file) is None:  # Lustre and some NFS, as they are often mounted
        file.close()
        digest = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()
        place = os.path.join(tempfile.gettempdir(), "%d-%s.lock" % (os.getuid(), digest))
        return open(os.open(place, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600), "a+")
    return file


def _has_lock(file):
    """Takes the lock of an open file where nobody holds it; returns whether it is taken, None where it has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None


def _runs(process_id):
    try:
        os.kill(int(process_id), 0)
    except (ProcessLookupError, ValueError, OverflowError):  # gone, or it has not written its number yet
        return False
    except PermissionError:  # another user's
        pass
    return True


@contextlib.contextmanager
def waited_for(path):
    """Holds the lock `path` for the block, after its present holder; none in a folder that is read-only."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fcntl.flock(stack.enter_context(_open(path)), fcntl.LOCK_EX)
        yield


def main():
    if len(sys.argv) < 3:
        raise UserError("usage: locks.py FILE COMMAND [ARGUMENT ...]")
    lock = acquire(sys.argv[1])
    os.set_inheritable(lock.fileno(), True)
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    run_main(main)
