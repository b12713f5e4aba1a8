"""A trial of a hyperparameter search (utils/search.py): a train.py with a process and a folder of its own.

    <folder>/state.json, latest.*, ckpt.*   as train.py leaves them; state.json has the curve, on the validation set
    <folder>/log.txt                        its output
    <folder>/error.txt                      where it failed: why, a line

What a trial has come to is read from these files, so a search that was interrupted needs nothing else to go on. A trial
whose folder is deleted starts anew.
"""
import os
import signal
import subprocess
import sys

from utils.files import ROOT, UserError, make_folder, replacing
from utils.reports.names import one_line
from utils.results import MACHINE
from utils.runs.checkpoints import Checkpoints
from utils.runs.identity import check_state, columns_of, fresh_state, with_what_earlier_versions_lack

KILLED = "killed by signal"
INTERRUPTED = 130, -signal.SIGINT  # statuses of a process that Ctrl-C ended


def run_process(command, folder, log_path, lock):
    """Runs `command` in `folder`, its output at the end of the file `log_path`; returns why it failed, else None.

    The process holds the lock, an open file, too: where this process is killed, nobody else takes it before the other
    has ended. An exception in this process, such as Ctrl-C's, ends the other first.
    """
    with open(log_path, "ab+") as log_file:
        begin = log_file.seek(0, os.SEEK_END)
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log_file,
                                   stderr=subprocess.STDOUT, pass_fds=[lock.fileno()])
        try:
            status = process.wait()
        finally:
            process.kill()  # which does nothing where it has ended
            process.wait()
        log_file.seek(begin)
        lines = log_file.read().decode("utf-8", "replace").splitlines()
    if status in INTERRUPTED:
        raise KeyboardInterrupt
    if status < 0:
        return "%s %d" % (KILLED, -status)
    return _last_error(lines, status) if status else None


def _last_error(lines, status):
    """The error that the output of a process with an exit status of failure ends with, a line."""
    lines = [line for line in lines if line.strip()]
    errors = [line[len("error: "):] for line in lines if line.startswith("error: ")]
    return one_line((errors or lines or ["exit status %d" % status])[-1])


class Trial:
    """The trial `number` of a search, in `folder`; an epoch has so many `examples`.

    Attributes: `number`; `flags`, {column of results.SEARCH_COLUMNS: value}; `folder`; `error`, why it failed, else "";
    `curve`, its points of results.POINT after training began; `machine`, {column of results.MACHINE: text}.
    """

    def __init__(self, number, flags, folder, examples):
        self.number, self.flags, self.folder, self._examples = number, flags, folder, examples
        self.read()

    def read(self):
        """Reads from the folder what the trial has come to; raises UserError where the files there are damaged."""
        self.error, self.curve, self.machine = "", [], dict.fromkeys(MACHINE, "")
        try:
            with open(self._path("error.txt"), encoding="utf-8", errors="replace") as file:
                self.error = one_line(file.read().strip())
        except FileNotFoundError:
            pass
        try:
            saved = Checkpoints(self.folder, None).state()
            if saved:
                saved = with_what_earlier_versions_lack(saved)
                check_state(saved, fresh_state(), self.folder)
        except (UserError, UnicodeDecodeError):
            raise UserError("the files of trial %d in %s are damaged; delete that folder, and the trial starts anew"
                            % (self.number, self.folder)) from None
        if saved:
            self.curve = [point for point in saved["curve"] if point["step"]]
            self.machine = {column: columns_of(saved["run"]["parts"])[column] for column in MACHINE}

    def _path(self, name):
        return os.path.join(self.folder, name)

    @property
    def log_path(self):
        return self._path("log.txt")

    @property
    def epochs(self):
        """How many whole epochs it has been trained."""
        return self.curve[-1]["recommendations"] // self._examples if self.curve else 0

    def _points(self, epochs):
        return [point for point in self.curve if point["recommendations"] <= epochs * self._examples]

    def is_inside_an_epoch(self):
        """Whether its latest evaluation was before the end of an epoch."""
        return self.is_beyond(self.epochs)

    def is_beyond(self, epochs):
        """Whether it has been trained for more than so many epochs."""
        return len(self._points(epochs)) < len(self.curve)

    def best(self, epochs):
        """The point with the highest validation GAUC of its first epochs; None unless it has done them all."""
        return max(self._points(epochs), key=lambda point: point["gauc"]) if 0 < epochs <= self.epochs else None

    def row(self):
        """Its columns of results.SEARCH_COLUMNS, as far as it knows them: figures as the CSVs have them.

        They are of the whole epochs that it has done. One that failed has no figures.
        """
        row = dict(self.flags, trial=self.number, epochs=self.epochs, error=self.error, **self.machine)
        best = None if self.error else self.best(self.epochs)
        if best is None:
            return row
        last = self._points(self.epochs)[-1]
        return dict(row, steps=last["step"], recommendations=last["recommendations"], seconds="%.3f" % last["seconds"],
                    validation_gauc="%.6f" % best["gauc"], validation_auc="%.6f" % best["auc"], best_step=best["step"])

    def train(self, place, words, lock):
        """Runs train.py of the model at `place`, a models.Place, for this trial; returns why it failed, else None.

        `words` are further arguments. It goes on from the trial's latest checkpoint, where there is one. `lock` is as
        `run_process` takes it.
        """
        make_folder(self.folder)
        command = [sys.executable, "train.py"] + ["--" + place.variant] * bool(place.variant) + [
            "--save_path", self.folder, "--selection", "validation", "--optimizer", self.flags["optimizer"],
            "--lr", str(self.flags["learning_rate"]), "--batch_size", str(self.flags["batch_size"]),
            "--eval_every", str(self.flags["eval_every"]), "--resume"] + words
        error = run_process(command, os.path.join(ROOT, place.folder), self.log_path, lock)
        self.read()
        return error

    def fail(self, error):
        """Notes why the trial failed, a line; one that was killed goes on the next time."""
        if not error.startswith(KILLED):
            with replacing(self._path("error.txt"), "w", encoding="utf-8") as file:
                file.write(error + "\n")
        self.error = error
