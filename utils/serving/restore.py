"""A trained model in a session."""
import contextlib

from utils.dataset import fingerprint
from utils.engine.session import Session
from utils.runs.checkpoints import BEST, Checkpoints
from utils.runs.identity import check_identity
from utils.tf1 import tf
from utils.towers import session_config


@contextlib.contextmanager
def restored(make, name, dataset, save_path, num_accelerators=1, num_threads=1):
    """Yields (what `make` makes, a session with the best checkpoint in `save_path`, the checkpoint's global step).

    Raises UserError where the checkpoint is missing, damaged, or not of the model `name` trained on `dataset`.

    Args:
      make: a function that makes a graph, such as a `ScoringGraph`, in TensorFlow's default graph.
      num_threads: how many towers are to be side by side, or how many threads will call the session at a time.
    """
    with tf.Graph().as_default():
        graph, step = make(), tf.train.get_or_create_global_step()
        with Session(config=session_config(num_accelerators, num_threads)) as session:
            checkpoints = Checkpoints(save_path, tf.train.Saver())
            state = checkpoints.state()
            if state:  # a checkpoint from elsewhere, such as the authors', has none
                check_identity(state["run"], {"model": name, "dataset_fingerprint": fingerprint(dataset)}, save_path)
            checkpoints.restore(session, BEST)
            yield graph, session, int(session.run(step))
