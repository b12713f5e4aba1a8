"""Scores the test set with the best checkpoint that train.py left; writes a row in results_infer.csv."""
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))

from utils import timing  # imported first: its clock counts this script's start-up
from utils.commands import infer
from utils.files import run_main

if __name__ == "__main__":
    run_main(lambda: infer(FOLDER, __doc__))
