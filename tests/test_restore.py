"""Checkpoints that a trained model is restored from, and those that are refused."""
import json
import os

import numpy as np
import pytest

from tests.helpers import TWO_EPOCHS, Folder, random_dataset, run_script
from tests.test_names import written as write_names
from utils.commands import export_parser
from utils.dataset import fingerprint
from utils.engine.scoring_graph import ScoringGraph
from utils.files import UserError
from utils.models import model_class
from utils.runs.checkpoints import BEST, LATEST
from utils.serving.export import export
from utils.serving.restore import Checkpoint, restored
from utils.tf1 import tf

DATASET = random_dataset()


@pytest.fixture
def trained(folder):
    folder.row = folder.train(*TWO_EPOCHS)
    return folder


def rewrite(folder, name, change):
    """Writes the checkpoint `name` of a `Folder` anew, with what the function `change` makes of {variable: value}."""
    path = os.path.join(folder.save_path, name)
    reader = tf.train.load_checkpoint(path)
    values = change({variable: reader.get_tensor(variable) for variable in reader.get_variable_to_shape_map()})
    with tf.Graph().as_default(), tf.Session() as session:
        saver = tf.train.Saver({variable: tf.Variable(value) for variable, value in values.items()})
        session.run(tf.global_variables_initializer())
        saver.save(session, path, write_meta_graph=False, write_state=False)


def with_first(variable, value):
    """A change that gives the first number of `variable` another value."""
    def change(values):
        changed = values[variable].copy()
        changed.flat[0] = value
        return dict(values, **{variable: changed})
    return change


def infer(folder, tmp_path):
    folder.infer()


def top_k(folder, tmp_path):
    folder.recommend("--top_k", 3, "--remap", write_names(tmp_path))


def saved_model(folder, tmp_path):
    export(model_class("din"), "din", export_parser(folder.path, "").parse_args(["--save_path", folder.save_path]))


def show_attention(folder, tmp_path):
    done = run_script("-m", "utils.show_attention", "--user", 0, "--save_path", folder.save_path, "--dataset",
                      os.path.join(folder.path, "dataset.pkl"), "--remap", write_names(tmp_path))
    assert done.returncode == 1
    raise UserError(done.stderr.replace("error: ", "", 1).rstrip("\n"))


COMMANDS = [infer, top_k, saved_model, show_attention]


def restored_of(folder):
    return restored(lambda: ScoringGraph(model_class("din"), DATASET), "din", DATASET, folder.save_path)


def test_a_restored_model_says_which_checkpoint_it_is(trained):
    with open(os.path.join(trained.save_path, "state.json")) as file:
        run = json.load(file)["run"]
    assert run["seed"] == 1234
    with restored_of(trained) as (_, _, checkpoint):
        assert checkpoint == Checkpoint(trained.save_path, int(trained.row["best_step"]), run, fingerprint(DATASET))
    os.remove(os.path.join(trained.save_path, "state.json"))
    with restored_of(trained) as (_, _, checkpoint):
        assert checkpoint == Checkpoint(trained.save_path, int(trained.row["best_step"]), {}, fingerprint(DATASET))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_variable_that_is_not_finite_is_an_error_and_nothing_is_written(trained, tmp_path, command, value):
    rewrite(trained, BEST, with_first("item_emb_w", value))
    before = sorted(os.listdir(trained.path) + os.listdir(trained.save_path) + os.listdir(trained.path + "/results"))
    with pytest.raises(UserError) as raised:
        command(trained, tmp_path)
    assert str(raised.value) == ("the checkpoint in %s has values in item_emb_w that are not finite; train again: "
                                 "python train.py" % trained.save_path)
    assert before == sorted(os.listdir(trained.path) + os.listdir(trained.save_path)
                            + os.listdir(trained.path + "/results"))


@pytest.mark.parametrize("model", ["din", "pnn"])
def test_scores_that_overflow_are_an_error_of_the_ranking(tmp_path, capfd, model):
    folder = Folder(tmp_path / model, DATASET, model=model)
    folder.train("--max_steps", 1)
    rewrite(folder, BEST, lambda values: {name: value + 3e38 if name.endswith("kernel") else value
                                          for name, value in values.items()})
    with pytest.raises(UserError, match="^the scores of the model are not finite; train again, with a lower --lr$"):
        folder.recommend("--top_k", 3, "--remap", write_names(tmp_path))
    assert not os.path.exists(os.path.join(folder.save_path, "recommendations.csv"))
    assert "warning" not in capfd.readouterr().err


def test_a_variable_of_another_shape_than_the_models_is_an_error(trained):
    for name in (BEST, LATEST):
        rewrite(trained, name, lambda values: dict(values, item_emb_w=values["item_emb_w"][:, :5]))
    error = (r"save_path/%s does not fit or is damaged \(item_emb_w has the shape \[50, 5\] there, \[50, 64\] in the "
             r"model\); train again: python train.py$")
    with pytest.raises(UserError, match=error % BEST):
        trained.infer()
    with pytest.raises(UserError, match=error % LATEST):
        trained.train(*TWO_EPOCHS, "--resume")
