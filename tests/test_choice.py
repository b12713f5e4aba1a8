"""Without --save_path the best checkpoint of the model is taken, of those that train.py and run.sh leave."""
import json
import os
import shutil
import sys

import pytest

from tests.helpers import Folder, random_dataset
from tests.test_names import written as write_names
from utils import batches, models, show_attention
from utils.commands import export_parser, infer_parser
from utils.files import UserError
from utils.infer_loop import infer
from utils.models import model_class
from utils.serving.export import export
from utils.serving.ranking import recommend

DATASET = random_dataset()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a data set and a checkpoint in each of the folders din and din_dice, after 3 steps."""
    path = tmp_path_factory.mktemp("trained")
    for name in ("din", "din_dice"):
        Folder(path / name, DATASET, name).train("--batch_size", 64, "--max_steps", 3, "--save_path", path / name)
    return path


class Project:
    """A project's folder, in which din has the data set DATASET, and the checkpoints that are put there."""

    def __init__(self, path, trained):
        self._trained, self.path = trained, str(path)
        os.makedirs(os.path.join(self.path, "din"))
        for name in ("model.py", "model_dice.py"):
            open(os.path.join(self.path, "din", name), "w").close()
        shutil.copy(str(trained / "din" / "dataset.pkl"), os.path.join(self.path, "din"))

    def __call__(self, *parts):
        return os.path.join(self.path, "din", *parts)

    def put(self, folder, gauc, variables_of="din", **run):
        """Puts a checkpoint into `folder`, below save_path, with a GAUC and parts of the identity of its training."""
        path = self("save_path", folder)
        os.makedirs(path, exist_ok=True)
        source = str(self._trained / variables_of)
        for name in os.listdir(source):
            if name.startswith("ckpt."):
                shutil.copy(os.path.join(source, name), path)
        with open(os.path.join(source, "state.json")) as file:
            state = json.load(file)
        state["state"]["best_gauc"] = gauc
        state["run"].update(run)
        with open(os.path.join(path, "state.json"), "w") as file:
            json.dump(state, file)

    def infer(self, name="din"):
        flags = ["--results", os.path.join(self.path, "results"), "--batch_size", "16", "--duration", "0"]
        infer(model_class(name), batches, name, infer_parser(self("."), "").parse_args(flags))


@pytest.fixture
def project(tmp_path, trained, monkeypatch):
    project = Project(tmp_path / "project", trained)
    monkeypatch.setattr(models, "ROOT", project.path)
    monkeypatch.setattr(show_attention, "ROOT", project.path)
    monkeypatch.chdir(project.path)
    return project


def first_line(capfd):
    return capfd.readouterr().out.splitlines()[0]


def test_the_only_checkpoint_is_taken_wherever_it_is(project, capfd):
    project.put("batch_64", 0.6)
    project.infer()
    assert first_line(capfd) == "checkpoint: din/save_path/batch_64, step 3, GAUC 0.6000, the only one of din"
    os.rename(project("save_path", "batch_64"), project("checkpoints"))
    shutil.rmtree(project("save_path"))
    os.rename(project("checkpoints"), project("save_path"))
    project.infer()
    assert first_line(capfd) == "checkpoint: din/save_path, step 3, GAUC 0.6000, the only one of din"


def test_of_several_the_best_of_the_model_is_taken(project, capfd):
    project.put("", 0.61)
    project.put("batch_64", 0.63)
    project.put("batch_128", 0.62)
    project.put("batch_32", 0.9, model="pnn")
    project.put("other", 0.95)
    project.put("dice/batch_64", 0.97, variables_of="din_dice")
    project.put("dice/batch_128", 0.96, variables_of="din_dice")
    project.infer()
    assert first_line(capfd) == "checkpoint: din/save_path/batch_64, step 3, GAUC 0.6300, the best of 3 of din"
    project.infer("din_dice")
    assert first_line(capfd) == (
        "checkpoint: din/save_path/dice/batch_64, step 3, GAUC 0.9700, the best of 2 of din_dice")


