"""Scripts that were interrupted go on with what is left, and take nothing else for what they did."""
import sys

from tests.helpers import random_dataset
from tests.test_scripts import reported, rows, run, write_datasets
from utils.dataset import write_dataset

INTERRUPTED = {"MODELS": "pnn", "BATCH_SIZES": "64 32", "EPOCHS": "1"}


def interrupt_at_the_second_batch_size(project, *command):
    """Runs a command, which ends at batch size 32 by a file where its checkpoints go; takes the file away."""
    interrupt(project, "batch_32", *command, **INTERRUPTED)


def interrupt(project, folder, *command, **variables):
    """Runs a command, which ends by a file in the place of `folder`, below pnn's save_path; takes the file away."""
    write_datasets(project)
    in_the_way = project / "pnn" / "save_path" / folder
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("")
    assert run(project, *command, **variables).returncode == 1
    in_the_way.unlink()


def test_an_interrupted_benchmark_goes_on_where_it_stopped(project):
    interrupt_at_the_second_batch_size(project, "./run.sh")
    first, = rows(project, "train")
    done = run(project, "./run.sh", **INTERRUPTED)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["going on with what was interrupted", "== training pnn, batch size 64",
                         "done before the interruption"]
    assert rows(project, "train")[0] == first and len(rows(project, "train")) == len(rows(project, "infer")) == 2
    assert not list(project.glob("results_*"))
    anew = run(project, "./train.sh", **INTERRUPTED)
    assert anew.stdout.startswith("earlier results are in results_") and len(rows(project, "train")) == 2
    assert reported(project) == ["train"]
    assert run(project, "./infer.sh", **INTERRUPTED).returncode == 0
    assert reported(project) == ["train", "infer"]


def test_with_seeds_a_benchmark_goes_on_with_those_that_are_left_and_other_seeds_are_another_command(project):
    settings = dict(INTERRUPTED, BATCH_SIZES="64", SEEDS="5 6")
    interrupt(project, "batch_64_seed_6", "./run.sh", **settings)
    first, = rows(project, "train")
    done = run(project, "./run.sh", **settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:4] == [
        "going on with what was interrupted", "== training pnn, batch size 64, seed 5", "done before the interruption",
        "== training pnn, batch size 64, seed 6"]
    assert rows(project, "train")[0] == first
    for stage in ("train", "infer"):
        assert [row["seed"] for row in rows(project, stage)] == ["5", "6"]
    interrupt(project, "batch_64_seed_8", "./train.sh", **dict(settings, SEEDS="7 8"))
    other = run(project, "./train.sh", **dict(settings, SEEDS="8"))
    assert other.returncode == 0 and "going on" not in other.stdout
    assert [row["seed"] for row in rows(project, "train")] == ["8"]


def test_a_row_that_was_made_by_hand_is_not_taken_for_an_interrupted_scripts(project):
    interrupt_at_the_second_batch_size(project, "./train.sh", "--lr", 0.5)
    by_hand = run(project, sys.executable, "pnn/train.py", "--batch_size", 32, "--epochs", 1, "--lr", 0.5)
    assert by_hand.returncode == 0, by_hand.stderr
    done = run(project, "./train.sh", "--lr", 0.5, **INTERRUPTED)
    assert done.stdout.count("done before the interruption") == 1
    assert run(project, "./infer.sh", **INTERRUPTED).returncode == 0


def test_another_command_in_between_does_not_discard_what_was_done(project):
    interrupt_at_the_second_batch_size(project, "./train.sh")
    assert run(project, "./infer.sh", **dict(INTERRUPTED, BATCH_SIZES="64")).returncode == 0
    done = run(project, "./train.sh", **INTERRUPTED)
    assert done.stdout.splitlines()[:3] == ["going on with what was interrupted", "== training pnn, batch size 64",
                                            "done before the interruption"]
    assert [row["batch_size"] for row in rows(project, "train")] == ["64", "32"]
    assert not (project / "results" / ".unfinished").exists()


def test_a_script_that_another_takes_the_results_of_is_given_up_and_said_to_be(project):
    interrupt_at_the_second_batch_size(project, "./train.sh")
    other = run(project, "./train.sh", "--max_steps", 1, **dict(INTERRUPTED, BATCH_SIZES="64"))
    lines = other.stdout.splitlines()
    assert lines[0].startswith("earlier results are in results_")
    assert lines[1] == "train.sh had not come to its end; what it made is there, too"
    again = run(project, "./train.sh", **INTERRUPTED)
    assert again.stdout.startswith("earlier results are in results_") and "to its end" not in again.stdout
    assert "starting from the beginning" not in again.stdout, "there is nothing to go on with, and nothing wrong"


def test_a_script_begins_anew_whatever_run_was_interrupted_where_it_trains(project):
    write_datasets(project)
    flags = ("--batch_size", 32, "--epochs", 1, "--save_path", "save_path/batch_32", "--eval_every", 2)
    assert run(project / "pnn", sys.executable, "train.py", *flags, "--max_steps", 2).returncode == 0
    state = project / "pnn" / "save_path" / "batch_32" / "state.json"
    state.write_text(state.read_text().replace('"finished": true', '"finished": false'))
    done = run(project, "./train.sh", "--eval_every", 2, **dict(INTERRUPTED, BATCH_SIZES="32"))
    assert done.returncode == 0 and "resuming" not in done.stdout


def test_a_script_does_not_go_on_with_other_data_under_the_same_name(project, tmp_path):
    path = str(tmp_path / "x.pkl")
    write_dataset(path, random_dataset(users=100))
    flags = ("--dataset", path)
    interrupt_at_the_second_batch_size(project, "./train.sh", *flags)
    write_dataset(path, random_dataset(users=110))
    done = run(project, "./train.sh", *flags, **INTERRUPTED)
    assert done.returncode == 0 and "done before" not in done.stdout


def test_inference_that_was_moved_away_is_made_again_by_an_interrupted_run(project):
    write_datasets(project)
    settings = dict(INTERRUPTED, BATCH_SIZES="64 128")
    (project / "pnn" / "infer.py").write_text((project / "pnn" / "infer.py").read_text().replace(
        "    infer(__file__)", "    infer(__file__) if '128' not in sys.argv[2] else sys.exit(1)"))
    assert run(project, "./run.sh", **settings).returncode == 1
    assert [row["batch_size"] for row in rows(project, "infer")] == ["64"]
    assert run(project, "./infer.sh", **dict(INTERRUPTED, BATCH_SIZES="64")).returncode == 0
    (project / "pnn" / "infer.py").write_text((project / "pnn" / "infer.py").read_text().replace(
        " if '128' not in sys.argv[2] else sys.exit(1)", ""))
    done = run(project, "./run.sh", **settings)
    assert done.stdout.count("done before the interruption") == 2, "the trainings, not the inference"
    assert sorted(row["batch_size"] for row in rows(project, "infer")) == ["128", "64"]


def test_a_script_whose_rows_were_deleted_makes_them_again(project):
    interrupt_at_the_second_batch_size(project, "./train.sh")
    (project / "results" / "results_train.csv").unlink()
    done = run(project, "./train.sh", **INTERRUPTED)
    assert "done before" not in done.stdout and len(rows(project, "train")) == 2
