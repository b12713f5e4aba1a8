"""Locks on files: who works in a folder keeps others out of it. A lock ends with its process, however that ends.

    python utils/locks.py FILE COMMAND [ARGUMENT ...]    runs a command that holds the lock, as do the processes it starts
"""
import contextlib
import fcntl
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from utils.files import UserError, run_main


def acquire(path):
    """Takes the lock `path`, a file, which then names this process; returns the open file, which holds it.

    Raises:
      UserError: another process holds it.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    file = open(path, "a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise UserError("process %s is at work in %s; wait until it has ended"
                        % (owner, os.path.dirname(path) or ".")) from None
    file.truncate(0)
    file.write("%d\n" % os.getpid())
    file.flush()
    return file


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
