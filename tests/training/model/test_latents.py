"""Between pixels and tokens: as the VAE and diffusers' LTXPipeline have it, there and back again."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nextscene.training.model.grid import Grid, Ratios
from nextscene.training.model.latents import Latents, LatentScale, check_shape, decode, encode, pack, unpack
from tests.training import pretrained

SIDES = st.integers(1, 5)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLLTXVideo:
    torch.manual_seed(1)
    return pretrained.vae()


@pytest.fixture(scope="module")
def video() -> Tensor:
    """[B, F, H, W, RGB]"""
    return torch.randint(256, (2, 9, 24, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def latents() -> Tensor:
    return torch.randn(2, 8, 3, 6, 5, generator=torch.Generator().manual_seed(3))


# ---- packed and normalized -----------------------------------------------------------------------------------------


@given(st.integers(1, 3), SIDES, SIDES, SIDES, SIDES)
def test_latents_are_packed_as_the_pipeline_packs_them_and_come_back(
    batch: int, channels: int, frames: int, height: int, width: int
) -> None:
    shape = (batch, channels, frames, height, width)
    latents = torch.arange(torch.Size(shape).numel()).view(shape)
    tokens, grid = pack(latents), Grid(frames, height, width)
    assert tokens.shape == (batch, grid.tokens, channels)
    assert torch.equal(tokens, LTXPipeline._pack_latents(latents))
    assert torch.equal(unpack(tokens, grid), latents)
    assert torch.equal(unpack(tokens, grid), LTXPipeline._unpack_latents(tokens, *grid))


@pytest.mark.parametrize("factor", [1.0, 0.4])
def test_latents_are_normalized_as_the_pipeline_normalizes_them_and_come_back(latents: Tensor, factor: float) -> None:
    vae = pretrained.vae()
    vae.register_to_config(scaling_factor=factor)
    scale, statistics = LatentScale.of(vae), (vae.latents_mean, vae.latents_std, factor)
    normal = scale.normalize(latents)
    assert not torch.allclose(normal, latents, atol=0.1)
    torch.testing.assert_close(normal, LTXPipeline._normalize_latents(latents, *statistics))
    torch.testing.assert_close(scale.denormalize(normal), latents)
    torch.testing.assert_close(scale.denormalize(latents), LTXPipeline._denormalize_latents(latents, *statistics))


def test_channels_of_the_vaes_own_mean_and_deviation_become_standard_ones(vae: AutoencoderKLLTXVideo) -> None:
    noise = torch.randn(1, 8, 20, 20, 20, generator=torch.Generator().manual_seed(4))
    raw = vae.latents_mean.view(1, -1, 1, 1, 1) + vae.latents_std.view(1, -1, 1, 1, 1) * noise
    normal = LatentScale.of(vae).normalize(raw)
    assert (normal.mean((0, 2, 3, 4)).abs() < 0.05).all()
    assert ((normal.std((0, 2, 3, 4)) - 1).abs() < 0.05).all()


# ---- the posterior -------------------------------------------------------------------------------------------------


def test_the_posterior_is_the_vaes_of_pixels_from_minus_one_to_one(vae: AutoencoderKLLTXVideo, video: Tensor) -> None:
    with torch.no_grad():
        expected = vae.encode(video.permute(0, 4, 1, 2, 3) / 255 * 2 - 1).latent_dist
    found = encode(vae, video)
    assert found.mean.shape == (2, 8, 3, 6, 8) and found.logvar.shape == (2, 1, 3, 6, 8)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.logvar.expand_as(found.mean), expected.logvar)


def test_a_clip_is_encoded_the_same_alone_and_in_a_batch(vae: AutoencoderKLLTXVideo, video: Tensor) -> None:
    together, alone = encode(vae, video), encode(vae, video[1:])
    torch.testing.assert_close(together.mean[1:], alone.mean)
    torch.testing.assert_close(together.logvar[1:], alone.logvar)


def test_the_posterior_of_a_half_precision_vae_is_float32_without_gradient(video: Tensor) -> None:
    found = encode(pretrained.vae().to(torch.bfloat16), video)
    assert {found.mean.dtype, found.logvar.dtype} == {torch.float32}
    assert not found.mean.requires_grad


def test_a_sample_is_that_of_diffusers_distribution_with_the_same_noise(vae: AutoencoderKLLTXVideo) -> None:
    draw = torch.Generator().manual_seed(5)
    mean, logvar = torch.randn(2, 8, 3, 6, 8, generator=draw), torch.randn(2, 1, 3, 6, 8, generator=draw)
    theirs = DiagonalGaussianDistribution(torch.cat([mean, logvar.expand_as(mean)], dim=1))
    expected = theirs.sample(generator=torch.Generator().manual_seed(6))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(Latents(mean, logvar).sample(noise), expected)


# ---- what fits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratios", "frames", "height", "width", "grid"),
    [
        (Ratios(8, 32), 65, 480, 832, Grid(9, 15, 26)),
        (Ratios(8, 32), 1, 512, 512, Grid(1, 16, 16)),
        (Ratios(8, 32), 81, 480, 832, Grid(11, 15, 26)),
        (Ratios(4, 4), 9, 24, 32, Grid(3, 6, 8)),
    ],
)
def test_the_grid_is_that_of_the_papers_clips(ratios: Ratios, frames: int, height: int, width: int, grid: Grid) -> None:
    assert ratios.grid(frames, height, width) == grid


def test_the_grid_is_what_the_vae_makes(vae: AutoencoderKLLTXVideo, video: Tensor) -> None:
    assert Ratios.of(vae) == (4, 4)
    assert encode(vae, video).mean.shape[2:] == Ratios.of(vae).grid(*video.shape[1:4])


@pytest.mark.parametrize("frames", [0, -7, 2, 8, 66, 80])
def test_frames_that_are_not_of_the_form_are_refused(vae: AutoencoderKLLTXVideo, frames: int) -> None:
    with pytest.raises(ValueError, match=f"{frames} frames are not of the form 8k"):
        Ratios(8, 32).grid(frames, 480, 832)
    with pytest.raises(ValueError, match=f"{frames} frames are not of the form 4k"):
        check_shape(vae, frames, 32, 24)


@pytest.mark.parametrize(("width", "height"), [(30, 24), (32, 22), (33, 24), (32, 0), (0, 24)])
def test_sides_that_are_no_multiples_are_refused(vae: AutoencoderKLLTXVideo, width: int, height: int) -> None:
    with pytest.raises(ValueError, match=f"{width}×{height} pixels are not multiples of 4"):
        check_shape(vae, 9, width, height)


@pytest.mark.parametrize("shape", [(1, 8, 24, 32, 3), (1, 9, 24, 30, 3)])
def test_a_clip_that_does_not_fit_is_not_encoded(vae: AutoencoderKLLTXVideo, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="are no"):
        encode(vae, torch.zeros(shape, dtype=torch.uint8))


# ---- and back to pixels --------------------------------------------------------------------------------------------


def test_pixels_are_the_vaes_from_minus_one_to_one(vae: AutoencoderKLLTXVideo, latents: Tensor) -> None:
    with torch.no_grad():
        expected = vae.decode(latents, None).sample
    found = decode(vae, latents)
    assert found.dtype == torch.uint8 and found.shape == (2, 9, 24, 20, 3)
    scaled = (expected.clamp(-1, 1) / 2 + 0.5) * 255
    assert (found.permute(0, 4, 1, 2, 3) - scaled).abs().max() <= 0.5 + 1e-4
    assert found.float().std() > 1


def test_decoding_scales_pixels_as_the_inverse_of_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the networks taken away, every byte value comes back as it was."""

    class Through:
        """Of what `vae.encode` gives, the part that is read."""

        def __init__(self, pixels: Tensor) -> None:
            self.mean = self.logvar = pixels

        @property
        def latent_dist(self) -> Through:
            return self

    vae = pretrained.vae()
    monkeypatch.setattr(vae, "encode", Through)
    monkeypatch.setattr(vae, "decode", lambda pixels, _timestep, return_dict: (pixels,))
    video = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16, 1).expand(-1, -1, -1, -1, 3)
    assert torch.equal(decode(vae, encode(vae, video).mean), video)


def test_pixels_out_of_range_are_cut_and_do_not_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = pretrained.vae()
    monkeypatch.setattr(vae, "decode", lambda pixels, _timestep, return_dict: (pixels,))
    pixels = torch.tensor([-1.5, -1.0, 1.0, 1.5]).view(1, 1, 1, 2, 2).expand(-1, 3, -1, -1, -1)
    assert decode(vae, pixels)[..., 0].flatten().tolist() == [0, 0, 255, 255]
