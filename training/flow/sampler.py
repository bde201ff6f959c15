"""The sampler: from noise to latents along the flow by Euler's method with classifier-free guidance, as in LTXPipeline.

Tested in tests/training/flow/test_schedule.py.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(tokens [B, S, C], σ [B]) → predicted velocity [B, S, C]. Each of the B rows has its own condition."""


def guided(velocity: Velocity, scale: float) -> Velocity:
    """Return the velocity with classifier-free guidance: v_u + scale × (v_c - v_u), in float32.

    `velocity` is called once for both halves of a doubled batch, [unconditional, conditional].
    """

    def both(tokens: Tensor, sigma: Tensor) -> Tensor:
        without, given = velocity(torch.cat([tokens, tokens]), torch.cat([sigma, sigma])).float().chunk(2)
        return without + scale * (given - without)

    return both


@torch.no_grad()
def integrate(velocity: Velocity, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Integrate the flow from `noise` [B, S, C] at σ = 1, and return the tokens at σ = 0, in float32.

    Take one Euler step from each of `sigmas` to the next.
    """
    tokens = noise.float()
    for now, then in pairwise(sigmas):
        at = now.to(tokens.device).expand(len(tokens))
        tokens = tokens + (then - now).to(tokens.device) * velocity(tokens, at).float()
    return tokens
