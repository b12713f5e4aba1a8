"""Product-based Neural Network (PNN), as the authors of DIN compare with it."""
