"""Trains Wide&Deep; writes checkpoints, TensorBoard logs and a row in results_train.csv."""
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))

from utils import timing  # imported first: its clock counts this script's start-up
from utils.arguments import train_parser
from utils.files import run_main

# The authors' hyperparameters; the learning rate falls to a tenth at step 336,000 (utils/optimizers.py).
OPTIMIZER = "sgd"
LEARNING_RATES = {"sgd": 1.0, "adam": 0.001}  # initial, with each optimizer


def main():
    arguments = train_parser(FOLDER, __doc__, OPTIMIZER, LEARNING_RATES).parse_args()
    from wide_deep import input as batches  # after the flags are known to be right: TensorFlow takes seconds to load
    from wide_deep.model import Model
    from utils.train_loop import train
    train(Model, batches, "wide_deep", arguments)


if __name__ == "__main__":
    run_main(main)
