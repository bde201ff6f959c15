"""A small LTX-Video autoencoder, fitted to videos in closed form: each of its levels is a principal component analysis.

The class needs no change for this. Its encoder folds 2×2×2 blocks three times, each time by a linear map of a block of
vectors to one vector. Without residual blocks it is linear except for one norm and one SiLU in the encoder and in the
decoder. A large constant in a channel of its own makes those nearly linear too: the norm becomes a fixed factor, and
the SiLU of small values is half of them.

Tested in tests/training/tiny/test_make.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor, nn

from nextscene.training.tiny.spec import FILM, ToySpec

_ROWS = 20_000
_LARGE = 60.0  # the large constant, as a multiple of the root mean square of the other channels
_LOG_VARIANCE = -8.0


class _Basis(NamedTuple):
    """A basis of principal components: their mean [inputs], and orthonormal `vectors` [components, inputs]."""

    mean: Tensor
    vectors: Tensor


@torch.no_grad()
def fit(videos: Tensor, spec: ToySpec = FILM) -> AutoencoderKLLTXVideo:
    """Return an autoencoder that is fitted to uint8 videos [N, F, H, W, RGB].

    A latent stands for 2^levels frames, and patch × 2^levels pixels of a side. The mean and the deviation of its
    latents are measured on these videos.
    """
    levels, blocks = spec.levels, spec.levels + 1
    vae = AutoencoderKLLTXVideo(
        latent_channels=spec.latents,
        block_out_channels=(spec.vae_channels,) * blocks,
        down_block_types=("LTXVideoDownBlock3D",) * blocks,
        decoder_block_out_channels=(spec.vae_channels,) * blocks,
        layers_per_block=(0,) * (blocks + 1),
        decoder_layers_per_block=(0,) * (blocks + 1),
        spatio_temporal_scaling=(True,) * levels + (False,),
        decoder_spatio_temporal_scaling=(True,) * levels + (False,),
        decoder_inject_noise=(False,) * (blocks + 1),
        downsample_type=("conv",) * blocks,
        upsample_residual=(False,) * blocks,
        upsample_factor=(1,) * blocks,
        patch_size=spec.patch,
    )
    for parameter in vae.parameters():
        nn.init.zeros_(parameter)
    pixels = videos.movedim(-1, 1) / 127.5 - 1
    bases, size = _fit_encoder(vae, pixels, spec)
    _fit_decoder(vae, bases, size, float(pixels.square().mean().sqrt()), spec)
    latents = torch.cat([vae.encode(some).latent_dist.mean for some in torch.split(pixels, 16)])
    vae.latents_mean.copy_(latents.mean((0, 2, 3, 4)))
    # The variance of the posterior is added, so that normalization does not amplify the rounding errors of a component
    # that these videos lack.
    deviation = (latents.var((0, 2, 3, 4)) + math.exp(_LOG_VARIANCE)).sqrt()
    common = deviation.square().mean().sqrt()
    vae.latents_std.copy_(common * (deviation / common) ** spec.whitening if spec.whitening < 1 else deviation)
    return vae.eval()


def _fit_encoder(vae: AutoencoderKLLTXVideo, pixels: Tensor, spec: ToySpec) -> tuple[list[_Basis], float]:
    """Fit the encoder to pixels, and return the bases of its levels, the patches' first, and the size of the latents.

    The size is the root mean square of their values, by which they are divided.
    """
    encoder, latents = vae.encoder, spec.latents
    folds = [block.downsamplers[0].conv for block in encoder.down_blocks if block.downsamplers is not None]
    bases: list[_Basis] = []
    features = _patches(pixels, spec.patch)
    for convolution in (encoder.conv_in.conv, *folds):
        inputs = features if not bases else _blocks(features)
        basis = _principal(inputs, spec.vae_channels - 1)
        components, channels = len(basis.vectors), features.shape[1]
        if bases:
            convolution.weight[:components, :channels, 1:, 1:, 1:] = basis.vectors.view(components, channels, 2, 2, 2)
        else:
            convolution.weight[:components, :, 2, 1, 1] = basis.vectors
        convolution.bias[:components] = -basis.vectors @ basis.mean
        features = torch.einsum("kc,ncfhw->nkfhw", basis.vectors, inputs - basis.mean.view(1, -1, 1, 1, 1))
        bases.append(basis)
    size = float(features.square().mean().sqrt())
    constant = _LARGE * spec.vae_channels**0.5 * size
    folds[-1].bias[-1] = constant
    encoder.conv_out.conv.weight[:latents, :latents, 2, 1, 1] = torch.eye(latents) * _undone(constant, spec) / size
    encoder.conv_out.conv.bias[-1] = _LOG_VARIANCE
    return bases, size


def _fit_decoder(
    vae: AutoencoderKLLTXVideo, bases: list[_Basis], size: float, brightness: float, spec: ToySpec
) -> None:
    decoder, width, latents = vae.decoder, spec.vae_channels, spec.latents
    unfolds = [block.upsamplers[0].conv.conv for block in decoder.up_blocks if block.upsamplers is not None]
    decoder.conv_in.conv.weight[:latents, :latents, 1, 1, 1] = torch.eye(latents) * size
    for convolution, basis in zip(unfolds, bases[:0:-1], strict=True):
        components, channels = len(basis.vectors), len(basis.mean) // 8
        weight = convolution.weight.view(width, 8, width, 3, 3, 3)
        weight[:channels, :, :components, 1, 1, 1] = basis.vectors.T.view(channels, 8, components)
        convolution.bias.view(width, 8)[:channels] = basis.mean.view(channels, 8)
    constant = _LARGE * width**0.5 * brightness * spec.patch
    unfolds[-1].bias.view(width, 8)[-1] = constant
    patches = bases[0]
    decoder.conv_out.conv.weight[:, : len(patches.vectors), 1, 1, 1] = patches.vectors.T * _undone(constant, spec)
    decoder.conv_out.conv.bias.copy_(patches.mean)


def _undone(constant: float, spec: ToySpec) -> float:
    """Return the factor that undoes the norm, which divides by constant / √channels, and the SiLU, which halves."""
    return 2 * constant / math.sqrt(spec.vae_channels)


def _patches(pixels: Tensor, side: int) -> Tensor:
    """Return pixels [N, RGB, F, H, W] as patches [N, RGB × side × side, F, H / side, W / side].

    The channels are in the encoder's order: columns before rows.
    """
    count, colors, frames, height, width = pixels.shape
    cut = pixels.reshape(count, colors, frames, height // side, side, width // side, side)
    return cut.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def _blocks(features: Tensor) -> Tensor:
    """Return features [N, C, F, H, W] as blocks [N, C × 2 × 2 × 2, …], each of which the encoder maps to one vector.

    The first frame is repeated once at the start.
    """
    led = torch.cat([features[:, :, :1], features], dim=2)
    cut = led.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2)
    return cut.permute(0, 1, 5, 6, 7, 2, 3, 4).flatten(1, 4)


def _principal(inputs: Tensor, most: int) -> _Basis:
    """Return the `most` principal components with the largest variance.

    The last channel is reserved for the large constant.
    """
    rows = inputs.movedim(1, -1).flatten(0, -2)
    rows = rows[:: max(1, len(rows) // _ROWS)].double()
    mean = rows.mean(0)
    vectors = torch.linalg.eigh(torch.cov(rows.T, correction=0)).eigenvectors
    return _Basis(mean.float(), vectors.flip(1)[:, :most].T.float())
