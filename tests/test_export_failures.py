"""An export that fails says why in one line, before the work where that is known, and leaves what was there."""
import os
import resource
import sys

import pytest

from tests.test_export import Exporter, versions
from tests.test_names import written as write_names
from utils.files import ROOT, UserError, new_folder
from utils.serving import export as exporting
from utils.tf1 import tf


@pytest.fixture(scope="module")
def din(tmp_path_factory):
    return Exporter(tmp_path_factory.mktemp("din"), "din")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working folder, with an earlier export, `file`, and a folder, `folder`."""
    (tmp_path / "file").write_text("an earlier export")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert sorted(os.listdir(str(tmp_path))) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "an earlier export" and not versions(tmp_path / "folder")


def line_of(din, *flags):
    with pytest.raises(UserError) as raised:
        din(*flags)
    line = str(raised.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("flags, line", [
    (["saved_model", "file"], "file is a file; name the folder of versions that the SavedModel is to be in"),
    (["frozen", "folder"], "folder is a folder; name the file to write: --output folder/frozen.pb"),
    (["frozen", "new/"], "new/ is a folder; name the file to write: --output new/frozen.pb"),
    (["onnx", "folder"], "folder is a folder; name the file to write: --output folder/padded.onnx"),
])
def test_a_file_for_a_folder_or_the_reverse_is_seen_before_the_checkpoint_is_looked_at(din, place, flags, line):
    assert line_of(din, "--save_path", "missing", "--format", flags[0], "--output", flags[1]) == line


@pytest.mark.parametrize("export_format", ["saved_model", "frozen"])
@pytest.mark.parametrize("output", ["file/below", "/proc/below"], ids=["a file", "a folder that takes none"])
def test_a_place_that_can_not_be_written_is_named(din, place, export_format, output):
    line = line_of(din, "--format", export_format, "--output", output)
    assert "can't be written (" in line and line.endswith("; choose another place")


@pytest.fixture
def small_files():
    """Files that this process writes have at most 40 kB, as where the disk is full; TensorFlow's, too.

    So has a log that the tests' own output goes to.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("export_format, output", [("saved_model", "folder"), ("frozen", "file")])
def test_where_there_is_no_room_nothing_is_left(din, place, small_files, export_format, output):
    line = line_of(din, "--format", export_format, "--output", output)
    assert "can't be written (" in line and "File too large" in line and ".part" not in line
    assert all(name == ".lock" for name in os.listdir("folder"))


@pytest.mark.parametrize("export_format", ["frozen", "onnx"])
def test_a_graph_beyond_protobufs_limit_is_refused_before_the_checkpoint_is_looked_at(
        din, place, monkeypatch, export_format):
    monkeypatch.setattr(exporting, "onnx_converter", lambda: None)
    monkeypatch.setattr(exporting, "MAX_GRAPH", 10000)
    line = line_of(din, "--save_path", "folder", "--format", export_format, "--output", "file")
    assert line.startswith("the model has ") and line.endswith(
        " bytes, and --format %s can't have more than 10000; export a SavedModel, which has no such limit: --format "
        "saved_model" % export_format)


def test_a_frozen_graph_is_no_larger_than_was_known_before(din, tmp_path, monkeypatch):
    path = tmp_path / "frozen.pb"
    din("--format", "frozen", "--output", str(path))
    size = os.path.getsize(str(path))
    monkeypatch.setattr(exporting, "MAX_GRAPH", size - 1)
    assert "--format frozen can't have more than %d;" % (size - 1) in line_of(din, "--format", "frozen")


def test_what_a_library_raises_is_one_line(din, place, monkeypatch):
    def convert(*_, **__):
        raise AssertionError("an operation is unknown\nand more")
    monkeypatch.setattr(exporting, "onnx_converter", lambda: convert)
    assert line_of(din, "--format", "onnx", "--output", "file") == (
        "the model can't be written as onnx (and more); export a SavedModel: --format saved_model")

    def save(self):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device\n\t [[node save]]")
    monkeypatch.setattr(tf.saved_model.Builder, "save", save)
    line = line_of(din, "--output", "folder")
    assert line.endswith("1 can't be written (No space left on device); make room there, or choose another folder")


@pytest.mark.parametrize("raised, what", [
    ("ModuleNotFoundError('none', name='tf2onnx')", "is not installed"),
    ("AttributeError('of another NumPy')", "can't be used (of another NumPy)")])
def test_without_tf2onnx_it_says_what_to_install_before_the_checkpoint_is_looked_at(
        din, place, tmp_path_factory, monkeypatch, raised, what):
    packages = tmp_path_factory.mktemp("packages")
    (packages / "tf2onnx.py").write_text("raise " + raised)
    monkeypatch.syspath_prepend(str(packages))
    for name in [name for name in sys.modules if name.split(".")[0] == "tf2onnx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.chdir(os.path.join(ROOT, "din"))
    line = line_of(din, "--save_path", "missing", "--format", "onnx", "--output", str(place / "file"))
    before, requirements = line.split("; it needs Python 3.10 or newer: pip install -r ")
    assert before == "tf2onnx " + what
    assert requirements == "../requirements/onnx.txt" and os.path.isfile(requirements)


def test_remap_alone_means_the_same_file_as_infers_default(din, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "REMAP", write_names(tmp_path))
    din("--output", str(tmp_path / "served"), "--remap")
    assert os.path.exists(str(tmp_path / "served" / "1" / "assets.extra" / "items.csv"))


def test_an_export_that_fails_leaves_what_was_there(tmp_path):
    with pytest.raises(KeyError):
        with new_folder(str(tmp_path / "1")) as beside:
            os.makedirs(beside)
            raise KeyError
    assert not os.listdir(str(tmp_path))
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "earlier").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        with new_folder(str(tmp_path / "1")) as beside:
            os.makedirs(beside)
    assert os.listdir(str(tmp_path)) == ["1"] and os.listdir(str(tmp_path / "1")) == ["earlier"]
