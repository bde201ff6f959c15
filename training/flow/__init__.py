"""Rectified flow from data to noise: x = (1 - σ) x0 + σ e for σ in [0, 1], and the network predicts e - x0."""
