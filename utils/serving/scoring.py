"""Scoring with variables that stay as they are: what infer.py does to each batch, and what its benchmark measures.

What the model needs of an item alone is computed once, for all items (graphs.Tables), and the rest in towers side by side,
on a CPU one on each core.
"""
import numpy as np

from utils.batches import split_batch
from utils.engine.scoring_graph import in_blocks
from utils.engine.tables import Tables
from utils.tf1 import tf
from utils.towers import gpu_names

# (history item, candidate) pairs that a tower on a CPU scores at a time, some 256 users with two candidates each: DIN's rows
# of 128 for each are 2 MB. All in one call take 5% longer, with 100 candidates or 4,096 users; a quarter as many, 25%.
PAIRS_TOGETHER = 4096


class Scorer:
    """Scores batches with `model`, a graph that only scores, as its variables in `session` are now.

    Args:
      model: a BaseModel with one tower, for any number of users.
      session: a session.Session.
      item_count: number of items.
      devices: what each tower is on (towers.tower_devices).
    """

    def __init__(self, model, session, item_count, devices):
        history, segments, lengths, candidates = model.inputs
        tables = Tables(session, model.logits, [history, candidates], [segments, lengths], item_count)
        inputs, logits = [], []  # of each tower: [history [N], candidates [B, C], segments [N], lengths [B]]; [B, C]
        for device in devices:
            inputs.append([tf.placeholder(placeholder.dtype, placeholder.shape)
                           for placeholder in (history, candidates, segments, lengths)])
            logits.append(tables.copy(inputs[-1], device))
        self._towers = len(logits)
        self._score = session.make_callable(logits, [placeholder for tower in inputs for placeholder in tower])

    def score(self, batch):
        """Returns the logits [B, C] of `batch`, at least one user."""
        return np.concatenate([in_blocks(some, self._of_all_towers) for some in split_batch(batch, self._calls(batch))])

    def _calls(self, batch):
        """In how many calls to score `batch`."""
        pairs = len(batch.history) * batch.candidates.shape[1]
        return 1 if gpu_names() else max(1, min(round(pairs / (PAIRS_TOGETHER * self._towers)), len(batch.lengths)))

    def _of_all_towers(self, batch):
        return np.concatenate(self._score(*[
            array for part in split_batch(batch, self._towers)
            for array in (part.history, part.candidates, part.segments, part.lengths)]))
