"""Trains DeepFM; writes checkpoints, TensorBoard logs and a row in results_train.csv."""
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))

from utils import timing  # imported first: its clock counts this script's start-up
from utils.commands import train
from utils.files import run_main

# The authors' hyperparameters; the learning rate is multiplied by 0.9 each time 336,000 steps are done (utils/engine/optimizers.py).
OPTIMIZER = "adam"
LEARNING_RATES = {"sgd": 1.0, "adam": 0.001, "lazy_adam": 0.001}  # initial, with each optimizer

if __name__ == "__main__":
    run_main(lambda: train(FOLDER, __doc__, OPTIMIZER, LEARNING_RATES))
