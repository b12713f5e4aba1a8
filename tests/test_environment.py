"""The environment of a process, as notebooks and platforms leave it; what is decided is in utils/environment.py."""
import os
import subprocess
import sys

import pytest

from tests.helpers import run_script
from tests.rows import error_of
from tests.test_cluster import config
from tests.test_scripts import run
from utils.environment import CHANGES_SUMS
from utils.files import ROOT, UserError
from utils.towers import describe_device

NAMES = "\u4e2d\u6587, caf\xe9"  # Chinese, French


def run_code(code, *options, **environment):
    """Runs Python code in the project's folder; returns (exit status, output, errors)."""
    done = run_script(*options, "-c", code, env=environment)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("variable, value", [
    ("MPLBACKEND", "module://matplotlib_inline.backend_inline"),  # a notebook's
    ("MPLBACKEND", "no backend"), ("MATPLOTLIBRC", "damaged"), ("MPLCONFIGDIR", "/dev/null/folder"),
    ("HOME", "/dev/null/folder"), ("XDG_CONFIG_HOME", "/dev/null/folder"),
    ("TQDM_MININTERVAL", "often"), ("TQDM_NCOLS", "wide"), ("TQDM_FILE", "log.txt")])
def test_what_libraries_read_from_the_environment_ends_no_command_and_warns_of_nothing(tmp_path, variable, value):
    if value == "damaged":
        value = str(tmp_path / "matplotlibrc")
        (tmp_path / "matplotlibrc").write_bytes(b"backend: no backend\nno key: 1\n\xff")
    done = run_code("import utils.reports.plots, tqdm; print(list(tqdm.tqdm([1], disable=None)))", **{variable: value})
    assert done == (0, "[1]\n", "")


def test_a_user_without_a_home_and_without_a_name_gets_plots():
    code = """if True:
        import os, pwd
        def nobody(number):
            raise KeyError(number)
        os.environ.pop("HOME", None)
        pwd.getpwuid = nobody
        import utils.reports.plots"""
    assert run_code(code) == (0, "", "")


@pytest.mark.parametrize("encoding, shown", [
    ("ascii", rb"\u4e2d\u6587, caf\xe9"), ("cp1251", rb"\u4e2d\u6587, caf\xe9"),
    ("latin-1", b"\\u4e2d\\u6587, caf\xe9"), ("utf-8", NAMES.encode())])
def test_letters_that_the_output_lacks_are_escaped(encoding, shown):
    code = "from utils.runs.log import log, warn; log({0!a}); warn({0!a}); raise SystemExit({0!a})".format(NAMES)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ, PYTHONIOENCODING=encoding),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (done.stdout, done.stderr) == (shown + b"\n", b"warning: " + shown + b"\n" + shown + b"\n")


def test_a_name_makes_no_second_line_of_an_error(monkeypatch):
    def main():
        raise UserError("no folder a\nb\udcff\u4e2d; name another")
    assert error_of(main, monkeypatch) == "error: no folder a\\nb\\udcff\u4e2d; name another"


@pytest.mark.parametrize("options, environment", [((), {"PYTHONOPTIMIZE": "2"}), (("-OO",), {})])
def test_python_without_docstrings_is_refused(options, environment):
    done = run_script(*options, "pnn/train.py", "--help", env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (
        1, "", "error: Python leaves out docstrings, which --help is made of; unset PYTHONOPTIMIZE, leave out -OO\n")


@pytest.mark.parametrize("options, environment", [((), {"PYTHONWARNINGS": "error"}), (("-W", "error"), {})])
def test_a_warning_ends_nothing(options, environment):
    status, output, errors = run_code("import utils, warnings; warnings.warn('new'); print('through')", *options,
                                      **environment)
    assert (status, output) == (0, "through\n") and "UserWarning: new" in errors


def test_commands_that_a_command_starts_see_the_project():
    status, output, _ = run_code(
        "import sys; sys.path.insert(0, '.'); import utils; from tests.helpers import run_script; "
        "print(run_script('-m', 'utils.digest', '--help').returncode)", PYTHONSAFEPATH="1")
    assert (status, output) == (0, "0\n")


def test_the_shell_scripts_see_their_own_python_and_the_project(project):
    done = run(project, "./infer.sh", "--help", PYTHONSAFEPATH="1", PYTHONHOME="/dev/null")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: ./infer.sh ")


@pytest.mark.parametrize("text", ["{}", config({"chief": ["a:1"]}, "chief", "0")])
def test_the_scripts_run_where_tf_config_names_no_other_worker(project, text):
    done = run(project, "./train.sh", "--help", TF_CONFIG=text)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: ./train.sh ")


def test_a_tensorflow_that_can_not_be_loaded_is_one_line(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('no libcudart.so\\nsee the guide')")
    done = run_code("import sys; sys.path.insert(0, %r); import utils.tf1" % str(tmp_path))
    assert done == (1, "", "error: TensorFlow can't be loaded (ImportError: no libcudart.so see the guide); run "
                    "./setup.sh, or mend what python -c 'import tensorflow' says\n")


@pytest.mark.parametrize("descriptor", [1, 2])
def test_closed_output_goes_nowhere(tmp_path, descriptor):
    code = "from utils.runs.log import log, warn; log('line'); warn('line'); open({!r}, 'w').close()".format(
        str(tmp_path / "through"))
    done = subprocess.run(["bash", "-c", 'exec "$@" %d>&-' % descriptor, "-", sys.executable, "-c", code], cwd=ROOT)
    assert done.returncode == 0 and (tmp_path / "through").exists()


@pytest.mark.parametrize("variable", CHANGES_SUMS)
def test_a_row_names_the_variables_that_change_sums(monkeypatch, variable):
    for name in CHANGES_SUMS:
        monkeypatch.delenv(name, raising=False)
    device = describe_device(1)
    monkeypatch.setenv(variable, "0")
    assert describe_device(1) == "%s with %s=0" % (device, variable)
