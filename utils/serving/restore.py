"""A trained model in a session."""
import contextlib
import os
import typing

from utils.dataset import fingerprint
from utils.engine.session import Session
from utils.files import UserError
from utils.runs.checkpoints import BEST, Checkpoints
from utils.runs.identity import check_identity, check_run
from utils.runs.log import log
from utils.serving.choice import best_checkpoint, named_checkpoint
from utils.tf1 import tf
from utils.towers import session_config


class Checkpoint(typing.NamedTuple):
    """Which checkpoint a session has."""
    save_path: str  # its folder
    step: int       # the global step
    run: dict       # identity of the training (runs/identity.py); empty for a checkpoint from elsewhere
    dataset_fingerprint: str  # of the data that it is used with


@contextlib.contextmanager
def restored(make, name, dataset, save_path, num_accelerators=1, num_threads=1):
    """Yields (what `make` makes, a session with the best checkpoint in `save_path`, the `Checkpoint`).

    Raises UserError where the checkpoint is missing, damaged, not of the model `name` trained on `dataset`, or has a
    variable that is not finite.

    Args:
      make: a function that makes a graph, such as a `ScoringGraph`, in TensorFlow's default graph.
      save_path: a folder; None: that of the best checkpoint where train.py and run.sh leave them, which the log names.
      num_threads: how many towers are to be side by side, or how many threads will call the session at a time.
    """
    data = fingerprint(dataset)
    save_path, words = (named_checkpoint(save_path), None) if save_path else best_checkpoint(name, data)
    with tf.Graph().as_default():
        graph, step = make(), tf.train.get_or_create_global_step()
        # In the graph: a variable that is fetched is copied, 2.3 GB for nine million items.
        finite = {variable.op.name: tf.reduce_all(tf.math.is_finite(variable)) for variable in tf.global_variables()
                  if variable.dtype.is_floating}
        with Session(config=session_config(num_accelerators, num_threads)) as session:
            checkpoints = Checkpoints(save_path, tf.train.Saver())
            with checkpoints.held():
                state = checkpoints.state()
                run = state["run"] if state else {}  # a checkpoint from elsewhere, such as the authors', has no state
                if state:
                    check_run(run, save_path)
                    check_identity(run, {"model": name, "dataset_fingerprint": data}, save_path)
                checkpoints.restore(session, BEST)
            for variable, is_finite in session.run(finite).items():
                if not is_finite:
                    raise UserError("the checkpoint in %s has values in %s that are not finite; train again: python "
                                    "train.py" % (save_path, variable))
            checkpoint = Checkpoint(save_path, int(session.run(step)), run, data)
            if words:
                log("checkpoint: %s, step %d, %s" % (os.path.relpath(save_path), checkpoint.step, words))
            yield graph, session, checkpoint
