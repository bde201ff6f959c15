"""Candidates: videos of one scene, from the same noise, that part by the noise that is mixed in on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nextscene.shards.loading.shuffle import SampleRef, splitmix64
from nextscene.training.flow.sampler import Velocity
from nextscene.training.flow.sde import transition
from nextscene.training.recipe import PolicyConfig

_STREAM = 4  # 1 to 3 are of the order of the samples, and of what is random about each


def candidate_rng(seed: int, draw: SampleRef, number: int) -> torch.Generator:
    """The rng of one candidate of the scene that was drawn; number -1 is that of the group."""
    made = torch.Generator()
    stream = _STREAM + number + 1
    made.manual_seed(int(splitmix64(np.array([draw.number]), seed, draw.epoch, stream)[0]) >> 1)
    return made


@dataclass(frozen=True)
class Rollout:
    """B candidates on their way, on the CPU, where they wait for their rewards.

    `tokens` [T + 1, B, S, C] are where each of the T steps with noise began, and where the last of them led.
    `log_probs` [T, B] is of each as it was taken. `ends` [B, S, C] are the videos' latents, normalised.
    """

    tokens: Tensor
    log_probs: Tensor
    ends: Tensor


@torch.no_grad()
def rollout(
    policy: PolicyConfig, velocity: Velocity, noise: Tensor, sigmas: Sequence[float], rngs: Sequence[torch.Generator]
) -> Rollout:
    """From the one `noise` [1, S, C] at σ = 1 to σ = 0, once for each of `rngs`."""
    device = noise.device
    tokens = noise.float().expand(len(rngs), -1, -1)
    visited, probable = [_kept(tokens)], []
    for now, then in pairwise(sigmas):
        step = transition(policy, tokens, velocity(tokens, expand_sigma(now, tokens)), now, then)
        if step.deviation:
            drawn = torch.stack([torch.randn(noise.shape[1:], generator=rng) for rng in rngs])
            tokens = step.to(drawn.to(device))
            probable.append(step.log_prob(tokens))
            visited.append(_kept(tokens))
        else:
            tokens = step.mean
    return Rollout(torch.stack(visited), torch.stack(probable).cpu(), tokens.cpu())


def expand_sigma(sigma: float, tokens: Tensor) -> Tensor:
    """[B]"""
    return torch.full((len(tokens),), sigma, device=tokens.device)


def _kept(tokens: Tensor) -> Tensor:
    return tokens.to("cpu", copy=True)
