"""A power cut at any moment leaves the earlier files or the new ones: what is renamed is on the disk by then."""
import os
import stat

import pytest

from utils.files import new_folder, replacing
from utils.runs.checkpoints import BEST, LATEST, Checkpoints
from utils.tf1 import tf


class Disk:
    """What is left of a folder after a power cut, which loses what no os.fsync has made sure of.

    A cut is tried before each call that changes names or makes sure of something. Of each, `remains` has two forms,
    {path in the folder: bytes}: one without any change that is not sure, and one with all names as they are, but only
    contents that are sure.
    """

    def __init__(self, folder, monkeypatch):
        self._folder, self._contents, self._names, self.remains = str(folder), {}, {}, []
        for inner, _, names in os.walk(self._folder):
            for path in [os.path.join(inner, name) for name in names] + [inner]:
                descriptor = os.open(path, os.O_RDONLY)
                self._sync(descriptor)
                os.close(descriptor)
        for name in ("replace", "rename", "rmdir", "remove"):
            monkeypatch.setattr(os, name, self._after_cut(getattr(os, name)))
        monkeypatch.setattr(os, "fsync", self._after_cut(self._sync))

    def _after_cut(self, call):
        def cut(*arguments, **options):
            self.cut()
            return call(*arguments, **options)
        return cut

    def _sync(self, descriptor):
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._names[status.st_ino] = self._listed(descriptor)
        else:
            self._contents[status.st_ino] = os.pread(descriptor, status.st_size, 0)

    @staticmethod
    def _listed(folder):
        with os.scandir(folder) as entries:
            return {entry.name: (entry.inode(), entry.is_dir()) for entry in entries}

    def cut(self):
        """Tries a power cut now."""
        self.remains.append(dict(self._sure(os.stat(self._folder).st_ino, "")))
        self.remains.append(dict(self._as_named(self._folder, "")))

    def _sure(self, folder, path):
        for name, (inode, is_folder) in self._names.get(folder, {}).items():
            if is_folder:
                yield from self._sure(inode, path + name + "/")
            else:
                yield path + name, self._contents.get(inode, b"")

    def _as_named(self, folder, path):
        for name, (inode, is_folder) in self._listed(folder).items():
            if is_folder:
                yield from self._as_named(os.path.join(folder, name), path + name + "/")
            else:
                yield path + name, self._contents.get(inode, b"")


@pytest.fixture
def cut_disk(tmp_path, monkeypatch):
    """A function (make, read): calls `make` of a folder; returns what `read` finds after each cut, in order."""
    def run(make, read):
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            disk = Disk(folder, patch)
            make(str(folder))
            disk.cut()
        seen = []
        for number, files in enumerate(disk.remains):
            copy = tmp_path / ("after_cut_%d" % number)
            for name, content in files.items():
                path = copy / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            copy.mkdir(exist_ok=True)
            seen.append(read(str(copy)))
        return seen
    return run


def test_a_file_is_the_earlier_or_the_new_one(tmp_path, cut_disk):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.csv").write_bytes(b"earlier")

    def make(folder):
        with replacing(os.path.join(folder, "a.csv")) as file:
            file.write(b"new")

    def read(folder):
        with open(os.path.join(folder, "a.csv"), "rb") as file:
            return file.read()
    seen = cut_disk(make, read)
    assert set(seen) == {b"earlier", b"new"} and seen[-2:] == [b"new"] * 2


def test_a_folder_is_whole_or_not_there(cut_disk):
    def make(folder):
        with new_folder(os.path.join(folder, "1")) as beside:
            os.makedirs(os.path.join(beside, "variables"))
            for name in ("saved_model.pb", "variables/index"):
                with open(os.path.join(beside, name), "w") as file:
                    file.write(name)

    def read(folder):
        return {name: open(os.path.join(folder, "1", name)).read() for name in ("saved_model.pb", "variables/index")
                } if os.path.exists(os.path.join(folder, "1")) else None
    seen = cut_disk(make, read)
    whole = {name: name for name in ("saved_model.pb", "variables/index")}
    assert None in seen and all(files in (None, whole) for files in seen) and seen[-2:] == [whole] * 2


@pytest.mark.parametrize("is_best", [True, False])
@pytest.mark.parametrize("is_first", [True, False])
def test_checkpoints_and_their_state_are_the_earlier_or_the_new_ones(tmp_path, cut_disk, is_best, is_first):
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("step", [], tf.int64)
        saver = tf.train.Saver()

        def save(folder, step, best):
            variable.load(step, session)
            Checkpoints(folder, saver).save(session, {"run": {}, "state": {"step": step}}, best)

        def read(folder):
            checkpoints = Checkpoints(folder, saver)
            if not checkpoints.state():
                return None
            steps = [checkpoints.state()["state"]["step"]]
            for name in (LATEST, BEST):
                if checkpoints.has(name):
                    checkpoints.restore(session, name)
                    steps.append(int(session.run(variable)))
            return tuple(steps)
        (tmp_path / "folder").mkdir()
        if not is_first:
            save(str(tmp_path / "folder"), 1, best=True)
        seen = cut_disk(lambda folder: save(folder, 2, is_best), read)
    earlier = None if is_first else (1, 1, 1)
    new = (2, 2, 2) if is_best else (2, 2) if is_first else (2, 2, 1)
    assert set(seen) == {earlier, new} and seen[-2:] == [new] * 2
