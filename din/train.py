"""Trains DIN, or with --dice its Dice variant; writes checkpoints, TensorBoard logs and a row in results_train.csv."""
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))

from utils import timing  # noqa: F401  imported first: its clock counts this script's start-up
from utils.arguments import train_parser
from utils.files import run_main

# The authors' hyperparameters; the learning rate falls to a tenth at step 336,000 (utils/optimizers.py).
OPTIMIZER = "sgd"
LEARNING_RATES = {"sgd": 1.0, "adam": 0.001}  # initial, with each optimizer


def add_dice(parser):
    """Adds the flag that chooses the variant."""
    parser.add_argument("--dice", action="store_true", help="the Dice variant; its save_path is save_path/dice")


def choose_model(arguments):
    """Returns the model class and its name in the CSVs, and sets the default save_path."""
    variant = "dice" if arguments.dice else ""
    arguments.save_path = arguments.save_path or os.path.join(FOLDER, "save_path", variant)
    if arguments.dice:
        from din.model_dice import Model
        return Model, "din_dice"
    from din.model import Model
    return Model, "din"


def main():
    parser = train_parser(FOLDER, __doc__, OPTIMIZER, LEARNING_RATES)
    add_dice(parser)
    arguments = parser.parse_args()
    from utils.train_loop import train  # after the flags are known to be right: TensorFlow takes seconds to load
    train(*choose_model(arguments), arguments)


if __name__ == "__main__":
    run_main(main)
