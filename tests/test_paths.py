"""Whatever takes a path takes any path."""
import os
import shutil

import pytest

from tests.helpers import Folder, run_script
from tests.test_names import written as write_names

pytest.importorskip("waitress", reason="pip install -r requirements/serve.txt")
from examples import serve

# TensorFlow takes paths for patterns, shells split them, Python formats with %, HTML has signs of its own.
NAME = "-a b [1] {c,d} *? 'q' \"r\" $HOME %s &amp; \\ ~ ; # @2 漢\n" + os.fsdecode(b"caf\xe9")  # not in UTF-8


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / NAME, model="pnn")


def run(*command):
    """Runs a command of the project as its users do."""
    done = run_script(*command, errors="surrogateescape")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_model_is_trained_resumed_restored_exported_and_served_in_any_folder(folder, tmp_path):
    results, checkpoint = os.path.join(folder.path, "results"), ["--save_path", folder.save_path]
    checkpoint += ["--dataset", os.path.join(folder.path, "dataset.pkl")]
    for steps in (2, 4):
        run("pnn/train.py", *checkpoint, "--results", results, "--batch_size", 64, "--max_steps", steps, "--resume")
    assert [row["steps"] for row in folder.rows("train")] == ["2", "4"]
    run("pnn/infer.py", *checkpoint, "--results", results, "--batch_size", 16, "--duration", 0)
    assert [row["checkpoint_step"] for row in folder.rows("infer")] == [folder.rows("train")[-1]["best_step"]]
    names = write_names(tmp_path)
    run("pnn/infer.py", *checkpoint, "--top_k", 3, "--remap", names)
    assert os.path.getsize(os.path.join(folder.save_path, "recommendations.csv"))
    run("pnn/export.py", *checkpoint, "--remap", names)
    here = os.getcwd()
    assert serve.Predictor(os.path.join(folder.save_path, "saved_model"), 100).version == 1
    assert os.getcwd() == here


def test_results_are_reported_and_compared_in_any_folder(folder):
    folder.train("--max_steps", 1)
    results, others = (os.path.join(folder.path, name) for name in ("results", "others"))
    shutil.copytree(results, others)
    run("-m", "utils.report", "--results", results)
    run("-m", "utils.compare_results", results, others, "--output", os.path.join(folder.path, "comparison"))
    assert "report.html" in os.listdir(results)
    assert sorted(os.listdir(os.path.join(folder.path, "comparison"))) == [
        "comparison.csv", "comparison.md", "comparison.png"]
