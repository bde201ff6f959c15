"""The VAE's latents: encoding of pixels, decoding, normalization, and packing into the transformer's tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor

from nextscene.training.model.grid import Grid, Ratios


class Latents(NamedTuple):
    """The VAE's posterior: `mean` [B, C, F', H', W'], and `logvar` [B, 1, F', H', W'], which all channels share."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Return a sample of the posterior, [B, C, F', H', W'], by standard normal `noise` of that shape."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise


def check_shape(vae: AutoencoderKLLTXVideo, frames: int, width: int, height: int) -> None:
    """Raise ValueError as `Ratios.grid` does."""
    Ratios.of(vae).grid(frames, height, width)


@torch.no_grad()
def encode(vae: AutoencoderKLLTXVideo, video: Tensor) -> Latents:
    """Return the posterior of uint8 clips [B, F, H, W, RGB], in float32 on the device of the VAE.

    Raise ValueError for clips whose frames or sides do not fit the VAE's ratios.
    """
    check_shape(vae, video.shape[1], video.shape[3], video.shape[2])
    pixels = video.to(vae.device).movedim(-1, 1).to(vae.dtype) / 127.5 - 1
    posterior = vae.encode(pixels).latent_dist
    return Latents(posterior.mean.float(), posterior.logvar[:, :1].float())


@torch.no_grad()
def decode(vae: AutoencoderKLLTXVideo, latents: Tensor) -> Tensor:
    """Return uint8 clips [B, F, H, W, RGB] for latents [B, C, F', H', W'] that are not normalized."""
    pixels: Tensor = vae.decode(latents.to(vae.dtype), None, return_dict=False)[0]
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(1, -1)


class LatentScale(NamedTuple):
    """Mean and deviation of each channel [1, C, 1, 1, 1], by which latents are normalized before the transformer."""

    mean: Tensor
    deviation: Tensor

    @staticmethod
    def of(vae: AutoencoderKLLTXVideo) -> LatentScale:
        """Return the scale that a VAE defines. Its scaling factor is included."""
        mean, deviation = (buffer.float().view(1, -1, 1, 1, 1) for buffer in (vae.latents_mean, vae.latents_std))
        return LatentScale(mean, deviation / float(vae.config.scaling_factor))

    def normalize(self, latents: Tensor) -> Tensor:
        """Return latents [B, C, F', H', W'] with the mean subtracted, divided by the deviation."""
        return (latents - self.mean.to(latents.device)) / self.deviation.to(latents.device)

    def denormalize(self, latents: Tensor) -> Tensor:
        """Return normalized latents [B, C, F', H', W'] in the scale of the VAE, the inverse of `normalize`."""
        return latents * self.deviation.to(latents.device) + self.mean.to(latents.device)


def pack(latents: Tensor) -> Tensor:
    """Return latents [B, C, F', H', W'] as tokens [B, F' × H' × W', C]."""
    return latents.flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, grid: Grid) -> Tensor:
    """Return tokens [B, F' × H' × W', C] as latents [B, C, F', H', W']."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)
