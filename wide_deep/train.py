"""Trains Wide&Deep; writes checkpoints, TensorBoard logs and a row in results_train.csv."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from utils.commands import train

# The authors' choice, whose learning rate falls to a tenth at step 336,000 (utils/engine/optimizers.py).
OPTIMIZER = "sgd"
LEARNING_RATES = {"sgd": 1.0, "adam": 0.001, "lazy_adam": 0.001}  # initial; the authors give that of their choice alone

if __name__ == "__main__":
    train(__file__, OPTIMIZER, LEARNING_RATES)
