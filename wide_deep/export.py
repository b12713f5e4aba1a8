"""Writes the best checkpoint that train.py left as a SavedModel, a frozen graph or ONNX, for others to run."""
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))

from utils.commands import export
from utils.files import run_main

if __name__ == "__main__":
    run_main(lambda: export(FOLDER, __doc__))
