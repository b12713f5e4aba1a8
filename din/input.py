"""What DIN reads: padding-free batches, explained in utils/batches.py; a model's own batching would stand here."""
from utils.batches import test_batches, train_batches
