"""The noise schedule: the σ of the sampler's steps, and those that training draws. Both shift with the sequence length.

The shift is LTX-Video's own, from its scheduler's configuration. At the same σ a longer sequence keeps more of its
signal, so longer sequences use higher σ.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from nextscene.training.config import TimestepDensity


def mu(scheduler: FlowMatchEulerDiscreteScheduler, tokens: int) -> float:
    """Return the shift of a sequence of `tokens` tokens, on the line through the two points of the configuration."""
    config = scheduler.config
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    return float(config.base_shift + slope * (tokens - config.base_image_seq_len))


def sampling_sigmas(scheduler: FlowMatchEulerDiscreteScheduler, steps: int, tokens: int) -> Tensor:
    """Return the σ of the sampler's steps, from 1 to 0, as in diffusers' LTXPipeline: [steps + 1], float32."""
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu(scheduler, tokens))
    sigmas: Tensor = scheduler.sigmas.float()
    return sigmas


def training_sigma(density: TimestepDensity, shift: float, normal: Tensor, uniform: Tensor) -> Tensor:
    """Return the σ of each sample [...], from its standard normal number [...] and its two uniform numbers [..., 2]."""
    if density.kind == "uniform":
        return uniform[..., 0]
    return torch.where(uniform[..., 1] < density.tails, uniform[..., 0], torch.sigmoid(normal + shift))
