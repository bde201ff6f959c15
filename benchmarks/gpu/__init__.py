"""Measurements of the model at its published size on one GPU, with random weights: they need no data, and no Ray."""
