"""A small LTX-Video autoencoder, fitted to videos in closed form: each of its levels is a principal component analysis.

The class has all it takes: its encoder folds 2×2×2 blocks three times, which is a linear map of a block of vectors to
one. Without its residual blocks it is linear but for one norm and one SiLU at each end. Those are passed by a large
constant in a channel of its own: beside it the norm is a fixed factor, and the SiLU of what is small is half of it.

Tested in tests/training/tiny/test_make.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor, nn

CHANNELS = 48
LATENTS = 32
_PATCH = 4
_LEVELS = 3
_ROWS = 20_000
_LARGE = 60.0  # the constant, in root mean squares of the other channels
_LOG_VARIANCE = -8.0


class _Basis(NamedTuple):
    """`vectors` [components, inputs] are orthonormal; `mean` [inputs]."""

    mean: Tensor
    vectors: Tensor


@torch.no_grad()
def fit(videos: Tensor) -> AutoencoderKLLTXVideo:
    """For uint8 videos [N, F, H, W, RGB]; its latents' mean and deviation are measured on them."""
    vae = AutoencoderKLLTXVideo(
        latent_channels=LATENTS,
        block_out_channels=(CHANNELS,) * (_LEVELS + 1),
        decoder_block_out_channels=(CHANNELS,) * (_LEVELS + 1),
        layers_per_block=(0,) * (_LEVELS + 2),
        decoder_layers_per_block=(0,) * (_LEVELS + 2),
        patch_size=_PATCH,
    )
    for parameter in vae.parameters():
        nn.init.zeros_(parameter)
    pixels = videos.movedim(-1, 1) / 127.5 - 1
    bases, size = _fit_encoder(vae, pixels)
    _fit_decoder(vae, bases, size, float(pixels.square().mean().sqrt()))
    latents = torch.cat([vae.encode(some).latent_dist.mean for some in torch.split(pixels, 16)])
    vae.latents_mean.copy_(latents.mean((0, 2, 3, 4)))
    # With the posterior's own variance: a component that these videos do not have is not made of rounding errors.
    vae.latents_std.copy_((latents.var((0, 2, 3, 4)) + math.exp(_LOG_VARIANCE)).sqrt())
    return vae.eval()


def _fit_encoder(vae: AutoencoderKLLTXVideo, pixels: Tensor) -> tuple[list[_Basis], float]:
    """The bases of the levels, from patches on, and the deviation of a latent's values: their unit."""
    encoder = vae.encoder
    folds = [block.downsamplers[0].conv for block in encoder.down_blocks if block.downsamplers is not None]
    bases: list[_Basis] = []
    features = _patches(pixels)
    for convolution in (encoder.conv_in.conv, *folds):
        inputs = features if not bases else _blocks(features)
        basis = _principal(inputs)
        components, channels = len(basis.vectors), features.shape[1]
        if bases:
            convolution.weight[:components, :channels, 1:, 1:, 1:] = basis.vectors.view(components, channels, 2, 2, 2)
        else:
            convolution.weight[:components, :, 2, 1, 1] = basis.vectors
        convolution.bias[:components] = -basis.vectors @ basis.mean
        features = torch.einsum("kc,ncfhw->nkfhw", basis.vectors, inputs - basis.mean.view(1, -1, 1, 1, 1))
        bases.append(basis)
    size = float(features.square().mean().sqrt())
    constant = _LARGE * CHANNELS**0.5 * size
    folds[-1].bias[-1] = constant
    encoder.conv_out.conv.weight[:LATENTS, :LATENTS, 2, 1, 1] = torch.eye(LATENTS) * _undone(constant) / size
    encoder.conv_out.conv.bias[-1] = _LOG_VARIANCE
    return bases, size


def _fit_decoder(vae: AutoencoderKLLTXVideo, bases: list[_Basis], size: float, brightness: float) -> None:
    decoder = vae.decoder
    unfolds = [block.upsamplers[0].conv.conv for block in decoder.up_blocks if block.upsamplers is not None]
    decoder.conv_in.conv.weight[:LATENTS, :LATENTS, 1, 1, 1] = torch.eye(LATENTS) * size
    for convolution, basis in zip(unfolds, bases[:0:-1], strict=True):
        components, channels = len(basis.vectors), len(basis.mean) // 8
        weight = convolution.weight.view(CHANNELS, 8, CHANNELS, 3, 3, 3)
        weight[:channels, :, :components, 1, 1, 1] = basis.vectors.T.view(channels, 8, components)
        convolution.bias.view(CHANNELS, 8)[:channels] = basis.mean.view(channels, 8)
    constant = _LARGE * CHANNELS**0.5 * brightness * _PATCH
    unfolds[-1].bias.view(CHANNELS, 8)[-1] = constant
    patches = bases[0]
    decoder.conv_out.conv.weight[:, : len(patches.vectors), 1, 1, 1] = patches.vectors.T * _undone(constant)
    decoder.conv_out.conv.bias.copy_(patches.mean)


def _undone(constant: float) -> float:
    """What makes up for the norm, which divides by constant / √CHANNELS, and the SiLU, which halves."""
    return 2 * constant / math.sqrt(CHANNELS)


def _patches(pixels: Tensor) -> Tensor:
    """[N, RGB, F, H, W] → [N, RGB × 4 × 4, F, H / 4, W / 4], in the encoder's own order: across before down."""
    count, colours, frames, height, width = pixels.shape
    cut = pixels.reshape(count, colours, frames, height // _PATCH, _PATCH, width // _PATCH, _PATCH)
    return cut.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def _blocks(features: Tensor) -> Tensor:
    """[N, C, F, H, W] → [N, C × 2 × 2 × 2, …]: what becomes one vector. The first frame stands for one before it."""
    led = torch.cat([features[:, :, :1], features], dim=2)
    cut = led.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2)
    return cut.permute(0, 1, 5, 6, 7, 2, 3, 4).flatten(1, 4)


def _principal(inputs: Tensor) -> _Basis:
    """The components that explain most, one fewer than there are channels: the last is the constant's."""
    rows = inputs.movedim(1, -1).flatten(0, -2)
    rows = rows[:: max(1, len(rows) // _ROWS)].double()
    mean = rows.mean(0)
    vectors = torch.linalg.eigh(torch.cov(rows.T, correction=0)).eigenvectors
    return _Basis(mean.float(), vectors.flip(1)[:, : CHANNELS - 1].T.float())
