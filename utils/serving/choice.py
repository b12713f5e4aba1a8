"""Which checkpoint is taken: that in the folder that is named, else the best one that train.py and run.sh left."""
import glob
import os
import typing

import numpy as np

from utils import models
from utils.files import UserError
from utils.runs.checkpoints import BEST, Checkpoints

THIS_DATA, UNKNOWN_DATA, OTHER_DATA = 2, 1, 0  # what a checkpoint was trained on; the higher goes first


class Candidate(typing.NamedTuple):
    """A checkpoint that may be taken; the greatest one is."""
    data: int    # THIS_DATA, UNKNOWN_DATA or OTHER_DATA
    on_validation: bool  # whether it was selected, and its GAUC is, on the validation set; else on the test set
    gauc: float  # -1 where that is unknown
    save_path: str  # its folder


def batch_folders(save_path):
    """The folders of `save_path` in which run.sh trains, one for each batch size, or size and seed."""
    paths = glob.glob(os.path.join(glob.escape(save_path), "batch_*"))
    return sorted(filter(os.path.isdir, paths), key=lambda path: (len(path), path))


def named_checkpoint(save_path):
    """Returns `save_path`, a folder that --save_path names.

    Raises UserError where it has no checkpoint but its folders batch_* have, which are then named.
    """
    if not Checkpoints(save_path, None).has(BEST):
        below = [folder for folder in batch_folders(save_path) if Checkpoints(folder, None).has(BEST)]
        if below:
            raise UserError("no checkpoint %s; there are some in folders below, name one: --save_path %s"
                            % (os.path.join(save_path, BEST), " or ".join(below)))
    return save_path


def best_checkpoint(name, fingerprint):
    """Returns (the folder of the best checkpoint of the model `name`, what the log says of it).

    Looked at are the folder in which train.py leaves it and that folder's batch_*, of run.sh. One of the data of
    `fingerprint` goes before those of other data. GAUCs on the validation set and on the test set are not compared:
    one selected on validation goes before those selected on the test set. Then goes the highest GAUC. One without
    state.json, from elsewhere, counts as one of the model, of unknown GAUC.

    Raises:
      UserError: there is none, or one's state.json is damaged.
    """
    default = models.place_of(name).save_path
    candidates = []
    for folder in [default] + batch_folders(default):
        checkpoints = Checkpoints(folder, None)
        with checkpoints.held():
            is_there, state = checkpoints.has(BEST), checkpoints.state()
        if not is_there:
            continue
        if not state:
            candidates.append(Candidate(UNKNOWN_DATA, False, -1, folder))
        elif state["run"].get("model") == name:
            gauc = state["state"].get("best_gauc")
            is_known = isinstance(gauc, (int, float)) and np.isfinite(gauc)
            candidates.append(Candidate(
                THIS_DATA if state["run"].get("dataset_fingerprint") == fingerprint else OTHER_DATA,
                state["run"].get("selection") == "validation", gauc if is_known else -1, folder))
    if not candidates:
        shown = os.path.relpath(default)
        raise UserError("no checkpoint of %s in %s or %s; train first: python train.py, or name its folder: --save_path"
                        % (name, shown, os.path.join(shown, "batch_*")))
    best = max(candidates, key=lambda candidate: candidate[:3])  # of equals the first
    of_this_data = [candidate for candidate in candidates if candidate.data == best.data]
    count = sum(candidate.on_validation == best.on_validation for candidate in of_this_data)
    left_out = len(of_this_data) - count
    return best.save_path, "GAUC %s%s, %s%s" % (
        "unknown" if best.gauc < 0 else "%.4f" % best.gauc, " on validation" if best.on_validation else "",
        "the only one of " + name if count == 1 else "the best of %d of %s" % (count, name),
        "; left out: %d selected on the test set" % left_out if left_out else "")
