"""Both sides in one run: this project, and the original's way written plainly."""
