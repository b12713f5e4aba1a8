"""The shell scripts in other shells, in folders of any name, and with whatever the user's shell exports."""
import os
import shutil
import subprocess
import sys

import pytest

from utils.files import ROOT

SCRIPTS = ["infer.sh", "prepare_dataset.sh", "run.sh", "setup.sh", "test.sh", "train.sh", "train_cluster.sh",
           "utils/0_download_raw.sh", ".ci/run"]
# Stands in for the environment's Python: trains and infers with nothing, and says what with.
PYTHON = '''#!/bin/sh
case "$*" in
  *installation.py\\ is_set_up*) ;;
  *train.py*)
    echo "$(basename "$PWD")" "$@"
    until [ "$1" = --save_path ]; do shift; done
    mkdir -p "$2"; : >"$2/ckpt.index" ;;
  *infer.py* | *utils.report*) echo "$(basename "$PWD")" "$@" ;;
  *) exec "%s" "$@" ;;
esac
'''


def run(folder, *command, **variables):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    clean.update(variables)
    return subprocess.run(command, cwd=str(folder), env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          universal_newlines=True, timeout=60)


@pytest.fixture
def copy(project):
    """A copy of the project, with all of its scripts, in which training and inference do nothing."""
    (project / ".ci").mkdir()
    shutil.copy(os.path.join(ROOT, ".ci", "run"), str(project / ".ci" / "run"))
    for folder in ("din", "pnn"):
        (project / folder / "dataset.pkl").write_text("")
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON % sys.executable)
    python.chmod(0o755)
    return project


def benchmark(folder, **variables):
    """The lines that run.sh prints."""
    settings = {"MODELS": "pnn", "BATCH_SIZES": "64 128", "VENV": ".venv"}
    done = run(folder, "./run.sh", "--max_steps", "7", **dict(settings, **variables))
    return [done.returncode] + done.stdout.splitlines()


EXPECTED = [0] + [line for size in ("64", "128") for line in (
    "== training pnn, batch size " + size,
    "pnn train.py --save_path save_path/batch_%s --batch_size %s --num_accelerators 1 --epochs 2 --max_steps 7"
    % (size, size))] + [line for size in ("64", "128") for line in (
        "== inference with pnn, batch size " + size,
        "pnn infer.py --save_path save_path/batch_%s --batch_size %s --num_accelerators 1" % (size, size))]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("shell", filter(shutil.which, ["dash", "zsh", "ksh", "mksh"]))
def test_another_shell_is_an_error(copy, shell, script):
    done = run(copy, shell, script)
    assert (done.returncode, done.stdout) == (
        1, "error: the project's scripts are for bash; start them as they are, such as ./run.sh, or with bash run.sh\n")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_that_is_sourced_is_an_error_and_leaves_the_shell(copy, script):
    done = run(copy, "bash", "-c", ". ./%s; echo status $?, options $-" % script)
    assert done.stdout == "error: ./%s is to be run, not sourced: bash ./%s\nstatus 1, options hBc\n" % (script, script)


def test_run_trains_then_infers(copy):
    assert benchmark(copy)[:len(EXPECTED)] == EXPECTED


def test_with_seeds_each_is_trained_and_inferred_with_in_a_folder_and_a_log_of_its_own(copy):
    done = run(copy, "./run.sh", "--selection", "validation", "--patience", "3", MODELS="din_dice", BATCH_SIZES="64",
               SEEDS=" 7 0  7", TARGET_GAUC="0.79", VENV=".venv")
    flags = "--dice --save_path save_path/dice/batch_64_seed_%s --batch_size 64 --num_accelerators 1"
    expected = [line for seed in ("7", "0") for line in (
        "== training din_dice, batch size 64, seed " + seed,
        "din train.py %s --seed %s --target_gauc 0.79 --epochs 2 --selection validation --patience 3"
        % (flags % seed, seed))]
    expected += [line for seed in ("7", "0") for line in (
        "== inference with din_dice, batch size 64, seed " + seed, "din infer.py " + flags % seed)]
    assert (done.returncode, done.stdout.splitlines()[:len(expected)]) == (0, expected)
    for stage in ("train", "infer"):
        logs = [path.name for path in (copy / "results").glob("result_%s_*" % stage)]
        assert sorted(logs) == ["result_%s_din_dice_64_seed_%d.txt" % (stage, seed) for seed in (0, 7)]


