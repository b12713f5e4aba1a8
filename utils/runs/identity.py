"""Which run it is: the columns that name it, and the values that a checkpoint must share with it to be resumed."""
import numpy as np

from utils.dataset import fingerprint
from utils.files import UserError
from utils.results import POINT
from utils.tf1 import tf
from utils.towers import describe_device

# Flags that all workers of a cluster must share, beside the values of `identity`.
SHARED_FLAGS = ("batch_size", "num_accelerators", "epochs", "max_steps", "eval_every", "resume")


def settings(name, dataset, arguments, num_workers=1):
    """The columns, in either CSV, of the settings that a row was measured with, a dictionary."""
    return {"model": name, "dataset": dataset.name, "batch_size": arguments.batch_size,
            "num_accelerators": arguments.num_accelerators, "device": describe_device(arguments.num_accelerators),
            "tensorflow": tf.__version__, "num_workers": num_workers}


def identity(name, arguments, dataset, num_workers=1):
    """The values that a run must share with a checkpoint to resume from it, a JSON object."""
    return {"model": name, "dataset": dataset.name, "dataset_fingerprint": fingerprint(dataset), "seed": arguments.seed,
            "global_batch_size": arguments.batch_size * arguments.num_accelerators * num_workers,
            "optimizer": arguments.optimizer, "lr": arguments.lr}


def check_identity(run, expected, save_path):
    """Raises UserError unless `run`, of the checkpoint in `save_path`, has the values of `expected`."""
    for key, value in expected.items():
        if run.get(key) != value:
            raise UserError("the checkpoint in %s is of another run: its %s is %s, not %s; give its flags, or another "
                            "--save_path" % (save_path, key, run.get(key), value))


def fresh_state():
    """The state of a new run, a JSON object; a resumed run goes on from its checkpoint's."""
    return {"step": 0, "recommendations": 0, "train_loss": None, "gauc": None, "auc": None, "best_gauc": -1.0,
            "best_auc": None, "best_step": None, "at_chance": 0, "system_seconds": 0.0, "training_seconds": 0.0,
            "accelerator_seconds": 0.0}


def check_state(saved, fresh, save_path):
    """Raises UserError unless `saved`, the content of state.json, has a state like `fresh`, a new run's, and a curve.

    The state has the same names, with numbers where `fresh` may have None. A curve is a list of points of numbers, but
    for the loss before the first step, which is None.
    """
    state, curve = saved["state"], saved.get("curve")

    def fits(name):
        value = state[name]
        return value is fresh[name] is None or type(value) is int or (
            type(value) is float and np.isfinite(value) and type(fresh[name]) is not int)

    def is_point(point):
        return type(point) is dict and set(point) == set(POINT) and all(
            type(value) in (int, float) or value is None and name == "train_loss" for name, value in point.items())
    if (set(state) != set(fresh) or not all(map(fits, fresh)) or state["step"] < 0
            or type(curve) is not list or not all(map(is_point, curve))):
        raise UserError("state.json in %s is damaged; train again without --resume" % save_path)
