"""The original LTX-Video as a generator: diffusers' own pipeline, with its published text encoder.

Tested in tests/training/generation/test_generation.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel
from torch import Tensor
from transformers import T5EncoderModel, T5Tokenizer

from nextscene.training.generation.base import Sampling
from nextscene.training.generation.shared import (
    decode_tokens,
    inference_dtype,
    latent_grid,
    reporting_out_of_memory,
    seeded_noise,
)
from nextscene.training.model.grid import Ratios
from nextscene.training.model.pretrained import open_pretrained, open_vae


class LtxVideo:
    """A `Generator`. Texts are passed on unchanged, and the unconditional text of guidance is empty."""

    def __init__(self, name: str, sampling: Sampling, pipeline: LTXPipeline) -> None:
        """Raise UsageError for a length or a size that the VAE cannot produce."""
        self.name, self.sampling = name, sampling
        self._pipeline = pipeline
        self._grid = latent_grid(Ratios.of(pipeline.vae), sampling)

    def videos(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Return videos as `Generator.videos`. Raise TrainingStopped if they do not fit into the GPU's memory."""
        with reporting_out_of_memory(f"{len(texts)} at once"):
            return decode_tokens(self._pipeline.vae, self.latents(texts, seeds), self._grid)

    def latents(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Return the normalized latents of videos, [B, S, C]."""
        sampling = self.sampling
        tokens: Tensor = self._pipeline(
            prompt=list(texts),
            latents=seeded_noise(seeds, self._pipeline.transformer.config.in_channels, self._grid),
            num_frames=sampling.frames,
            height=sampling.height,
            width=sampling.width,
            frame_rate=sampling.fps,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            output_type="latent",
        ).frames
        return tokens


def from_folder(ltx: Path, name: str, sampling: Sampling, device: torch.device) -> LtxVideo:
    """Return the generator of a complete LTX-Video folder, on `device`.

    Raise UsageError for a part that cannot be opened, and TrainingStopped if the model does not fit into the GPU's
    memory.
    """
    dtype = inference_dtype(device)
    pipeline = LTXPipeline(
        scheduler=open_pretrained(FlowMatchEulerDiscreteScheduler, ltx, subfolder="scheduler"),
        vae=open_vae(ltx, dtype),
        text_encoder=open_pretrained(T5EncoderModel, ltx, subfolder="text_encoder", dtype=dtype),
        tokenizer=open_pretrained(T5Tokenizer, ltx, subfolder="tokenizer"),
        transformer=open_pretrained(
            LTXVideoTransformer3DModel, ltx, subfolder="transformer", torch_dtype=dtype, low_cpu_mem_usage=False
        ),
    )
    pipeline.set_progress_bar_config(disable=True)
    with reporting_out_of_memory(name):
        return LtxVideo(name, sampling, pipeline.to(device))
