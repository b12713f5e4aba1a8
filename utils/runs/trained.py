"""Whether train.sh has left the checkpoints that infer.sh is to take, checked before that moves earlier results.

    python -m utils.runs.trained MODELS BATCH_SIZES SEEDS      each a text, with spaces between; SEEDS may be empty

A checkpoint is in the folder batch_<size> of the model's save_path, with a seed in batch_<size>_seed_<seed> (shell.sh).
"""
import glob
import os
import sys

from utils import models
from utils.files import UserError, run_main


def _has_checkpoint(folder):
    # The second is that of a run that was killed while its files were being moved (checkpoints.py).
    return any(os.path.exists(os.path.join(folder, index)) for index in ("ckpt.index", ".ready/ckpt.index"))


def _folder(save_path, batch_size, seed):
    return os.path.join(save_path, "batch_" + "_seed_".join(filter(None, (batch_size, seed))))


def trained_seeds(save_path, batch_size):
    """The seeds, texts in ascending order, with which there is a checkpoint at `batch_size`, a text, in `save_path`."""
    start = _folder(save_path, batch_size, "") + "_seed_"
    seeds = [folder[len(start):] for folder in glob.glob(glob.escape(start) + "*") if _has_checkpoint(folder)]
    return sorted(filter(str.isdecimal, seeds), key=int)


def check_checkpoints(name, batch_size, seeds):
    """Raises UserError where training of the model `name` at `batch_size` has left no checkpoint with one of `seeds`.

    Sizes and seeds are texts. Without seeds it is the checkpoint of a training whose seed no variable named.
    """
    save_path = models.place_of(name).save_path
    what, settings = "%s at batch size %s" % (name, batch_size), "MODELS=%s BATCH_SIZES=%s " % (name, batch_size)
    if seeds:
        missing = [seed for seed in seeds if not _has_checkpoint(_folder(save_path, batch_size, seed))]
        if missing:
            variable = 'SEEDS="%s"' % " ".join(missing)
            raise UserError("no checkpoint of %s with %s; train first: %s%s ./train.sh"
                            % (what, variable, settings, variable))
    elif not _has_checkpoint(_folder(save_path, batch_size, "")):
        others = trained_seeds(save_path, batch_size)
        if others:
            raise UserError('no checkpoint of %s without SEEDS; there are checkpoints with: %sSEEDS="%s" ./infer.sh'
                            % (what, settings, " ".join(others)))
        raise UserError("no checkpoint of %s; train first: %s./train.sh" % (what, settings))


def main():
    names, batch_sizes, seeds = map(str.split, sys.argv[1:])
    for name in names:
        for batch_size in batch_sizes:
            check_checkpoints(name, batch_size, seeds)


if __name__ == "__main__":
    run_main(main)
