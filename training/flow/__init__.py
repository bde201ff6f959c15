"""Rectified flow between data and noise: σ in [0, 1], 1 is noise, x = (1 - σ) x0 + σ e, and the network predicts e - x0."""
