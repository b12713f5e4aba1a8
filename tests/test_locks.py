"""Locks: who is kept out, what they keep still, and file systems that have none."""
import errno
import fcntl
import os

import pytest

from tests.helpers import TWO_EPOCHS, Folder
from utils import files
from utils.files import UserError, replacing
from utils.runs import checkpoints
from utils.runs.locks import acquire, waited_for
from utils.serving import restore


@pytest.fixture
def lockless(tmp_path, monkeypatch):
    """A folder on a file system without locks, as far as os.flock says so; temporary files are elsewhere."""
    folder, temporary = tmp_path / "lockless", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    take = fcntl.flock

    def flock(file, operation):
        descriptor = file if isinstance(file, int) else file.fileno()
        if os.readlink("/proc/self/fd/%d" % descriptor).startswith(str(folder)):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        take(file, operation)
    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(files.tempfile, "tempdir", str(temporary))
    return folder


def is_held(path):
    """Whether a process holds the lock `path`."""
    with open(str(path), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_without_locks_the_runs_on_one_machine_are_kept_out_and_a_warning_names_the_others(lockless, capsys):
    path = str(lockless / ".lock")
    with acquire(path):
        assert capsys.readouterr().err == (
            "warning: the file system of %s has no locks; start nothing else there from another machine\n" % lockless)
        with pytest.raises(UserError, match="process %d is at work in %s; wait" % (os.getpid(), lockless)):
            acquire(path)
    acquire(path).close()


def test_where_the_temporary_folder_has_no_locks_either_there_are_none(lockless, monkeypatch, capsys):
    monkeypatch.setattr(files.tempfile, "tempdir", str(lockless))
    with acquire(str(lockless / ".lock")), waited_for(str(lockless / ".csv.lock")):
        assert capsys.readouterr().err == "warning: the file system of %s has no locks; start nothing else there\n" % (
            lockless)


def test_without_locks_models_that_are_trained_side_by_side_still_wait_for_each_other(lockless, tmp_path):
    with waited_for(str(lockless / ".csv.lock")):
        name, = os.listdir(str(tmp_path / "temporary"))
        assert is_held(tmp_path / "temporary" / name)
    assert not is_held(tmp_path / "temporary" / name)


def test_without_locks_a_lock_that_another_put_there_is_not_followed(lockless, tmp_path):
    """The folder of temporary files is everyone's."""
    acquire(str(lockless / ".lock")).close()
    lock, = (tmp_path / "temporary").iterdir()
    lock.unlink()
    (tmp_path / "victim").write_text("content")
    lock.symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="can't be written"):
        acquire(str(lockless / ".lock"))
    assert (tmp_path / "victim").read_text() == "content"


def test_without_locks_a_file_is_written_and_a_model_trained_and_inferred_with(lockless):
    with replacing(str(lockless / "a.csv"), "w") as file:
        file.write("new")
    assert (lockless / "a.csv").read_text() == "new"
    folder = Folder(lockless / "din")
    assert folder.train(*TWO_EPOCHS)["best_step"] == folder.infer()["checkpoint_step"]


def test_an_earlier_run_is_set_aside_while_inference_waits(folder, monkeypatch):
    folder.train(*TWO_EPOCHS)
    held, move = [], checkpoints.set_aside

    def set_aside(paths, aside):
        held.append(is_held(os.path.join(folder.save_path, ".checkpoints.lock")))
        return move(paths, aside)
    monkeypatch.setattr(checkpoints, "set_aside", set_aside)
    folder.train(*TWO_EPOCHS, "--seed", 9)
    assert held == [True]


def test_inference_reads_state_and_variables_while_training_waits(folder, monkeypatch):
    folder.train(*TWO_EPOCHS)
    held = []

    class Watched(checkpoints.Checkpoints):
        def state(self):
            held.append(is_held(os.path.join(folder.save_path, ".checkpoints.lock")))
            return super().state()

        def restore(self, session, name):
            held.append(is_held(os.path.join(folder.save_path, ".checkpoints.lock")))
            super().restore(session, name)
    monkeypatch.setattr(restore, "Checkpoints", Watched)
    folder.infer()
    assert held == [True, True]
