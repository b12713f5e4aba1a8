"""What every model shares: data preparation, batching, layers, training, measuring."""
