"""run.sh, train.sh, infer.sh, prepare_dataset.sh and setup.sh, as their users run them, in a copy of the project."""
import csv
import fcntl
import os
import re
import subprocess
import sys

import pytest

from tests.helpers import random_dataset
from tests.test_names import written as write_names
from utils.dataset import write_dataset
from utils.files import ROOT, UserError
from utils.models import names
from utils.runs import locks
from utils.runs.locks import acquire

DATASET = random_dataset(users=300)
FOLDERS = ("din", "deepFM", "pnn", "wide_deep")


def run(project, *command, **environment):
    """Runs a script in the environment that the tests run in; `environment` holds further variables.

    Inference is of one pass, where they don't say otherwise: the tests are to be quick.
    """
    clean = dict(os.environ, **dict({"DURATION": "0"}, **environment))
    del clean["TF_CPP_MIN_LOG_LEVEL"]  # utils.tf1 has set it in this process
    return subprocess.run([str(part) for part in command], cwd=str(project), env=clean, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=300)


def rows(project, stage):
    with open(str(project / "results" / ("results_%s.csv" % stage)), newline="") as file:
        return list(csv.DictReader(file))


def reported(project):
    """The CSVs that the report was made of."""
    page = (project / "results" / "report.html").read_text(encoding="utf-8")
    return [stage for stage in ("train", "infer") if "results_%s.csv of " % stage in page]


def write_datasets(project):
    for folder in FOLDERS:
        write_dataset(str(project / folder / "dataset.pkl"), DATASET)


def test_run_trains_and_infers_at_each_batch_size(project):
    write_datasets(project)
    done = run(project, "./run.sh", "--eval_every", 5, MODELS="din_dice pnn", BATCH_SIZES="64 128", EPOCHS="1",
               NUM_ACCELERATORS="2")
    assert done.returncode == 0, done.stderr
    expected = [(model, batch_size) for model in ("din_dice", "pnn") for batch_size in ("64", "128")]
    for stage in ("train", "infer"):
        assert [(row["model"], row["batch_size"]) for row in rows(project, stage)] == expected
        for model, batch_size in expected:
            log = (project / "results" / ("result_%s_%s_%s.txt" % (stage, model, batch_size))).read_text()
            assert "Total recommendations: " in log
    for trained, inferred in zip(rows(project, "train"), rows(project, "infer")):
        assert trained["epochs"] == "1"
        assert trained["num_accelerators"] == inferred["num_accelerators"] == "2"
        assert inferred["gauc"] == trained["best_gauc"] and inferred["checkpoint_step"] == trained["best_step"]
    assert (project / "din" / "save_path" / "dice" / "batch_64" / "ckpt.index").exists()
    assert (project / "pnn" / "save_path" / "batch_128" / "ckpt.index").exists()
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    assert reported(project) == ["train", "infer"]
    assert {path.name for path in (project / "results").glob("*.png")} >= {
        "throughput_training_random.png", "throughput_inference_random.png", "latency_random.png"}


def test_infer_covers_every_model_and_accelerator_and_passes_its_arguments_on(project):
    write_datasets(project)
    settings = {"MODELS": "all", "BATCH_SIZES": "32", "NUM_ACCELERATORS": "2"}
    assert run(project, "./train.sh", "--max_steps", 1, **settings).returncode == 0
    done = run(project, "./infer.sh", "--num_ads", 6, **settings)
    assert done.returncode == 0, done.stderr
    inferred = rows(project, "infer")
    assert [row["model"] for row in inferred] == names() == ["deepFM", "din", "din_dice", "pnn", "wide_deep"]
    for row in inferred:
        assert (row["num_accelerators"], row["batch_size"]) == ("2", "32")
        assert int(row["recommendations"]) == 6 * len(DATASET.test.users)


