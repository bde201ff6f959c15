"""What all generators do alike: begin with noise of the seed alone, decode what came of it, say when it is too much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor

from nextscene.training.errors import TrainingStopped, TrainingUsageError
from nextscene.training.generation.base import Sampling
from nextscene.training.model.grid import Grid, Ratios
from nextscene.training.model.latents import Scale, decode, pack, unpack


def precision(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def grid_of(ratios: Ratios, sampling: Sampling) -> Grid:
    """Raises TrainingUsageError for a length or a size that the VAE does not make."""
    try:
        return ratios.grid(sampling.frames, sampling.height, sampling.width)
    except ValueError as error:
        raise TrainingUsageError(f"such a video cannot be made: {error}") from error


def noise(seeds: Sequence[int], channels: int, grid: Grid) -> Tensor:
    """[B, S, C], on the CPU, as LTXPipeline draws it from a generator of each seed."""
    return pack(
        torch.stack([torch.randn(channels, *grid, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    )


def pixels(vae: AutoencoderKLLTXVideo, tokens: Tensor, grid: Grid) -> Tensor:
    """uint8 [B, F, H, W, RGB], on the CPU, of normalised latents [B, S, C].

    One by one: of all that is done to a video, its decoding takes the most memory.
    """
    latents = Scale.of(vae).denormalise(unpack(tokens, grid))
    return torch.cat([decode(vae, latent).cpu() for latent in torch.split(latents, 1)])


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Raises TrainingStopped where it does not fit the GPU."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingStopped(
            f"{what}: too much for the GPU's memory; give a smaller --batch or fewer --frames, or use a larger one"
        ) from error
