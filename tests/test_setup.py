"""setup.sh: environments of its own and of the user, completed and made anew. Packages and pip are stand-ins."""
import json
import os
import re
import subprocess
import sys

import pytest

from utils import installation

MODULES = installation.MODULES
PROJECTS = {name: installation.PROJECT_OF.get(name, name) for names in MODULES.values() for name in names}
PARTS = {"base": MODULES["base"][1:], "test": MODULES["test"], "serve": MODULES["serve"], "onnx": [],
         "tensorflow-cpu": ["tensorflow"], "tensorflow-gpu": ["tensorflow"]}

# Stands in for pip: writes what it was called with, and makes a module and its metadata for each package.
PIP = r'''
import glob, json, os, re, shutil, signal, sys

arguments, site = sys.argv[1:], os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if "--version" in arguments:
    sys.exit()
with open(os.path.join(sys.prefix, "pip.log"), "a") as log:
    log.write(json.dumps([arguments, {k: v for k, v in os.environ.items() if k.startswith("PIP_")}]) + "\n")
read = lambda option: "".join(open(arguments[i + 1]).read() for i, word in enumerate(arguments) if word == option)
versions = dict(re.findall(r"^(\S+)==(\S+)", read("--constraint"), re.M))
wanted = re.findall(r"^(\S+)==(\S+)", read("--requirement"), re.M)
if not wanted:
    wanted = [(name, versions.get(name, "2.0")) for name in arguments[arguments.index("--constraint") + 2:]]
for name, version in wanted:
    if os.path.isdir("%s/%s-%s.dist-info" % (site, name, version)) and "--force-reinstall" not in arguments:
        continue
    if os.environ.get("NETWORK") == "none":
        sys.exit("ERROR: no network")
    for earlier in glob.glob("%s/%s-*.dist-info" % (glob.escape(site), name)):
        os.rmdir(earlier)
    os.mkdir("%s/%s-%s.dist-info" % (site, name, version))
    if os.environ.get("NETWORK") == "killed":
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    module = os.path.join(site, name.replace("scikit-learn", "sklearn"))
    os.makedirs(module, exist_ok=True)
    with open(module + "/__init__.py", "w") as file:
        file.write("__version__ = '%s'" % version)
'''


class Project:
    """A copy of the project that asks for the stand-ins, and a Python whose environments have PIP for pip."""

    def __init__(self, folder, bin_folder):
        self.folder, self.environment, self.base_python = folder, folder / ".venv", bin_folder / "base python"
        (folder / "utils" / "towers.py").write_text("print('Devices: none')\n")
        self.pin("1.0")
        bin_folder.mkdir()
        (bin_folder / "pip.py").write_text(PIP)
        self.base_python.write_text(
            '#!/bin/sh\n[ "$1 $2" = "-m venv" ] || exec "%s" "$@"\n"%s" -m venv --without-pip "$3" || exit\n'
            'cd "$3"/lib/python* && mkdir -p site-packages/pip && cp "%s" site-packages/pip/__main__.py\n'
            % (sys.executable, sys.executable, bin_folder / "pip.py"))
        self.base_python.chmod(0o755)

    def pin(self, version, *parts):
        """Pins the files of requirements that are named, or all, to a version."""
        for part in parts or PARTS:
            (self.folder / "requirements" / (part + ".txt")).write_text(
                "".join("%s==%s  # a package\n" % (PROJECTS[name], version) for name in PARTS[part]))

    def make_environment(self, folder):
        """An environment of the user's, with PIP."""
        subprocess.run([str(self.base_python), "-m", "venv", str(folder)], check=True)
        return folder

    def run(self, *command, **variables):
        clean = {name: value for name, value in os.environ.items()
                 if name not in ("VIRTUAL_ENV", "CONDA_PREFIX", "VENV") and not name.startswith("PIP_")}
        clean.update({"BASE_PYTHON": str(self.base_python)}, **variables)
        return subprocess.run([str(part) for part in command], cwd=str(self.folder), env=clean, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)

    def set_up(self, *arguments, **variables):
        """Runs setup.sh, which must come to its end; returns the lines that it prints before the devices."""
        done = self.run("./setup.sh", *arguments, **variables)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines.pop() == "Devices: none"
        return lines

    def error(self, **variables):
        """The one line that setup.sh ends with."""
        done = self.run("./setup.sh", **variables)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        return done.stderr[len("error: "):-1]


