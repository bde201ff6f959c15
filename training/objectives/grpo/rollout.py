"""Rollouts: candidate videos of one scene from the same initial noise, with different noise added in each step.

Tested in tests/training/flow/test_sde.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from nextscene.shards.loading.shuffle import SampleRef
from nextscene.training.config import PolicyConfig
from nextscene.training.data.sample_noise import sample_rng
from nextscene.training.flow.sampler import Velocity
from nextscene.training.flow.sde import transition

_STREAM = 4  # streams 1 to 3 are used for the order and the noise of the samples


def candidate_rng(
    seed: int,
    ref: SampleRef,
    number: int,
    device: torch.device = torch.device("cpu"),  # noqa: B008 – immutable
) -> torch.Generator:
    """Return the random generator of candidate `number` of a scene; number -1 is that of the whole group.

    With the same seed a generator on a GPU and one on the CPU give different numbers.
    """
    rng = sample_rng(seed, ref, _STREAM + number + 1)
    return rng if device.type == "cpu" else torch.Generator(device).manual_seed(rng.initial_seed())


@dataclass(frozen=True)
class Rollout:
    """B sampled trajectories, kept on the CPU until their rewards are known.

    `trajectory` [T + 1, B, S, C] is the tokens at the start of each of the T noisy steps, and at the end of the last.
    `log_probs` [T, B] are the log-probabilities (logprobs) of those steps. `final` [B, S, C] are the normalized latents
    of the videos.
    """

    trajectory: Tensor
    log_probs: Tensor
    final: Tensor


@torch.no_grad()
def rollout(
    policy: PolicyConfig, velocity: Velocity, noise: Tensor, sigmas: Sequence[float], rngs: Sequence[torch.Generator]
) -> Rollout:
    """Sample a trajectory for each of `rngs`, from the same `noise` [1, S, C] at σ = 1 to σ = 0.

    The noise of the steps is drawn on the device of the generators. The CPU waits for the device only at the end.
    """
    tokens = noise.float().expand(len(rngs), -1, -1)
    visited, log_probs = [tokens], []
    for now, then in pairwise(sigmas):
        step = transition(policy, tokens, velocity(tokens, expand_sigma(now, tokens)), now, then)
        if step.deviation:
            drawn = [torch.randn(noise.shape[1:], generator=rng, device=rng.device) for rng in rngs]
            tokens = step.sample(torch.stack(drawn).to(noise.device))
            log_probs.append(step.log_prob(tokens))
            visited.append(tokens)
        else:
            tokens = step.mean
    return Rollout(torch.stack(visited).cpu(), torch.stack(log_probs).cpu(), tokens.cpu())


def expand_sigma(sigma: float, tokens: Tensor) -> Tensor:
    """Return σ once for each row of tokens, [B]."""
    return torch.full((len(tokens),), sigma, device=tokens.device)
