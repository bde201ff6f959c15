"""From noise to latents along the flow, with classifier-free guidance, by Euler's method, as LTXPipeline goes.

Tested in tests/training/flow/test_schedule.py.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(tokens [B, S, C], σ [B]) → predicted velocity [B, S, C], for a condition of its own for each of the B."""


def guided(velocity: Velocity, scale: float) -> Velocity:
    """v_u + scale × (v_c - v_u), in float32; `velocity` is asked once for both, [unconditional, conditional]."""

    def both(tokens: Tensor, sigma: Tensor) -> Tensor:
        without, given = velocity(torch.cat([tokens, tokens]), torch.cat([sigma, sigma])).float().chunk(2)
        return without + scale * (given - without)

    return both


@torch.no_grad()
def integrate(velocity: Velocity, noise: Tensor, sigmas: Tensor) -> Tensor:
    """The tokens at σ = 0, from `noise` [B, S, C] at σ = 1, in float32; a step from each of `sigmas` to the next."""
    tokens = noise.float()
    for now, then in pairwise(sigmas):
        at = now.to(tokens.device).expand(len(tokens))
        tokens = tokens + (then - now).to(tokens.device) * velocity(tokens, at).float()
    return tokens
