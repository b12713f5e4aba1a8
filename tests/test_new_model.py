"""A folder with model.py is a model: with nothing else touched, a changed copy of pnn/ runs, is reported and tested."""
import shutil
import sys

import pytest

from tests.helpers import random_dataset
from tests.test_names import written as write_names
from tests.test_scripts import reported, rows, run
from utils.dataset import write_dataset

FREE_TESTS = ["tests/test_%s.py" % name for name in ("any_model", "towers", "inference", "export", "ranking", "models")]


@pytest.fixture
def with_my_model(project):
    """A copy of the project with a further model: its MLP reads more than pnn's, and it has no item bias."""
    shutil.copytree(str(project / "pnn"), str(project / "my_model"))
    source = (project / "my_model" / "model.py").read_text()
    changed = source.replace("mlp([u, i, u * i]) + self.item_bias(candidate)", "mlp([u, i, u * i, tf.abs(u - i)])")
    assert changed != source
    (project / "my_model" / "model.py").write_text(changed)
    (project / "my_model" / "model_wide.py").write_text(
        "from my_model.model import Model as MyModel\n\n\nclass Model(MyModel):\n"
        "    def logit(self, history, candidate):\n"
        "        return super().logit(history, candidate) + self.item_bias(candidate)\n")
    write_dataset(str(project / "my_model" / "dataset.pkl"), random_dataset())
    return project


def test_it_is_run_ranked_exported_and_reported(with_my_model, tmp_path):
    project = with_my_model
    done = run(project, "./run.sh", "--max_steps", 30, MODELS="my_model my_model_wide", BATCH_SIZES="32")
    assert done.returncode == 0, done.stderr
    for stage in ("train", "infer"):
        assert [row["model"] for row in rows(project, stage)] == ["my_model", "my_model_wide"]
    assert reported(project) == ["train", "infer"]
    folder = project / "my_model"
    for flags, save_path in (([], "save_path/batch_32"), (["--wide"], "save_path/wide/batch_32")):
        done = run(folder, sys.executable, "infer.py", "--top_k", 3, "--remap", write_names(tmp_path), *flags)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        lines = (folder / save_path / "recommendations.csv").read_text().splitlines()
        assert len(lines) == 1 + 3 * len(random_dataset().test.users)
        assert "checkpoint: %s, step " % save_path in done.stdout
        for form in ("saved_model", "frozen"):
            done = run(folder, sys.executable, "export.py", "--format", form, *flags)
            assert done.returncode == 0, done.stderr
    done = run(project, "./train.sh", MODELS="my_models")
    assert done.stderr == ("error: no model my_models; MODELS is 'all' or some of: deepFM din din_dice my_model "
                           "my_model_wide pnn wide_deep\n")


def test_the_tests_that_name_no_model_run_on_it_and_the_others_say_why_they_do_not(with_my_model):
    done = run(with_my_model, sys.executable, "-m", "pytest", "-q", "-rs", "-k", "my_model and not my_model_wide",
               *FREE_TESTS)
    assert done.returncode == 0, done.stdout
    passed, skipped = (int(done.stdout.split(" " + word)[0].split()[-1].lstrip("=")) for word in ("passed", "skipped"))
    assert passed > 15 and skipped > 5, done.stdout
    assert "there are no golden values of my_model" in done.stdout
    assert "benchmarks/padded.py has no my_model" in done.stdout
