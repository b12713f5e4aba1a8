"""What PNN reads: padding-free batches of histories and candidates, explained in utils/batches.py.

train_batches(train, batch_size, seed, epoch)   one epoch of (history, candidate, label), in an order of its own
test_batches(test, batch_size)                  every test user with the candidates [positive, negative], or more
"""
from utils.batches import Batch, test_batches, train_batches