def site_packages(folder):
    path, = (folder / "lib").glob("python*/site-packages")
    return path


def add_module(folder, name, version, listed=None):
    """A module in the environment `folder`, and its metadata, which may say another version."""
    (site_packages(folder) / name).mkdir()
    (site_packages(folder) / name / "__init__.py").write_text("__version__ = '%s'\n" % version)
    (site_packages(folder) / ("%s-%s.dist-info" % (name, listed or version))).mkdir()


def versions(folder):
    """{module: the version that its file has}."""
    return {path.parent.name: re.search("'(.*)'", path.read_text()).group(1)
            for path in site_packages(folder).glob("*/__init__.py")}


def calls(folder):
    """(arguments, PIP_ variables) of each installation by pip."""
    path = folder / "pip.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def copy(project, tmp_path):
    return Project(project, tmp_path / "bin")


def test_the_projects_environment_follows_the_pins_and_is_left_alone_where_they_stay(copy):
    assert copy.set_up() == ["Installing TensorFlow (cpu build) and what else is needed into %s ..." % copy.environment]
    base = dict.fromkeys(MODULES["base"], "1.0")
    assert versions(copy.environment) == base
    assert copy.set_up(NETWORK="none") == ["All that is needed is in %s." % copy.environment]
    copy.pin("2.0", "test", "serve")
    assert copy.set_up(NETWORK="none") == ["All that is needed is in %s." % copy.environment]
    copy.set_up("--test")
    tests = dict.fromkeys(MODULES["test"] + MODULES["serve"], "2.0")
    assert versions(copy.environment) == dict(base, **tests)
    copy.pin("3.0", "base")
    copy.set_up()
    assert versions(copy.environment) == dict(dict.fromkeys(base, "3.0"), tensorflow="1.0", **tests)
    assert len(calls(copy.environment)) == 3


def test_a_script_sets_up_once_and_needs_no_network_then(copy):
    assert copy.run("./test.sh", "--version").returncode  # the stand-in for pytest has no __main__
    installed = calls(copy.environment)
    done = copy.run("./test.sh", "--version", NETWORK="none")
    assert len(installed) == 1 and calls(copy.environment) == installed and "pytest" in done.stderr
    (copy.folder / "utils" / "make_sample.py").write_text("print('made')\nraise SystemExit(3)\n")
    done = copy.run("./prepare_dataset.sh", "--sample", NETWORK="none")
    assert (done.returncode, done.stdout, done.stderr) == (3, "made\n", "")


def remove_python(folder):
    for path in (folder / "bin").glob("python*"):
        path.unlink()
        path.symlink_to("/gone/python")


def remove_pip(folder):
    (site_packages(folder) / "pip" / "__main__.py").unlink()


def remove_config(folder):
    (folder / "pyvenv.cfg").unlink()


def empty_tensorflow(folder):
    (site_packages(folder) / "tensorflow" / "__init__.py").unlink()


def damage_module(folder):
    (site_packages(folder) / "numpy" / "__init__.py").write_text("import module_that_is_gone\n")


def list_another_version(folder):
    (site_packages(folder) / "pandas-1.0.dist-info").rename(site_packages(folder) / "pandas-2.0.dist-info")


def list_two_versions(folder):
    (site_packages(folder) / "pandas-2.0.dist-info").mkdir()


def forget_what_is_installed(folder):
    (folder / installation.INSTALLED).unlink()


