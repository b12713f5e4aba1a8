"""Which models there are: a folder of the project with model.py is one, and model_<variant>.py beside it is another.

    din/model.py         din                 python din/train.py
    din/model_dice.py    din_dice            python din/train.py --dice
"""
import glob
import importlib
import os
import re
import typing

from utils.files import ROOT, UserError


class Place(typing.NamedTuple):
    """Where a model is."""
    folder: str   # below the project's
    variant: str  # "" for model.py itself

    @property
    def module(self):
        return "%s.model%s" % (self.folder, self.variant and "_" + self.variant)

    @property
    def save_path(self):
        """The folder in which train.py leaves its checkpoints, unless told otherwise."""
        return os.path.join(*filter(None, (ROOT, self.folder, "save_path", self.variant)))


def places():
    """{what the CSVs and the scripts call a model: its `Place`}, in alphabetical order.

    Raises:
      UserError: two models have the same name.
    """
    by_name = {}
    for path in glob.glob(os.path.join(glob.escape(ROOT), "*", "model*.py")):
        parts = re.match(r"([A-Za-z]\w*)/model(?:_(\w+))?\.py$", os.path.relpath(path, ROOT))
        if parts and os.path.exists(os.path.join(os.path.dirname(path), "model.py")):
            place = Place(*parts.groups(default=""))
            name = "_".join(filter(None, place))
            if name in by_name:
                raise UserError("%s and %s are both the model %s; rename one"
                                % (by_name[name].module, place.module, name))
            by_name[name] = place
    return dict(sorted(by_name.items(), key=lambda item: item[0].upper()))


def names():
    """The names of all models."""
    return list(places())


def place_of(name):
    """The `Place` of a model.

    Raises:
      UserError: there is no such model.
    """
    if name not in places():
        raise UserError("no model %s; there are %s" % (name, " ".join(names())))
    return places()[name]


def model_class(name):
    """The class of a model; raises UserError where its module has none."""
    module = importlib.import_module(place_of(name).module)
    if not hasattr(module, "Model"):
        raise UserError("%s has no class Model; call the model's class so" % module.__file__)
    return module.Model


def training_flags(name):
    """(the optimizer that the authors train a model with, {optimizer: its initial learning rate})."""
    script = importlib.import_module(place_of(name).folder + ".train")
    return script.OPTIMIZER, script.LEARNING_RATES
