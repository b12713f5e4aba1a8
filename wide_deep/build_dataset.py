"""raw_data/remap.pkl -> wide_deep/dataset.pkl: training and test examples. The recipe is in utils/dataset.py."""
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))

from utils.dataset import build_dataset
from utils.files import run_main

if __name__ == "__main__":
    run_main(lambda: build_dataset(FOLDER))