@pytest.mark.parametrize("damage", [remove_python, remove_pip, remove_config, empty_tensorflow, damage_module,
                                    list_another_version, list_two_versions, forget_what_is_installed])
def test_what_setup_made_and_is_not_whole_is_made_anew(copy, damage):
    copy.set_up()
    damage(copy.environment)
    (copy.environment / "remnant").write_text("")
    assert copy.set_up()[0] == (
        "%s is not whole, or not for this place, Python and device; it is made anew." % copy.environment)
    assert versions(copy.environment) == dict.fromkeys(MODULES["base"], "1.0")
    assert not (copy.environment / "remnant").exists()


def contents(folder):
    """{path: bytes} of the files in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.name not in ("pip.log", ".lock") and path.suffix != ".pyc"}


def test_what_was_moved_is_made_anew_or_stays_where_that_fails(copy):
    copy.set_up()
    copy.folder.rename(copy.folder.parent / "moved")
    copy.folder, copy.environment = copy.folder.parent / "moved", copy.folder.parent / "moved" / ".venv"
    before = contents(copy.environment)
    assert copy.run("./setup.sh", NETWORK="none").returncode == 1
    assert contents(copy.environment) == before
    assert copy.run("./setup.sh", NETWORK="killed").returncode > 1
    assert copy.run("./setup.sh", NETWORK="none").returncode == 1
    assert contents(copy.environment) == before
    assert len(copy.set_up()) == 2 and copy.set_up() == ["All that is needed is in %s." % copy.environment]


def test_a_set_up_that_is_killed_is_begun_anew(copy):
    assert copy.run("./setup.sh", NETWORK="killed").returncode > 1
    assert len(copy.set_up()) == 2
    assert versions(copy.environment) == dict.fromkeys(MODULES["base"], "1.0")
    copy.pin("2.0")
    assert copy.run("./setup.sh", NETWORK="killed").returncode > 1
    assert len(copy.set_up()) == 2
    assert versions(copy.environment) == dict.fromkeys(MODULES["base"], "2.0")


def test_new_pins_without_network_are_an_error_and_what_was_there_stays(copy):
    copy.set_up()
    copy.pin("2.0", "test")
    done = copy.run("./setup.sh", "--test", NETWORK="none")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == (
        "error: pip could not install into %s; see its message above, check the network, and run it again"
        % copy.environment)
    assert copy.set_up(NETWORK="none") == ["All that is needed is in %s." % copy.environment]


def test_the_gpu_build_takes_the_place_of_the_cpu_build_where_a_driver_has_come(copy, tmp_path):
    copy.set_up()
    driver = tmp_path / "driver"
    driver.mkdir()
    (driver / "nvidia-smi").write_text("#!/bin/sh\n")
    (driver / "nvidia-smi").chmod(0o755)
    path = "%s:%s" % (driver, os.environ["PATH"])
    assert copy.set_up(PATH=path)[1].startswith("Installing TensorFlow (gpu build)")
    assert copy.set_up() == copy.set_up(PATH=path) == ["All that is needed is in %s." % copy.environment]


def test_a_tensorflow_that_is_there_is_kept_with_what_it_runs_on(copy, tmp_path):
    folder = copy.make_environment(tmp_path / "the user's")
    add_module(folder, "tensorflow", "1.15.5", "1.15.5+nv")
    add_module(folder, "numpy", "1.18")
    assert copy.set_up(VIRTUAL_ENV=str(folder)) == ["Keeping the TensorFlow that is installed."]
    expected = dict(dict.fromkeys(MODULES["base"], "2.0"), tensorflow="1.15.5", numpy="1.18")
    assert versions(folder) == expected
    copy.pin("3.0")
    assert copy.set_up(VIRTUAL_ENV=str(folder), NETWORK="none") == ["Keeping the TensorFlow that is installed."]
    assert versions(folder) == expected and len(calls(folder)) == 1


def test_a_tensorflow_that_a_user_put_into_the_projects_environment_is_kept(copy):
    copy.set_up()
    site = site_packages(copy.environment)
    (site / "tensorflow-1.0.dist-info").rename(site / "tensorflow-9.9.dist-info")
    (site / "tensorflow" / "__init__.py").write_text("__version__ = '9.9'\n")
    copy.pin("2.0")
    for _ in range(2):
        assert copy.set_up() == ["Keeping the TensorFlow that is installed."]
        assert versions(copy.environment)["tensorflow"] == "9.9"
    assert len(calls(copy.environment)) == 2


def test_an_environment_of_the_users_gets_the_pinned_versions_where_it_has_no_tensorflow(copy, tmp_path):
    folder = copy.make_environment(tmp_path / "user")
    (site_packages(folder) / "tensorflow").mkdir()  # a remnant
    for version in ("1.0", "2.0"):
        copy.pin(version)
        copy.set_up(CONDA_PREFIX=str(folder))
        assert versions(folder) == dict.fromkeys(MODULES["base"], version)
    assert copy.run("./setup.sh", "--test", CONDA_PREFIX=str(folder), NETWORK="killed").returncode > 1
    copy.set_up("--test", CONDA_PREFIX=str(folder))
    assert versions(folder) == dict.fromkeys(PROJECTS, "2.0")


@pytest.mark.parametrize("damage, error", [
    (remove_python,
     "the active environment has no {0}/bin/python that runs ({0}/bin/python: No such file or directory); deactivate "
     "it or mend it"),
    (remove_pip,
     "{0} has no pip that works; install it ({0}/bin/python -m ensurepip), or name another environment, for example "
     "VENV=.venv-new ./setup.sh"),
    (lambda folder: add_module(folder, "tensorflow", "1.0", "2.0"),
     "{0} has a damaged tensorflow, of versions 1.0, 2.0; mend or remove it, or name another, for example "
     "VENV=.venv-new ./setup.sh"),
    (lambda folder: (site_packages(folder) / "tensorflow.py").write_text("import module_that_is_gone\n"),
     "{0} has packages that can't be imported (ModuleNotFoundError: No module named 'module_that_is_gone'); mend or "
     "remove it, or name another, for example VENV=.venv-new ./setup.sh"),
    (lambda folder: (site_packages(folder) / "numpy-1.0.dist-info").mkdir(),
     "pip says that it has installed all, but numpy is not in {0}; see {0}/bin/python -m pip config list, and run "
     "{0}/bin/python -m pip install --force-reinstall numpy")])
def test_an_environment_of_the_users_that_is_not_whole_is_an_error_and_stays(copy, tmp_path, damage, error):
    folder = copy.make_environment(tmp_path / "user")
    damage(folder)
    (folder / "file").write_text("the user's")
    assert copy.error(VIRTUAL_ENV=str(folder)) == error.format(folder)
    assert (folder / "file").read_text() == "the user's"


def test_an_environment_in_the_projects_folder_without_pip_is_completed(copy, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(copy.environment)], check=True)
    site = site_packages(copy.environment)
    (tmp_path / "ensurepip.py").write_text("import os\nos.mkdir(%r)\nos.link(%r, %r)\n" % (
        str(site / "pip"), str(tmp_path / "bin" / "pip.py"), str(site / "pip" / "__main__.py")))
    (site / "ensurepip.pth").write_text("import sys; sys.path.insert(0, %r)\n" % str(tmp_path))
    add_module(copy.environment, "mine", "1.0")
    copy.set_up()
    assert versions(copy.environment) == dict.fromkeys(MODULES["base"] + ["mine"], "1.0")


def test_a_folder_that_is_no_environment_is_left_alone(copy, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("the user's")
    assert copy.error(VENV=str(folder)) == (
        "%s has files, but no Python of its own that runs (%s/bin/python: No such file or directory); mend or remove "
        "it, or name another, for example VENV=.venv-new ./setup.sh" % (folder, folder))
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("place", [".venv", ".venvs/mine"])
def test_an_environment_of_the_users_whose_python_is_gone_is_never_taken_for_the_projects(copy, tmp_path, place):
    folder = copy.make_environment(tmp_path / "user")
    (folder / "notes").write_text("the user's")
    (copy.folder / place).parent.mkdir(exist_ok=True)
    (copy.folder / place).symlink_to(folder)
    pythons = {path: os.readlink(str(path)) for path in (folder / "bin").glob("python*")}
    remove_python(folder)
    assert copy.error(VENV=place).startswith("%s has files, but no Python of its own" % (copy.folder / place))
    for path, target in pythons.items():
        path.unlink()
        path.symlink_to(target)
    damage_module(copy.set_up(VIRTUAL_ENV=str(folder)) and folder)
    assert copy.run("./setup.sh", VIRTUAL_ENV=str(folder)).returncode == 0
    assert (folder / "notes").read_text() == "the user's"


def killer(folder, tool, call, is_done):
    """A PATH whose `tool` kills the script that calls it for the `call`-th time, once that is done, or before."""
    folder.mkdir()
    (folder / tool).write_text(
        '#!/bin/sh\necho >>"{0}/calls"\n[ $(wc -l <"{0}/calls") = {1} ] || exec /bin/{2} "$@"\n{3}kill -9 $PPID\n'
        .format(folder, call, tool, '/bin/%s "$@"\n' % tool if is_done else ""))
    (folder / tool).chmod(0o755)
    return "%s:%s" % (folder, os.environ["PATH"])


@pytest.mark.parametrize("tool, call, is_done", [
    ("mkdir", 3, True), ("mv", 1, False), ("mv", 1, True), ("mv", 2, True), ("mv", 3, True), ("rm", 2, True)])
def test_set_ups_that_are_killed_at_any_step_are_settled_by_the_next_one(copy, tmp_path, tool, call, is_done):
    copy.set_up()
    list_two_versions(copy.environment)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n"%s" "$@" || exit\n[ "$2" != venv ] || kill -9 $PPID\n' % copy.base_python)
    python.chmod(0o755)
    assert copy.run("./setup.sh", BASE_PYTHON=str(python)).returncode == -9
    done = copy.run("./setup.sh", PATH=killer(tmp_path / "killer", tool, call, is_done))
    assert done.returncode == -9, done
    copy.set_up()
    assert versions(copy.environment) == dict.fromkeys(MODULES["base"], "1.0")
    assert not (copy.folder / ".venv.setup").exists()


def test_a_path_that_no_environment_can_have_is_an_error(copy, tmp_path):
    assert copy.error(VENV=str(tmp_path / "a:b")) == (
        "an environment's path has no ':' and no line break, as %s has; name another folder, for example "
        "VENV=/tmp/venv ./setup.sh" % (tmp_path / "a:b"))
    assert not (tmp_path / "a:b").exists()


def test_a_python_without_venv_is_an_error(copy):
    copy.base_python.write_text('#!/bin/sh\n[ "$2" != "import ensurepip, venv" ] && exec "%s" "$@"\n' % sys.executable)
    assert copy.error() == (
        "%s has no module venv or ensurepip; install it (Debian and Ubuntu: apt install python3-venv), or name another "
        "Python, for example BASE_PYTHON=python3.11 ./setup.sh" % copy.base_python)
    assert not copy.environment.exists()


def test_pip_is_told_where_packages_are_and_not_where_to_put_them(copy):
    copy.set_up(PIP_USER="1", PIP_TARGET="/gone", PIP_CONSTRAINT="/gone", PIP_REQUIRE_VIRTUALENV="1",
                PIP_INDEX_URL="https://packages")
    (_, variables), = calls(copy.environment)
    assert variables == {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_INDEX_URL": "https://packages"}
