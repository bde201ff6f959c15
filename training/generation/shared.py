"""Steps that all generators share: noise from the seed alone, decoding, and the report of too little GPU memory.

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
    """Return the precision for generation: bfloat16 on a GPU, float32 on the CPU."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def latent_grid(ratios: Ratios, sampling: Sampling) -> Grid:
    """Return the latent grid of the videos. Raise UsageError for a length or a size that the VAE cannot produce."""
    try:
        return ratios.grid(sampling.frames, sampling.height, sampling.width)
    except ValueError as error:
        raise UsageError(f"such a video cannot be made: {error}") from error


def seeded_noise(seeds: Sequence[int], channels: int, grid: Grid) -> Tensor:
    """Return noise [B, S, C] on the CPU, drawn from one generator for each seed, as LTXPipeline draws it."""
    return pack(
        torch.stack([torch.randn(channels, *grid, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    )


def decode_tokens(vae: AutoencoderKLLTXVideo, tokens: Tensor, grid: Grid) -> Tensor:
    """Decode normalized latents [B, S, C], and return videos, uint8 [B, F, H, W, RGB], on the CPU.

    They are decoded one by one, because decoding takes more memory than any other step.
    """
    latents = LatentScale.of(vae).denormalize(unpack(tokens, grid))
    return torch.cat([decode(vae, latent).cpu() for latent in torch.split(latents, 1)])


@contextmanager
def reporting_out_of_memory(what: str) -> Iterator[None]:
    """Raise TrainingStopped, with `what` in its message, if the body runs out of GPU memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingStopped(
            f"{what}: too much for the GPU's memory; give a smaller `batch` or fewer `frames`, or use a larger one"
        ) from error
