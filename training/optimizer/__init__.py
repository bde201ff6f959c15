"""What moves the weights: the optimizer, and the average of where it has been."""
