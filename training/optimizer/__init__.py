"""The optimizer, its learning-rate schedule, gradient clipping, and the moving average of the weights."""
