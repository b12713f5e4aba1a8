"""Scores the test set with the best checkpoint that train.py left; writes a row in results_infer.csv."""
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))

from utils import timing  # imported first: its clock counts this script's start-up
from utils.arguments import common_parser
from utils.files import run_main


def main():
    arguments = common_parser(FOLDER, __doc__).parse_args()
    from wide_deep import input as batches  # after the flags are known to be right: TensorFlow takes seconds to load
    from wide_deep.model import Model
    from utils.infer_loop import infer
    infer(Model, batches, "wide_deep", arguments)


if __name__ == "__main__":
    run_main(main)
