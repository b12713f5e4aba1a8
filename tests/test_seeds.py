"""SEEDS and TARGET_GAUC of the shell scripts: which runs they make, and what is said of values that they can't take."""
import pytest

from tests.test_scripts import rows, run, write_datasets
from utils.commands import LARGEST_SEED
from utils.results import by_seed, read_rows

NOT_SEEDS = "; give whole numbers, each from 0 to %d" % LARGEST_SEED
NO_TARGET = "; give a number from 0 to 1"
ONE = {"MODELS": "pnn", "BATCH_SIZES": "64", "EPOCHS": "1"}


@pytest.mark.parametrize("variables, error", [
    ({"SEEDS": "1 x"}, "SEEDS has x" + NOT_SEEDS), ({"SEEDS": "-1"}, "SEEDS has -1" + NOT_SEEDS),
    ({"SEEDS": "1 2147483648"}, "SEEDS has 2147483648" + NOT_SEEDS), ({"SEEDS": "1.0"}, "SEEDS has 1.0" + NOT_SEEDS),
    ({"SEEDS": "01 1"}, "SEEDS has 01" + NOT_SEEDS), ({"SEEDS": "*"}, "SEEDS has *" + NOT_SEEDS),
    ({"TARGET_GAUC": "abc"}, "TARGET_GAUC is abc" + NO_TARGET),
    ({"TARGET_GAUC": "1.5"}, "TARGET_GAUC is 1.5" + NO_TARGET),
    ({"TARGET_GAUC": "nan"}, "TARGET_GAUC is nan" + NO_TARGET)])
@pytest.mark.parametrize("script", ["./run.sh", "./infer.sh"])
def test_values_that_are_no_seeds_or_no_target_are_an_error_before_anything_is_moved(project, script, variables, error):
    (project / "results" / "results_infer.csv").write_text("earlier\n")
    done = run(project, script, **variables)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: %s\n" % error)
    assert (project / "results" / "results_infer.csv").read_text() == "earlier\n"


@pytest.mark.parametrize("script, flags, variables, error", [
    ("run.sh", ["--seed", 3], {"SEEDS": "1 2"}, "SEEDS is set, and --seed is given; leave one of them out"),
    ("train.sh", ["--target=0.7"], {"TARGET_GAUC": "0.8"},
     "TARGET_GAUC is set, and --target_gauc is given; leave one of them out"),
    ("infer.sh", ["--num_ads", 3, "--seed", 3], {"SEEDS": "1 2", "TARGET_GAUC": "0.8"},
     'no checkpoint of pnn at batch size 64 with SEEDS="1 2"; train first: MODELS=pnn BATCH_SIZES=64 SEEDS="1 2" '
     "./train.sh"),
    ("infer.sh", ["--top_k", 5, "--output", "x.csv"], {"SEEDS": "1 2 1"},
     "--output is one file, and there are 2 rankings; leave it out, and each is in its checkpoint's folder, or give "
     "one of SEEDS")])
def test_a_flag_is_given_once_and_the_seed_of_candidates_is_not_that_of_training(
        project, script, flags, variables, error):
    done = run(project, "./" + script, *flags, **dict(ONE, **variables))
    assert (done.returncode, done.stderr) == (1, "error: %s\n" % error)


@pytest.mark.parametrize("flags, variables, error", [
    ([], {}, 'at batch size 64 without SEEDS; there are checkpoints with: MODELS=pnn BATCH_SIZES=64 SEEDS="2 10" '
     "./infer.sh"),
    (["--top_k", 3], {}, 'at batch size 64 without SEEDS; there are checkpoints with: MODELS=pnn BATCH_SIZES=64 '
     'SEEDS="2 10" ./infer.sh'),
    ([], {"SEEDS": "2 3 10 4"}, 'at batch size 64 with SEEDS="3 4"; train first: MODELS=pnn BATCH_SIZES=64 SEEDS="3 4" '
     "./train.sh"),
    ([], {"BATCH_SIZES": "6"}, "at batch size 6; train first: MODELS=pnn BATCH_SIZES=6 ./train.sh")])
def test_inference_says_which_seeds_there_are_checkpoints_of_before_anything_is_moved(project, flags, variables, error):
    (project / "results" / "results_infer.csv").write_text("earlier\n")
    for folder in ("batch_64_seed_10", "batch_64_seed_2", "batch_64_seed_old"):
        (project / "pnn" / "save_path" / folder).mkdir(parents=True)
        (project / "pnn" / "save_path" / folder / "ckpt.index").write_text("")
    (project / "pnn" / "save_path" / "batch_64_seed_3").mkdir()
    done = run(project, "./infer.sh", *flags, **dict(ONE, **variables))
    assert (done.returncode, done.stderr) == (1, "error: no checkpoint of pnn %s\n" % error)
    assert (project / "results" / "results_infer.csv").read_text() == "earlier\n"


def test_rows_of_each_seed_differ_in_it_alone_and_have_what_the_flags_of_training_say(project):
    write_datasets(project)
    done = run(project, "./run.sh", "--selection", "validation", "--patience", 2, "--eval_every", 5,
               SEEDS="2147483647 0", TARGET_GAUC="0.99", **ONE)
    assert done.returncode == 0, done.stderr
    for stage in ("train", "infer"):
        group, = by_seed(read_rows(str(project / "results"), stage), stage)
        assert [row["seed"] for row in group] == ["2147483647", "0"]
        for row in group:
            assert (row["selected_on"], row["patience"], float(row["target_gauc"])) == ("validation", "2", 0.99)
    for trained, inferred in zip(rows(project, "train"), rows(project, "infer")):
        assert inferred["gauc"] == trained["best_gauc"] and trained["validation_gauc"] != ""


def test_a_cluster_trains_with_each_seed(project):
    write_datasets(project)
    done = run(project, "./train_cluster.sh", "--max_steps", 2, SEEDS="1 2", **ONE)
    assert done.returncode == 0, done.stderr
    first, second = rows(project, "train")
    assert (first["seed"], second["seed"]) == ("1", "2") and first["final_loss"] != second["final_loss"]
    assert {row["num_workers"] for row in (first, second)} == {"2"}
