"""Scoring with variables that stay as they are: what infer.py does to each batch, and what its benchmark measures.

What the model needs of an item alone is computed once, for all items (engine/tables.py), and the remainder in towers
side by side, on a CPU one on each core.
"""
import numpy as np

from utils.batches import split_batch
from utils.engine.scoring_graph import in_blocks
from utils.engine.tables import Tables
from utils.tf1 import tf
from utils.towers import gpu_names

# (history item, candidate) pairs that a tower on a CPU scores at a time, some 256 users with two candidates each: DIN's
# rows of 128 for each are 2 MB. All in one call take 5% longer, with 100 candidates or 4,096 users; a quarter as many,
# 25%.
PAIRS_TOGETHER = 4096


class Scorer:
    """Scores batches by a `ScoringGraph`, with its variables in `session` as they are now.

    `session` is a session.Session, `item_count` the number of items, `devices` what each tower is on.
    """

    def __init__(self, graph, session, item_count, devices):
        history, segments, lengths, candidates = graph.inputs
        tables = Tables(session, graph.logits, [history, candidates], [segments, lengths], item_count)
        inputs, logits = [], []  # of each tower: [history [N], candidates [B, C], segments [N], lengths [B]]; [B, C]
        for device in devices:
            inputs.append([tf.placeholder(placeholder.dtype, placeholder.shape)
                           for placeholder in (history, candidates, segments, lengths)])
            logits.append(tables.copy(inputs[-1], device))
        self._towers = len(logits)
        self._score = session.make_callable(logits, sum(inputs, []))

    def score(self, batch):
        """Returns the logits [B, C] of `batch`, at least one user."""
        pairs = len(batch.history) * batch.candidates.shape[1]
        calls = 1 if gpu_names() else min(max(1, round(pairs / (PAIRS_TOGETHER * self._towers))), len(batch.lengths))
        return np.concatenate([in_blocks(part, self._score_in_towers) for part in split_batch(batch, calls)])

    def _score_in_towers(self, batch):
        return np.concatenate(self._score(*[
            array for part in split_batch(batch, self._towers)
            for array in (part.history, part.candidates, part.segments, part.lengths)]))
