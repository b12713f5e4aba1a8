"""What prepares the data: raw files, pickles, draws, original ids, the generated sample."""