def test_inference_goes_on_until_its_figure_is_steady_or_for_a_duration(project):
    write_datasets(project)
    settings = {"MODELS": "pnn", "BATCH_SIZES": "16", "EPOCHS": "1"}
    assert run(project, "./train.sh", **settings).returncode == 0
    whole_batches, users = len(DATASET.test.users) // 16, len(DATASET.test.users)
    for duration in ("", "0.5", "0"):
        done = run(project, "./infer.sh", DURATION=duration, **settings)
        assert done.returncode == 0, done.stderr
        row, = rows(project, "infer")
        assert row["duration"] == (duration or "steady")
        count, seconds = re.search(r"\((\d+) batches in (\S+) seconds", done.stdout).groups()
        assert (int(count) > whole_batches) == (duration != "0")
        assert (int(row["recommendations"]) > 2 * users) == (duration == "0.5"), "the clocks else count one pass"
        assert duration or float(row["steady_half_width"]) < 0.02 or float(seconds) > 20


def losses(project):
    """The lines of a training's log that have its losses and evaluations."""
    log = (project / "results" / "result_train_pnn_32.txt").read_text()
    return [line for line in log.splitlines() if "Global_step" in line or "test_gauc" in line]


def test_a_cluster_of_two_workers_gives_the_losses_of_two_accelerators(project):
    write_datasets(project)
    settings = {"MODELS": "pnn", "BATCH_SIZES": "32", "EPOCHS": "1"}
    assert run(project, "./train.sh", "--eval_every", 5, NUM_ACCELERATORS="2", **settings).returncode == 0
    expected = losses(project)
    done = run(project, "./train_cluster.sh", "--eval_every", 5, **settings)
    assert done.returncode == 0, done.stderr
    row, = rows(project, "train")
    assert (row["num_workers"], row["num_accelerators"]) == ("2", "1")
    assert losses(project) == expected and len(expected) > 4
    assert done.stdout.count("\nbest test_gauc: ") == 1 and "worker 1" not in done.stderr
    assert (project / "pnn" / "save_path" / "batch_32" / "ckpt.index").exists()
    assert run(project, "./infer.sh", **settings).returncode == 0
    assert reported(project) == ["train", "infer"]


def test_a_cluster_in_which_a_worker_fails_ends_with_its_error(project):
    write_datasets(project)
    done = run(project, "./train_cluster.sh", BATCH_SIZES="99999", NUM_WORKERS="2")
    error = "error: a batch of 199998 is larger than the training set of "
    assert done.returncode == 1 and not (project / "results" / "results_train.csv").exists()
    assert sorted(line.split(error)[0] for line in done.stderr.splitlines()) == ["", "worker 1: "]


