"""The flow-matching loss: the squared error of the predicted velocity against noise minus data."""

from __future__ import annotations

from torch import Tensor


def noised(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return the noisy tokens (1 - σ) x0 + σ e, for clean tokens x0 and noise e, both [B, S, C], and σ [B]."""
    weight = sigma.view(-1, *[1] * (clean.ndim - 1))
    return (1 - weight) * clean + weight * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """Return the velocity dx/dσ = e - x0, which the network learns to predict."""
    return noise - clean


def loss_per_sample(predicted: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
    """Return the mean squared error over each sample's tokens and channels, [B] in float32."""
    return (predicted.float() - velocity(clean, noise)).square().flatten(1).mean(1)
