"""The stochastic sampler of GRPO: the flow as an SDE, which gives each step a probability.

The distribution at each σ is that of the flow. A step from σ to σ' reaches a mean plus a deviation times standard
normal noise. The last step, to σ' = 0, has no noise, because the video would show it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from nextscene.training.config import PolicyConfig


class Transition(NamedTuple):
    """The normal distribution of a step: `mean` [B, S, C] in float32, and the deviation, 0 for a step without noise."""

    mean: Tensor
    deviation: float

    def sample(self, noise: Tensor) -> Tensor:
        """Return the tokens that the step reaches with standard normal `noise` [B, S, C]."""
        return self.mean + self.deviation * noise

    def log_prob(self, reached: Tensor) -> Tensor:
        """Return the log-probability (logprob) of the tokens that a noisy step reached, [B].

        It is the mean over tokens and channels, not the sum, as in all public trainers. That is why the clip range of
        the ratio is so small, in those trainers and here.
        """
        distance = ((reached - self.mean) / self.deviation).square().flatten(1).mean(1)
        return -0.5 * distance - math.log(self.deviation) - 0.5 * math.log(2 * math.pi)

    def kl_divergence(self, other: Tensor) -> Tensor:
        """Return the KL divergence from a step with the mean `other` and the same deviation, [B].

        It too is the mean over tokens and channels.
        """
        return ((self.mean - other) / self.deviation).square().flatten(1).mean(1) / 2


def transition(policy: PolicyConfig, tokens: Tensor, velocity: Tensor, now: float, then: float) -> Transition:
    """Return the step from `tokens` [B, S, C] at σ = `now` to σ = `then`, by the `velocity` there.

    `dance` adds noise of the same strength s at each σ (DanceGRPO), `flow` more at higher σ (Flow-GRPO): both
    discretize dx = (v + s² / 2σ · (x + (1 - σ) v)) dσ + s dw, the paper's formula. `cps` preserves the coefficients of
    signal and noise at each σ, and renews a part of the noise.
    """
    if then == 0:
        return Transition(tokens + (then - now) * velocity, 0.0)
    if policy.dynamics == "cps":
        angle = policy.eta * math.pi / 2
        clean, noise = tokens - now * velocity, tokens + (1 - now) * velocity
        return Transition((1 - then) * clean + then * math.cos(angle) * noise, then * math.sin(angle))
    strength = policy.eta
    if policy.dynamics == "flow":
        strength *= math.sqrt(now / (1 - (now if now < 1 else then)))
    step, pull = then - now, strength**2 / (2 * now)
    mean = tokens * (1 + pull * step) + velocity * (1 + pull * (1 - now)) * step
    return Transition(mean, strength * math.sqrt(-step))
