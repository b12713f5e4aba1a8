"""Trains DIN, or with --dice its Dice variant; writes checkpoints, TensorBoard logs and a row in results_train.csv."""
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


def parse(parser):
    """Parses the command line, with the flag that chooses the variant; returns (model class, its name, arguments)."""
    parser.add_argument("--dice", action="store_true", help="the Dice variant; its save_path is save_path/dice")
    arguments = parser.parse_args()
    if not arguments.dice:
        from din.model import Model  # after the flags are known to be right: TensorFlow takes seconds to load
        return Model, "din", arguments
    if arguments.save_path == parser.get_default("save_path"):
        arguments.save_path = os.path.join(arguments.save_path, "dice")
    from din.model_dice import Model
    return Model, "din_dice", arguments


def main():
    Model, name, arguments = parse(train_parser(FOLDER, __doc__, OPTIMIZER, LEARNING_RATES))
    from din import input as batches
    from utils.train_loop import train
    train(Model, batches, name, arguments)


if __name__ == "__main__":
    run_main(main)
