"""Which σ are visited: the sampler's steps, and the density that training draws from. Both shift with the number of tokens.

The line is LTX-Video's own (its scheduler's configuration): longer sequences keep more of their signal at the same σ, so
both go to higher ones. `mu` is the same in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor


def mu(scheduler: FlowMatchEulerDiscreteScheduler, tokens: int) -> float:
    """The shift of a sequence of so many tokens, on the line through the two that the scheduler names."""
    config = scheduler.config
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    return float(config.base_shift + slope * (tokens - config.base_image_seq_len))


def sampling_sigmas(scheduler: FlowMatchEulerDiscreteScheduler, steps: int, tokens: int) -> Tensor:
    """[steps + 1], float32: from 1 to 0, as diffusers' LTXPipeline goes."""
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu(scheduler, tokens))
    return scheduler.sigmas.float()


@dataclass(frozen=True)
class Density:
    """What σ is drawn from in training (paper: unspecified).

    `shifted` is sigmoid(N(mu, 1)), as LTX-Video's own trainer draws it; `uniform` is uniform. `tails` is the share of
    draws that are uniform in any case, so that the ends of the range are not forgotten.
    """

    kind: Literal["shifted", "uniform"] = "shifted"
    tails: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.tails <= 1:
            raise ValueError(f"tails must lie between 0 and 1, not {self.tails}")

    def sigma(self, shift: float, normal: Tensor, uniform: Tensor) -> Tensor:
        """σ of each sample, from a standard normal and a pair [..., 2] of uniform numbers of its own."""
        if self.kind == "uniform":
            return uniform[..., 0]
        return torch.where(uniform[..., 1] < self.tails, uniform[..., 0], torch.sigmoid(normal + shift))