@pytest.mark.parametrize("environment, error", [
    ({"NUM_WORKERS": "two"}, "NUM_WORKERS is two; give 1 or more"),
    ({"DURATION": "long"}, "DURATION is long; give seconds, 0 or more"),
    ({"NUM_WORKERS": "2", "ARGUMENTS": "--profile"},
     "--profile traces one machine; leave it out, or unset NUM_WORKERS"),
    ({"DURATION": "-1"}, "DURATION is -1; give seconds, 0 or more"),
    ({"NUM_WORKERS": "0"}, "NUM_WORKERS is 0; give 1 or more"),
    ({"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}'},
     "TF_CONFIG names several workers, which is for train.py itself on each machine; run that, or unset it")])
def test_settings_of_workers_that_the_scripts_do_not_take_are_an_error(project, environment, error):
    done = run(project, "./train_cluster.sh", *environment.pop("ARGUMENTS", "").split(), **environment)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: %s\n" % error)


def test_a_duration_is_given_once(project):
    done = run(project, "./infer.sh", "--duration", 2, DURATION="3")
    assert done.stderr == "error: DURATION is set, and --duration is given; leave one of them out\n"


@pytest.mark.parametrize("environment, error", [
    ({"BATCH_SIZES": "256 -1"}, "BATCH_SIZES has -1; give numbers, each 1 or more"),
    ({"BATCH_SIZES": "*"}, "BATCH_SIZES has *; give numbers, each 1 or more"),
    ({"BATCH_SIZES": " "}, "BATCH_SIZES has none; give numbers, each 1 or more"),
    ({"EPOCHS": "0"}, "EPOCHS is 0; give 1 or more"),
    ({"EPOCHS": "1 2"}, "EPOCHS is 1 2; give 1 or more"),
    ({"NUM_ACCELERATORS": "two"}, "NUM_ACCELERATORS is two; give 1 or more"),
    ({"MODELS": "*"}, "no model *; MODELS is 'all' or some of: deepFM din din_dice pnn wide_deep")])
@pytest.mark.parametrize("script", ["./run.sh", "./infer.sh"])
def test_variables_that_are_not_what_they_must_be_are_an_error_before_anything_is_moved(
        project, script, environment, error):
    (project / "results" / "results_infer.csv").write_text("earlier\n")
    done = run(project, script, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: %s\n" % error)
    assert (project / "results" / "results_infer.csv").read_text() == "earlier\n"


@pytest.mark.parametrize("script, flags, environment, error", [
    ("run.sh", ["--batch_size", 64], {}, "run.sh sets --batch_size; use the variable: BATCH_SIZES=64 ./run.sh"),
    ("train.sh", ["--batch=64"], {}, "train.sh sets --batch_size; use the variable: BATCH_SIZES=64 ./train.sh"),
    ("infer.sh", ["--num_acc", 2], {},
     "infer.sh sets --num_accelerators; use the variable: NUM_ACCELERATORS=2 ./infer.sh"),
    ("train.sh", ["--ep", 3], {}, "train.sh sets --epochs; use the variable: EPOCHS=3 ./train.sh"),
    ("infer.sh", ["--save=x"], {},
     "infer.sh sets --save_path, to save_path/batch_<size> of each model; leave it out, or run infer.py itself"),
    ("run.sh", ["--results", "x"], {}, "run.sh sets --results, to results; leave it out, or run train.py itself"),
    ("run.sh", ["--dice"], {}, "--dice is a model for the scripts; use the variable: MODELS=din_dice ./run.sh"),
    ("run.sh", ["--dataset", "x"], {},
     "run.sh gives --dataset to training alone; run ./train.sh and ./infer.sh with it"),
    ("run.sh", ["--lr", "fast"], {"MODELS": "all"},
     "argument --lr: invalid positive_float value: 'fast'; see ./run.sh --help"),
    ("infer.sh", ["--top_k", 5, "--output", "x.csv"], {"BATCH_SIZES": "64 128", "MODELS": "din pnn"},
     "--output is one file, and there are 4 rankings; leave it out, and each is in its checkpoint's folder, or give "
     "one of MODELS and one of BATCH_SIZES"),
    ("infer.sh", ["--top_k", 5, "--num_ads", 7], {},
     "--num_ads does not go with --top_k, which ranks the whole catalogue; leave one of them out"),
    ("infer.sh", ["--top", 5], {"NUM_ACCELERATORS": "2"},
     "NUM_ACCELERATORS is 2, and --top_k ranks on one accelerator; leave one of them out"),
    ("infer.sh", [], {"MODELS": "pnn din_dice", "BATCH_SIZES": "64"},
     "no checkpoint of pnn at batch size 64; train first: MODELS=pnn BATCH_SIZES=64 ./train.sh")])
def test_arguments_that_a_script_can_not_pass_on_are_an_error_before_anything_is_moved(
        project, script, flags, environment, error):
    (project / "results" / "results_infer.csv").write_text("earlier\n")
    done = run(project, "./" + script, *flags, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: %s\n" % error)
    assert (project / "results" / "results_infer.csv").read_text() == "earlier\n"
    assert not list(project.glob("results_*")) and not (project / "raw_data").exists()


def test_help_is_the_commands_and_moves_nothing(project):
    (project / "results" / "results_infer.csv").write_text("earlier\n")
    for script, flag in (("run.sh", "--lr"), ("train.sh", "--lr"), ("infer.sh", "--top_k")):
        done = run(project, "./" + script, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("usage: ./%s " % script) and flag in done.stdout
    assert (project / "results" / "results_infer.csv").read_text() == "earlier\n"


def test_each_ranking_is_in_its_checkpoints_folder_and_the_results_stay(project, tmp_path):
    write_datasets(project)
    settings = {"MODELS": "din_dice pnn din_dice", "BATCH_SIZES": "64 64"}
    trained = run(project, "./train.sh", "--max_steps", 1, **settings)
    assert trained.returncode == 0 and trained.stdout.count("== training ") == 2, trained.stderr
    (project / "results" / "results_infer.csv").write_text("earlier\n")
    names_of_data = write_names(tmp_path, DATASET)
    done = run(project, "./infer.sh", "--top_k", 2, "--users", 3, "--remap", names_of_data, **settings)
    assert done.returncode == 0, done.stderr
    for model, save_path in (("din_dice", "din/save_path/dice"), ("pnn", "pnn/save_path")):
        lines = (project / save_path / "batch_64" / "recommendations.csv").read_text().splitlines()
        assert len(lines) == 1 + 2 * 3
        assert (project / "results" / ("result_rank_%s_64.txt" % model)).exists()
    assert (project / "results" / "results_infer.csv").read_text() == "earlier\n"
    output = tmp_path / "top.csv"
    done = run(project, "./infer.sh", "--top_k", 2, "--remap", names_of_data, "--output", output, MODELS="pnn",
               BATCH_SIZES="64")
    assert done.returncode == 0 and output.exists(), done.stderr


def test_a_crash_ends_the_script_with_its_status_leaves_no_row_and_keeps_earlier_results(project):
    write_datasets(project)
    results = project / "results"
    (results / "results_train.csv").write_text("earlier\n")
    done = run(project, "./run.sh", BATCH_SIZES="64 99999", EPOCHS="1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: a batch of 99999 is larger than the training set")
    assert [row["batch_size"] for row in rows(project, "train")] == ["64"]
    assert not (results / "results_infer.csv").exists()
    aside, = project.glob("results_*")
    assert [path.name for path in aside.iterdir()] == ["results_train.csv"]  # the project's own file stays
    assert (aside / "results_train.csv").read_text() == "earlier\n" and (results / "published.csv").exists()


@pytest.mark.parametrize("script, folder", [("run.sh", "results"), ("train.sh", "results"), ("infer.sh", "results"),
                                            ("prepare_dataset.sh", "raw_data")])
def test_a_second_script_at_work_in_the_same_folder_is_refused(project, script, folder):
    with acquire(str(project / folder / ".lock")):
        done = run(project, "./" + script)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: process %d is at work in %s; wait until it has ended\n" % (
        os.getpid(), project / folder)


def test_a_killed_script_can_be_started_again_while_what_it_started_comes_to_its_end(tmp_path):
    path = str(tmp_path / ".lock")
    script = subprocess.Popen(  # the shell is killed, the sleeping process that it started goes on for a while
        [sys.executable, os.path.join(ROOT, "utils", "runs", "locks.py"), path, "bash", "-c", "sleep 1 & kill -9 $$"])
    script.wait()
    with pytest.raises(BlockingIOError), open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with acquire(path) as file:
        file.seek(0)
        assert file.read() == "%d\n" % os.getpid()


def test_a_script_is_not_started_beside_what_a_killed_one_left_at_work(tmp_path, monkeypatch):
    path = str(tmp_path / ".lock")
    script = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, "utils", "runs", "locks.py"), path, "bash", "-c", "sleep 5 & kill -9 $$"])
    script.wait()
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    with pytest.raises(UserError) as error:
        acquire(path)
    assert str(error.value) == ("process %d is gone, but one that it started is at work in %s; wait until it has ended"
                                % (script.pid, tmp_path))


