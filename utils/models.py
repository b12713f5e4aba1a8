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
        """The default folder of its checkpoints."""
        return os.path.join(ROOT, self.folder, "save_path", self.variant)


def places():
    """{what the CSVs and the scripts call a model: its `Place`}, in alphabetical order.

    Raises:
      UserError: two models have the same name.
    """
    named = {}
    for path in glob.glob(os.path.join(glob.escape(ROOT), "*", "model*.py")):
        folder, match = os.path.basename(os.path.dirname(path)), re.match(r"model(?:_(\w+))?\.py$", os.path.basename(path))
        if match and re.match(r"[A-Za-z]\w*$", folder) and os.path.exists(os.path.join(os.path.dirname(path), "model.py")):
            place = Place(folder, match.group(1) or "")
            name = "_".join(filter(None, place))
            if name in named:
                raise UserError("%s and %s are both the model %s; rename one" % (named[name].module, place.module, name))
            named[name] = place
    return dict(sorted(named.items(), key=lambda item: item[0].upper()))


def names():
    """The names of all models."""
    return list(places())


def variants_of(folder):
    """The variants of the model in `folder`, one of the project's."""
    return [place.variant for place in places().values() if place.folder == folder and place.variant]


def place_of(name):
    """The `Place` of a model.

    Raises:
      UserError: there is no such model.
    """
    if name not in places():
        raise UserError("no model %s; there are %s" % (name, " ".join(names())))
    return places()[name]


def model_class(name):
    """The class of a model."""
    return importlib.import_module(place_of(name).module).Model
