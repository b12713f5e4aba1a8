"""Scores the test set with the best checkpoint that train.py left; writes a row in results_infer.csv."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from utils.commands import infer

if __name__ == "__main__":
    infer(__file__)
