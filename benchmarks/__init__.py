"""Both sides in one run: this project, and the original's way written plainly."""
import os

# TensorFlow reads it at import. Otherwise the padded side prints an error amid the table: oneDNN does without integers.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