def test_seeds_and_a_target_that_are_set_but_empty_are_as_not_set(copy):
    assert benchmark(copy, SEEDS=" ", TARGET_GAUC="")[:len(EXPECTED)] == EXPECTED


@pytest.mark.parametrize("variables", [
    {"CDPATH": ".:/"}, {"SHELLOPTS": "noglob:nounset"}, {"BASHOPTS": "failglob:nocasematch"}, {"POSIXLY_CORRECT": "1"},
    {"BASH_FUNC_cd%%": "() {  echo away; }"}, {"BASH_FUNC_grep%%": "() {  echo away; }"}, {"BASH_ENV": "functions"},
    {"TMPDIR": "/gone"}, {"HOME": ""},
    {"PYTHON": "/gone", "PLAIN_PYTHON": "/gone", "ENVIRONMENT": "/gone", "ROOT": "/gone"},
    {"FOLDER": "din", "VARIANT": "dice", "MODEL_LIST": "din", "RANKS": "1"},
    {"GOES_ON": "1", "BEGUN_BY": "run", "BEGAN_RESULTS": "1"}, {"LOCKED_FOLDERS": ":PROJECT/results:"}],
    ids=lambda variables: "-".join(variables))
def test_what_the_users_shell_exports_changes_nothing(copy, variables):
    (copy / "functions").write_text("cd() { echo away; }\nshopt -s failglob\nset -f\n")
    expected = benchmark(copy)
    shutil.rmtree(str(copy / "results"))
    given = {name: value.replace("PROJECT", str(copy)) for name, value in variables.items()}
    assert benchmark(copy, **given) == expected


@pytest.mark.parametrize("name", ["a [1] b's $x*", "-rf", "caf\u00e9 \u65e5\u672c", "a:b", "line\n", "\"q\" & `w` \\"])
def test_the_projects_folder_may_have_any_name(copy, name):
    folder = copy.parent / name
    copy.rename(folder)
    assert benchmark(folder)[:len(EXPECTED)] == EXPECTED
    done = run(folder.parent, "bash", "-c", '"$1"/run.sh --help', "-", "./" + name)
    assert done.returncode == 0 and done.stdout.startswith("usage: ./run.sh ")


def test_a_clone_with_carriage_returns_asked_for_has_none(copy):
    if not shutil.which("git"):
        pytest.skip("there is no git")
    shutil.copy(os.path.join(ROOT, ".gitattributes"), str(copy))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "--force", "."], ["commit", "--quiet", "--message", "all"],
                    ["clone", "--quiet", "-c", "core.autocrlf=true", ".", "../clone"]):
        done = run(copy, *git + command)
        assert done.returncode == 0, done.stdout
    clone = copy.parent / "clone"
    assert benchmark(clone)[:len(EXPECTED)] == EXPECTED
    for path in (path for path in copy.rglob("*") if ".git" not in path.parts and path.is_file()):
        if path.suffix not in (".pyc", ".lock", ".txt", ".html"):
            assert (clone / path.relative_to(copy)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("module", ["script_arguments", "installation", "runs.locks", "data.raw_files"])
def test_what_the_scripts_start_before_set_up_needs_the_standard_library_alone(module):
    done = run(ROOT, sys.executable, "-S", "-c", "import utils." + module)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", ["run.sh", "train.sh", "infer.sh"])
def test_help_and_wrong_arguments_are_answered_before_anything_is_installed(project, script):
    bare_python = project / "bare python"  # the standard library alone
    bare_python.write_text('#!/bin/sh\nexec "%s" -S "$@"\n' % sys.executable)
    bare_python.chmod(0o755)
    variables = {"VENV": ".venv", "BASE_PYTHON": str(bare_python)}
    assert run(project, bare_python, "-c", "import numpy").returncode == 1
    done = run(project, "./" + script, "--help", **variables)
    assert done.returncode == 0 and done.stdout.startswith("usage: ./%s " % script)
    done = run(project, "./" + script, "--bogus", **variables)
    assert (done.returncode, done.stdout) == (1, "error: unrecognized arguments: --bogus; see ./%s --help\n" % script)
    assert not (project / ".venv").exists()
