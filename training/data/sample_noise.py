"""Per-sample RNG: the random numbers of a sample depend on its number and epoch alone, not on ranks or batches.

Nothing else in training is random, so checkpoints need no state of a generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nextscene.shards.loading.shuffle import SampleRef, splitmix64

NOISE_STREAM = 3
"""RNG stream of SampleNoise. The order of the samples uses 1 and 2, the candidates of GRPO use 4 and above."""


class SampleNoise(NamedTuple):
    """The random numbers of B samples, drawn on the CPU, because its numbers are the same on every machine.

    `drop` [B] and `uniform` [B, 2] are uniform in [0, 1), `normal` [B] is standard normal. `posterior` and `noise`
    [B, C, F', H', W'] are standard normal: the one samples the VAE's posterior, the other is the noise of the flow.
    """

    drop: Tensor
    uniform: Tensor
    normal: Tensor
    posterior: Tensor
    noise: Tensor


def sample_rng(seed: int, ref: SampleRef, stream: int) -> torch.Generator:
    """Return the generator of one sample in one epoch. Different streams are independent."""
    rng = torch.Generator()
    rng.manual_seed(int(splitmix64(np.array([ref.number]), seed, ref.epoch, stream)[0]) >> 1)
    return rng


def sample_noise(seed: int, refs: Sequence[SampleRef], shape: Sequence[int]) -> SampleNoise:
    """Return the random numbers of samples whose latents have `shape` [C, F', H', W'] each."""
    return SampleNoise(*map(torch.stack, zip(*(_draw(seed, ref, shape) for ref in refs), strict=True)))


def _draw(seed: int, ref: SampleRef, shape: Sequence[int]) -> tuple[Tensor, ...]:
    rng = sample_rng(seed, ref, NOISE_STREAM)
    uniform = torch.rand(3, generator=rng)
    normal = torch.randn((), generator=rng)
    return uniform[0], uniform[1:], normal, torch.randn(shape, generator=rng), torch.randn(shape, generator=rng)