def test_inference_before_training_says_to_train_first(project):
    write_datasets(project)
    done = run(project, "./infer.sh", BATCH_SIZES="64")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no checkpoint ")
    assert done.stderr.rstrip().endswith("train first: MODELS=din BATCH_SIZES=64 ./train.sh")


@pytest.mark.parametrize("script", ["./train.sh", "./infer.sh", "./run.sh"])
def test_an_unknown_model_is_an_error(project, script):
    done = run(project, script, MODELS="din dien")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no model dien; MODELS is 'all' or some of: deepFM din din_dice pnn wide_deep\n"
    done = run(project, script, MODELS=" ")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("error: MODELS names no model;")


@pytest.mark.parametrize("command", [["./prepare_dataset.sh", "--sample", "huge"], ["./prepare_dataset.sh", "real"],
                                     ["./setup.sh", "everything"]])
def test_unknown_arguments_are_an_error(project, command):
    done = run(project, *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: unknown arguments: ") and done.stderr.count("\n") == 1


def test_prepared_steps_are_skipped_and_another_data_set_makes_all_anew(project):
    first = run(project, "./prepare_dataset.sh", "--sample")
    assert first.returncode == 0, first.stderr
    made = {folder: (project / folder / "dataset.pkl").stat().st_mtime_ns for folder in FOLDERS}
    again = run(project, "./prepare_dataset.sh", "--sample")
    assert again.returncode == 0 and again.stdout.count("up to date") == 2 + len(FOLDERS)
    assert {folder: (project / folder / "dataset.pkl").stat().st_mtime_ns for folder in FOLDERS} == made

    raw_data = project / "raw_data" / "own data"
    raw_data.mkdir()
    (raw_data / "reviews_Electronics_5.json").write_text("".join(
        '{"reviewerID": "U%d", "asin": "I%d", "unixReviewTime": %d}\n' % (user, (user + k) % 9, k)
        for user in range(8) for k in range(4)))
    (raw_data / "meta_Electronics.json").write_text("".join(
        "{'asin': 'I%d', 'categories': [['Own', 'C%d']]}\n" % (item, item % 3) for item in range(9)))
    refused = run(project, "./prepare_dataset.sh", RAW_DATA=str(raw_data))
    assert refused.returncode == 1 and "SKIP_CHECKSUM=1" in refused.stderr
    assert {folder: (project / folder / "dataset.pkl").stat().st_mtime_ns for folder in FOLDERS} == made
    changed = run(project, "./prepare_dataset.sh", RAW_DATA=str(raw_data), SKIP_CHECKSUM="1")
    assert changed.returncode == 0, changed.stderr
    assert changed.stdout.count("own_data, 32 training examples, 8 test users, 9 items, 3 categories") == len(FOLDERS)


def test_each_model_folder_works_as_the_readme_says(project):
    write_datasets(project)
    done = run(project, "bash", "-c",
               "cd deepFM && '%s' train.py --batch_size 64 --epochs 1 > log.txt 2>&1" % sys.executable)
    assert done.returncode == 0
    log = (project / "deepFM" / "log.txt").read_text()
    assert "\ntest_gauc: " in "\n" + log and "\nEpoch 0 DONE\tCost time: " in log, log  # TensorFlow 2.20 greets before
    assert (project / "deepFM" / "save_path" / "ckpt.index").exists()
    row, = rows(project, "train")
    assert (row["model"], row["optimizer"], row["learning_rate"]) == ("deepFM", "adam", "0.001")


def test_a_change_of_what_a_model_reads_takes_effect(project):
    write_datasets(project)
    with open(str(project / "pnn" / "input.py"), "a") as file:
        file.write("from utils import batches\n\n\ndef train_batches(*arguments, **options):\n"
                   "    for batch in batches.train_batches(*arguments, **options):\n"
                   "        yield batches.split_batch(batch, 2)[0]\n")
    done = run(project, sys.executable, "pnn/train.py", "--batch_size", 32, "--max_steps", 3)
    assert done.returncode == 0, done.stderr
    assert "Total recommendations: 48\n" in done.stdout


def test_the_last_lines_of_set_up_are_tensorflow_and_the_devices(project):
    done = run(project, sys.executable, "-m", "utils.towers")
    assert done.returncode == 0, done.stderr
    versions, devices = done.stdout.splitlines()
    assert versions.startswith("TensorFlow ") and devices.startswith("Devices: ")


@pytest.mark.parametrize("commands, problem", [("echo 3.6.15", "is Python 3.6.15, not 3.7 to 3.13"),
                                               ("exit 127", "can't be run")])  # as pyenv's for versions not chosen
def test_setup_says_which_python_it_needs_and_makes_no_environment_with_another(project, tmp_path, commands, problem):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n%s\n" % commands)
    python.chmod(0o755)
    done = run(project, "./setup.sh", VENV="environment", BASE_PYTHON=str(python))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("error: %s %s; install Python 3.7 to 3.13 and name it, for example BASE_PYTHON=python3.11 "
                           "./setup.sh\n" % (python, problem))
    assert not (project / "environment").exists()
