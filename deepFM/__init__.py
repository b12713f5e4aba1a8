"""DeepFM, as the authors of DIN compare with it."""