def test_one_of_other_data_is_not_chosen_where_there_is_one_of_this_data(project, capfd):
    project.put("batch_64", 0.9, dataset_fingerprint="other")
    with pytest.raises(UserError, match="its dataset_fingerprint is other, not "):
        project.infer()
    project.put("batch_128", 0.6)
    project.infer()
    assert first_line(capfd) == "checkpoint: din/save_path/batch_128, step 3, GAUC 0.6000, the only one of din"


def test_those_selected_on_validation_go_before_those_selected_on_the_test_set_and_are_compared_among_themselves(
        project, capfd):
    project.put("batch_64_seed_1", 0.61, selection="validation")
    project.put("batch_64_seed_2", 0.62, selection="validation")
    project.infer()
    assert first_line(capfd) == (
        "checkpoint: din/save_path/batch_64_seed_2, step 3, GAUC 0.6200 on validation, the best of 2 of din")
    project.put("batch_64", 0.9)
    project.put("batch_128", 0.8, selection="test")
    project.put("batch_32", 0.95, dataset_fingerprint="other")
    project.infer()
    assert first_line(capfd) == (
        "checkpoint: din/save_path/batch_64_seed_2, step 3, GAUC 0.6200 on validation, the best of 2 of din; left out: "
        "2 selected on the test set")


def test_one_of_other_data_is_not_chosen_for_being_selected_on_validation(project, capfd):
    project.put("batch_64", 0.9, dataset_fingerprint="other", selection="validation")
    project.put("batch_128", 0.6)
    project.infer()
    assert first_line(capfd) == "checkpoint: din/save_path/batch_128, step 3, GAUC 0.6000, the only one of din"


def test_a_checkpoint_from_elsewhere_is_taken_where_there_is_no_other(project, capfd):
    project.put("", 0.9)
    os.remove(project("save_path", "state.json"))
    project.infer()
    assert first_line(capfd) == "checkpoint: din/save_path, step 3, GAUC unknown, the only one of din"
    project.put("batch_128", 0.1)
    project.infer()
    assert first_line(capfd) == "checkpoint: din/save_path/batch_128, step 3, GAUC 0.1000, the only one of din"


def test_where_there_is_none_it_says_where_it_looked(project):
    project.put("batch_64", 0.9, model="pnn")
    with pytest.raises(UserError) as raised:
        project.infer()
    assert str(raised.value) == ("no checkpoint of din in din/save_path or din/save_path/batch_*; train first: python "
                                 "train.py, or name its folder: --save_path")


def test_a_folder_that_is_named_is_the_only_one_and_what_is_below_it_is_said(project):
    project.put("batch_64", 0.6)
    project.put("batch_128", 0.7)
    flags = ["--save_path", project("save_path")]
    with pytest.raises(UserError) as raised:
        export(model_class("din"), "din", export_parser(project("."), "").parse_args(flags))
    assert str(raised.value) == (
        "no checkpoint {0}/ckpt; there are some in folders below, name one: --save_path {0}/batch_64 or {0}/batch_128"
        .format(project("save_path")))


def test_what_is_made_of_a_checkpoint_lies_in_its_folder(project, tmp_path, capfd, monkeypatch):
    project.put("batch_64", 0.6)
    project.put("batch_128", 0.7)
    remap, folder = write_names(tmp_path), project("save_path", "batch_128")
    line = "checkpoint: din/save_path/batch_128, step 3, GAUC 0.7000, the best of 2 of din"
    recommend(model_class("din"), "din", infer_parser(project("."), "").parse_args(["--top_k", "2", "--remap", remap]))
    assert first_line(capfd) == line and os.path.exists(os.path.join(folder, "recommendations.csv"))
    export(model_class("din"), "din", export_parser(project("."), "").parse_args(["--format", "frozen"]))
    assert first_line(capfd) == line and os.path.exists(os.path.join(folder, "frozen.pb"))
    monkeypatch.setattr(sys, "argv", ["show_attention", "--user", "0", "--remap", remap])
    show_attention.main()
    assert first_line(capfd) == line and os.path.exists(os.path.join(folder, "attention_reviewer 0.png"))
