"""What moves the weights: the optimiser, and the average of where it has been."""
