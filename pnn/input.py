"""The padding-free batches (utils/batches.py) that PNN is trained and scored on; others would stand here."""
from utils.batches import test_batches, train_batches
