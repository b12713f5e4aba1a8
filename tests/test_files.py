"""Where files are written: through links, into devices and pipes, with the permissions of what they replace."""
import os
import socket
import stat
import subprocess
import sys
import threading

import pytest

from utils.files import ROOT, UserError, check_writable, replacing, set_aside


def write(path, content="new"):
    with replacing(str(path), "w") as file:
        file.write(content)


def permissions(path):
    return stat.S_IMODE(os.stat(str(path)).st_mode)


@pytest.mark.parametrize("links", [1, 2])
def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path, links):
    (tmp_path / "elsewhere").mkdir()
    place = tmp_path / "elsewhere" / "results.csv"
    place.write_text("earlier")
    path = place
    for number in range(links):
        link = tmp_path / ("link%d" % number)
        link.symlink_to(path)
        path = link
    write(path)
    assert path.is_symlink() and place.read_text() == "new"
    assert os.listdir(str(tmp_path / "elsewhere")) == ["results.csv"]


def test_a_link_to_what_is_not_there_yet_is_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "new folder" / "results.csv")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "new folder" / "results.csv").read_text() == "new"


def test_links_in_a_circle_are_an_error(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match=r"/a can't be written \(Too many levels of symbolic links\)"):
        write(tmp_path / "a")
    assert (tmp_path / "a").is_symlink() and (tmp_path / "b").is_symlink()


def test_a_pipe_is_written_not_replaced(tmp_path):
    path, content = tmp_path / "pipe", []
    os.mkfifo(str(path))
    reader = threading.Thread(target=lambda: content.append(path.read_text()))
    reader.start()
    write(path)
    reader.join()
    assert content == ["new"] and stat.S_ISFIFO(os.stat(str(path)).st_mode) and os.listdir(str(tmp_path)) == ["pipe"]


@pytest.mark.parametrize("mode", ["w", "a"])
def test_what_the_output_goes_to_is_written_itself(tmp_path, mode):
    """`--output /dev/stdout`, and standard output a file, with the lines that were printed before and after."""
    path = tmp_path / "log.txt"
    path.write_text("earlier\n")
    code = ("from utils.files import replacing\nprint('before')\n"
            "with replacing('/dev/stdout', 'w') as file:\n    file.write('rows\\n')\nprint('after')")
    with path.open(mode) as output:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=output, check=True)
    assert path.read_text() == ("earlier\n" if mode == "a" else "") + "before\nrows\nafter\n"
    assert os.listdir(str(tmp_path)) == ["log.txt"]


def test_a_device_is_written_not_replaced(tmp_path):
    path = tmp_path / "null"
    try:
        os.mknod(str(path), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        path.open("w").close()
    except OSError as error:
        pytest.skip("no device can be made here: %s" % error)
    write(path)
    assert stat.S_ISCHR(os.stat(str(path)).st_mode) and path.read_text() == ""


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "results.csv").mkdir()
    with pytest.raises(UserError, match=r"results.csv can't be written \(Is a directory\)"):
        write(tmp_path / "results.csv")
    assert os.listdir(str(tmp_path)) == ["results.csv"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o400])
def test_a_file_keeps_the_permissions_that_it_was_given(tmp_path, mode):
    path = tmp_path / "results.csv"
    path.write_text("earlier")
    path.chmod(mode)
    write(path)
    assert permissions(path) == mode and path.read_text() == "new"


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600)])
def test_a_new_file_has_the_permissions_that_the_user_gives_to_new_files(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write(tmp_path / "results.csv")
    finally:
        os.umask(before)
    assert permissions(tmp_path / "results.csv") == mode


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_file_that_root_replaces_stays_its_owners(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("earlier")
    os.chown(str(path), 12345, 12346)
    write(path)
    assert (os.stat(str(path)).st_uid, os.stat(str(path)).st_gid) == (12345, 12346)


def test_what_one_group_could_read_no_other_group_can(tmp_path, monkeypatch):
    """The file was of a group that the user is not in."""
    path = tmp_path / "results.csv"
    path.write_text("earlier")
    path.chmod(0o664)
    status = os.stat(str(path))
    others = os.stat_result(status[:5] + (status.st_gid + 1,) + status[6:])
    monkeypatch.setattr("utils.files._status", lambda _: others)

    def refuse(*_):
        raise PermissionError
    monkeypatch.setattr(os, "fchown", refuse)
    write(path)
    assert permissions(path) == 0o604


def test_what_is_moved_aside_stays_as_hidden_as_it_was(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir(mode=0o700)
    (folder / "results.csv").write_text("earlier")
    aside = set_aside([str(folder / "results.csv")], str(folder))
    assert os.listdir(aside) == ["results.csv"] and permissions(aside) == 0o700


@pytest.mark.parametrize("folder", ["new/folder", "."])
def test_a_folder_that_can_be_written_is_left_as_it_is(tmp_path, folder):
    check_writable(str(tmp_path / folder))
    assert os.listdir(str(tmp_path)) == []


def test_a_folder_below_a_file_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/in can't be written \(Not a directory\)"):
        check_writable(str(tmp_path / "file" / "in"))


@pytest.mark.parametrize("write, line", [
    ("files.run_main(fail)", b"error: what is wrong\n"), ("log.warn('odd')", b"warning: odd\n")])
def test_a_line_for_standard_error_is_written_in_one_piece_since_processes_share_it(write, line):
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # each datagram is one call of write()
    code = "from utils import files\nfrom utils.runs import log\ndef fail(): raise files.UserError('what is wrong')\n"
    subprocess.run([sys.executable, "-c", code + write], cwd=ROOT, stderr=writer.fileno(), timeout=60)
    with reader, writer:
        assert reader.recv(1000) == line
