"""The lines of the log: above the progress bar where there is one, and written out at once, since people tail it."""
import sys

from tqdm import tqdm


def log(line):
    """Prints a line of the log."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def warn(what):
    """Prints a warning to standard error."""
    tqdm.write("warning: %s\n" % what, file=sys.stderr, end="")  # in one piece, as files.write_line does
