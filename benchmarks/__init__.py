"""Both sides in one run: this project, and the original's way written plainly."""
import os

# Before TensorFlow is imported, which on the padded side says that oneDNN does without integers, as an error, amid the table.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
