"""Writes the best checkpoint that train.py left as a SavedModel, a frozen graph or ONNX, for others to run."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from utils.commands import export

if __name__ == "__main__":
    export(__file__)
