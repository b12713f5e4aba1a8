"""A trained model, ready to score: the best checkpoint in a save_path, in a session."""
import contextlib

from utils.checkpoints import BEST, Checkpoints
from utils.dataset import fingerprint
from utils.tf1 import tf
from utils.towers import session_config
from utils.train_loop import build, check_identity


@contextlib.contextmanager
def trained_model(model_class, name, dataset, save_path, num_accelerators=1, batch_size=1):
    """Gives the started model with the variables of the best checkpoint in `save_path`.

    Args:
      model_class: a subclass of BaseModel.
      name: what the CSVs call it.
      dataset: the Dataset that it was trained on.
      num_accelerators, batch_size: devices to split each batch over, and users per device.

    Raises:
      UserError: the checkpoint is missing or damaged, or of another model or data set.
    """
    with tf.Graph().as_default() as graph:
        model = build(model_class, dataset, num_accelerators, batch_size)
        graph.finalize()
        with tf.Session(config=session_config(num_accelerators, len(model.inputs))) as session:
            checkpoints = Checkpoints(save_path, model.saver)
            state = checkpoints.state()
            if state:  # a checkpoint from elsewhere, such as the authors', has none
                check_identity(state["run"], {"model": name, "dataset_fingerprint": fingerprint(dataset)}, save_path)
            checkpoints.restore(session, BEST)
            model.start(session)
            yield model
