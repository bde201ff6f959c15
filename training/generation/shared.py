"""What all generators do alike: begin with noise of the seed alone, decode what came of it, say when it is too much.

Tested in tests/training/generation/test_generation.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor

from nextscene.common.errors import UsageError
from nextscene.training.errors import TrainingStopped
from nextscene.training.generation.base import Sampling
from nextscene.training.model.grid import Grid, Ratios
from nextscene.training.model.latents import LatentScale, decode, pack, unpack


def inference_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def latent_grid(ratios: Ratios, sampling: Sampling) -> Grid:
    """Raises UsageError for a length or a size that the VAE does not make."""
    try:
        return ratios.grid(sampling.frames, sampling.height, sampling.width)
    except ValueError as error:
        raise UsageError(f"such a video cannot be made: {error}") from error


def seeded_noise(seeds: Sequence[int], channels: int, grid: Grid) -> Tensor:
    """[B, S, C], on the CPU, as LTXPipeline draws it from a generator of each seed."""
    return pack(
        torch.stack([torch.randn(channels, *grid, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    )


def decode_tokens(vae: AutoencoderKLLTXVideo, tokens: Tensor, grid: Grid) -> Tensor:
    """uint8 [B, F, H, W, RGB], on the CPU, of normalized latents [B, S, C].

    One by one: of all that is done to a video, its decoding takes the most memory.
    """
    latents = LatentScale.of(vae).denormalize(unpack(tokens, grid))
    return torch.cat([decode(vae, latent).cpu() for latent in torch.split(latents, 1)])


@contextmanager
def reporting_out_of_memory(what: str) -> Iterator[None]:
    """Raises TrainingStopped where it does not fit the GPU."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingStopped(
            f"{what}: too much for the GPU's memory; give a smaller --batch or fewer --frames, or use a larger one"
        ) from error
