"""All that is random about a sample, seeded by its place in the sequence: the same for any number of ranks.

Nothing else in training draws random numbers, so there is no generator's state to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nextscene.shards.loading.shuffle import SampleRef, splitmix64


class SampleNoise(NamedTuple):
    """For each of B samples: `drop` [B] and `uniform` [B, 2] in [0, 1), `normal` [B], and noise of the latents' shape.

    `posterior` is for the VAE's posterior, `noise` is what the flow goes to. All of it is drawn on the CPU, which gives
    the same numbers everywhere.
    """

    drop: Tensor
    uniform: Tensor
    normal: Tensor
    posterior: Tensor
    noise: Tensor


def sample_noise(seed: int, draws: Sequence[SampleRef], shape: Sequence[int]) -> SampleNoise:
    """`shape` is that of one sample's latents [C, F', H', W']."""
    return SampleNoise(*map(torch.stack, zip(*(_of(seed, draw, shape) for draw in draws), strict=True)))


def _of(seed: int, draw: SampleRef, shape: Sequence[int]) -> tuple[Tensor, ...]:
    own = torch.Generator()
    own.manual_seed(int(splitmix64(np.array([draw.number]), seed, draw.epoch, _STREAM)[0]) >> 1)
    uniform = torch.rand(3, generator=own)
    normal = torch.randn((), generator=own)
    return uniform[0], uniform[1:], normal, torch.randn(shape, generator=own), torch.randn(shape, generator=own)


_STREAM = 3  # the order of the samples uses 1 and 2
