"""The steps of sampling are LTXPipeline's, and what training draws has the distribution that it is named after."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift, retrieve_timesteps
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nextscene.training.config import TimestepDensity
from nextscene.training.flow.schedule import mu, sampling_sigmas, training_sigma
from tests.training.pretrained import scheduler

CLIP, IMAGE = 3510, 256
"""Tokens of 65 frames of 832×480 and of one of 512×512."""

DRAWS = 200_000


def as_the_pipeline_goes(steps: int, tokens: int) -> tuple[Tensor, Tensor]:
    """σ and timesteps, as LTXPipeline prepares them."""
    theirs = scheduler()
    names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    shift = calculate_shift(tokens, *(theirs.config[name] for name in names))
    sigmas = np.linspace(1.0, 1 / steps, steps)
    timesteps, _ = retrieve_timesteps(theirs, steps, "cpu", None, sigmas=sigmas, mu=shift)
    return theirs.sigmas, timesteps


# ---- sampling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "expected"), [(CLIP, 1.840), (IMAGE, 0.675), (1024, 0.95), (4096, 2.05)])
def test_the_shift_lies_on_ltx_videos_line(tokens: int, expected: float) -> None:
    assert mu(scheduler(), tokens) == pytest.approx(expected, abs=5e-4)


def test_twenty_steps_of_a_clip_are_those_of_the_table() -> None:
    sigmas = sampling_sigmas(scheduler(), 20, CLIP)
    assert sigmas.shape == (21,) and sigmas.dtype == torch.float32
    assert [round(sigma, 3) for sigma in sigmas[:4].tolist()] == [1, 0.990, 0.979, 0.967]
    assert [round(sigma, 3) for sigma in sigmas[-5:].tolist()] == [0.535, 0.432, 0.295, 0.100, 0]


def test_fifty_steps_of_a_clip_are_those_of_the_table() -> None:
    sigmas = sampling_sigmas(scheduler(), 50, CLIP).tolist()
    assert len(sigmas) == 51
    assert (sigmas[0], round(sigmas[1], 4)) == (1, 0.9967)
    assert [round(sigma, 3) for sigma in sigmas[-4:]] == [0.276, 0.195, 0.100, 0]


@given(st.integers(2, 60), st.integers(1, 5000))
def test_the_steps_are_those_of_the_scheduler_as_the_pipeline_drives_it(steps: int, tokens: int) -> None:
    sigmas, timesteps = as_the_pipeline_goes(steps, tokens)
    found = sampling_sigmas(scheduler(), steps, tokens)
    assert torch.equal(found, sigmas)
    assert torch.equal(1000 * found[:-1], timesteps)


@given(st.integers(2, 60), st.integers(1, 5000))
def test_the_steps_are_the_shifted_line_stretched_to_its_end(steps: int, tokens: int) -> None:
    shift = math.exp(0.95 + 1.1 / 3072 * (tokens - 1024))
    line = [1 - step / steps for step in range(steps)]
    shifted = [shift / (shift + 1 / sigma - 1) for sigma in line]
    stretched = [1 - (1 - sigma) * 0.9 / (1 - shifted[-1]) for sigma in shifted]
    found = sampling_sigmas(scheduler(), steps, tokens).tolist()
    assert found == pytest.approx([*stretched, 0], abs=1e-5)
    assert found == sorted(set(found), reverse=True)


def test_a_scheduler_that_was_used_gives_the_same_steps_again() -> None:
    used = scheduler()
    first = sampling_sigmas(used, 20, CLIP)
    sampling_sigmas(used, 7, IMAGE)
    assert torch.equal(sampling_sigmas(used, 20, CLIP), first)


# ---- training ------------------------------------------------------------------------------------------------------


def drawn(density: TimestepDensity, shift: float, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    normal, uniform = torch.randn(DRAWS, generator=draw), torch.rand(DRAWS, 2, generator=draw)
    return training_sigma(density, shift, normal, uniform)


def below(sigma: Tensor, point: float) -> float:
    return (sigma < point).float().mean().item()


def within(share: float) -> float:
    """Four standard deviations of a share of the draws."""
    return 4 * math.sqrt(share * (1 - share) / DRAWS)


QUANTILES = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]


@pytest.mark.parametrize("shift", [0.675, 1.840])
@pytest.mark.parametrize("tails", [0.0, 0.1, 0.6])
def test_the_shifted_density_is_a_sigmoid_of_a_normal_with_uniform_tails(shift: float, tails: float) -> None:
    sigma = drawn(TimestepDensity("shifted", tails), shift)
    for quantile in QUANTILES:
        point = 1 / (1 + math.exp(-NormalDist(shift, 1).inv_cdf(quantile)))
        share = (1 - tails) * quantile + tails * point
        assert below(sigma, point) == pytest.approx(share, abs=within(share))


@pytest.mark.parametrize("tails", [0.0, 0.3])
def test_uniform_is_uniform_whatever_the_shift_and_the_tails(tails: float) -> None:
    sigma = drawn(TimestepDensity("uniform", tails), 1.840)
    for quantile in QUANTILES:
        assert below(sigma, quantile) == pytest.approx(quantile, abs=within(quantile))


@pytest.mark.parametrize("tails", [0.1, 0.25])
def test_the_tails_are_of_their_share_of_the_draws(tails: float) -> None:
    plain, mixed = drawn(TimestepDensity(), 1.840), drawn(TimestepDensity("shifted", tails), 1.840)
    assert (plain != mixed).float().mean().item() == pytest.approx(tails, abs=within(tails))


def test_half_of_a_clips_draws_lie_above_the_median_of_ltx_videos_trainer() -> None:
    assert drawn(TimestepDensity(), mu(scheduler(), CLIP)).median().item() == pytest.approx(0.863, abs=0.002)


def test_sigma_stays_within_its_range_at_the_ends_of_what_is_drawn() -> None:
    normal, uniform = torch.tensor([-9.0, 9.0]), torch.tensor([[0.0, 0.0], [1 - 2**-24, 0.5]])
    for density in (TimestepDensity(), TimestepDensity("uniform"), TimestepDensity("shifted", 0.2)):
        sigma = training_sigma(density, 1.840, normal, uniform)
        assert sigma.shape == (2,) and (sigma >= 0).all() and (sigma <= 1).all()
