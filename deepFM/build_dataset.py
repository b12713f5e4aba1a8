"""raw_data/remap.pkl -> deepFM/dataset.pkl: training and test examples. The recipe is in utils/dataset.py."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from utils.commands import build_dataset

if __name__ == "__main__":
    build_dataset(__file__)
