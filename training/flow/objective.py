"""The flow-matching loss: how far the predicted velocity is from noise minus data."""

from __future__ import annotations

from torch import Tensor


def noised(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """(1 - σ) x0 + σ e for tokens [B, S, C] and σ [B]."""
    weight = sigma.view(-1, *[1] * (clean.ndim - 1))
    return (1 - weight) * clean + weight * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """dx/dσ, which the network is to predict."""
    return noise - clean


def loss_per_sample(predicted: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
    """[B], float32: the mean over a sample's tokens and channels of the squared error."""
    return (predicted.float() - velocity(clean, noise)).square().flatten(1).mean(1)
