"""What DeepFM reads: padding-free batches, explained in utils/batches.py; another batching would stand here."""
from utils.batches import test_batches, train_batches
