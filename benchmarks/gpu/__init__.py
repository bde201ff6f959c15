"""Measurements of the model at its published size on one GPU, with random weights. They need neither data nor Ray."""
