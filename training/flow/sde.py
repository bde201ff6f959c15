"""The flow with noise mixed in on the way: the same distributions at each σ, and a probability for each step.

A step from σ to σ' goes to a mean, from there by a deviation times standard normal noise. The last one, to σ' = 0, is
the flow's own, without noise: a clip would keep it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from nextscene.training.recipe import PolicyConfig


class Transition(NamedTuple):
    """Where a step leads: `mean` [B, S, C] in float32, and the deviation around it, 0 for a step without noise."""

    mean: Tensor
    deviation: float

    def to(self, noise: Tensor) -> Tensor:
        return self.mean + self.deviation * noise

    def log_prob(self, reached: Tensor) -> Tensor:
        """[B], of a step with noise: the mean over tokens and channels, not their sum, as all public trainers have it.

        That is what makes their bounds on the ratio, and ours, as small as they are.
        """
        distance = ((reached - self.mean) / self.deviation).square().flatten(1).mean(1)
        return -0.5 * distance - math.log(self.deviation) - 0.5 * math.log(2 * math.pi)

    def kl_divergence(self, other: Tensor) -> Tensor:
        """[B]: the Kullback–Leibler divergence from one with the same deviation around `other`, a mean likewise."""
        return ((self.mean - other) / self.deviation).square().flatten(1).mean(1) / 2


def transition(policy: PolicyConfig, tokens: Tensor, velocity: Tensor, now: float, then: float) -> Transition:
    """The step from `tokens` [B, S, C] at σ = `now` to σ = `then`, by the `velocity` there.

    `dance` mixes in the same noise at each σ (DanceGRPO), `flow` more where there is more (Flow-GRPO): both discretise
    dx = (v + s² / 2σ · (x + (1 - σ) v)) dσ + s dw, the paper's formula. `cps` keeps the coefficients of signal and
    noise as they are at each σ, and renews a part of the noise.
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
