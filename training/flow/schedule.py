"""Which σ are visited: the sampler's steps, and what training draws. Both shift with the number of tokens.

The shift is LTX-Video's own, from its scheduler's configuration: longer sequences keep more of their signal at the same
σ, so both go to higher ones.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from nextscene.training.config import TimestepDensity


def mu(scheduler: FlowMatchEulerDiscreteScheduler, tokens: int) -> float:
    """The shift of a sequence of so many tokens, on the line through the two that the scheduler names."""
    config = scheduler.config
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    return float(config.base_shift + slope * (tokens - config.base_image_seq_len))


def sampling_sigmas(scheduler: FlowMatchEulerDiscreteScheduler, steps: int, tokens: int) -> Tensor:
    """[steps + 1], float32: from 1 to 0, as diffusers' LTXPipeline goes."""
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu(scheduler, tokens))
    sigmas: Tensor = scheduler.sigmas.float()
    return sigmas


def training_sigma(density: TimestepDensity, shift: float, normal: Tensor, uniform: Tensor) -> Tensor:
    """σ of each sample [...], from a standard normal [...] and a pair [..., 2] of uniform numbers of its own."""
    if density.kind == "uniform":
        return uniform[..., 0]
    return torch.where(uniform[..., 1] < density.tails, uniform[..., 0], torch.sigmoid(normal + shift))
