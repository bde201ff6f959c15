"""The straight way from data to noise, its velocity, and how far a prediction is from that."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nextscene.training.flow.objective import loss_per_sample, noised, velocity

SEEDS = st.integers(0, 2**32 - 1)
SIGMAS = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=4)


def pair(seed: int, batch: int) -> tuple[Tensor, Tensor]:
    """Data, not centered, and noise: tokens [B, S, C]."""
    draw = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(batch, 5, 3, generator=draw) + 1, torch.randn(batch, 5, 3, generator=draw)


@given(SEEDS, SIGMAS)
def test_going_back_along_the_velocity_gives_the_data_and_on_along_it_the_noise(seed: int, sigmas: list[float]) -> None:
    clean, noise = pair(seed, len(sigmas))
    sigma = torch.tensor(sigmas)
    weight = sigma[:, None, None]
    at, along = noised(clean, noise, sigma), velocity(clean, noise)
    torch.testing.assert_close(at - weight * along, clean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(at + (1 - weight) * along, noise, atol=1e-5, rtol=1e-5)


def test_in_numbers_that_add_exactly_the_data_come_back_exactly() -> None:
    clean, noise = torch.tensor([[[3.0, -5.0]], [[8.0, 2.0]]]), torch.tensor([[[1.0, 7.0]], [[-4.0, 2.0]]])
    sigma = torch.tensor([0.25, 0.5])
    at = noised(clean, noise, sigma)
    assert at.tolist() == [[[2.5, -2.0]], [[2.0, 2.0]]]
    assert velocity(clean, noise).tolist() == [[[-2.0, 12.0]], [[-12.0, 0.0]]]
    assert torch.equal(at - sigma[:, None, None] * velocity(clean, noise), clean)


def test_the_ends_are_the_data_and_the_noise() -> None:
    clean, noise = pair(0, 2)
    assert torch.equal(noised(clean, noise, torch.zeros(2)), clean)
    assert torch.equal(noised(clean, noise, torch.ones(2)), noise)


@given(SEEDS)
def test_the_velocity_is_the_slope_of_the_way(seed: int) -> None:
    clean, noise = (part.double() for part in pair(seed, 2))
    before, behind = (noised(clean, noise, torch.full((2,), sigma).double()) for sigma in (0.25, 0.75))
    torch.testing.assert_close(velocity(clean, noise), (behind - before) / 0.5)


@given(SEEDS, SIGMAS)
def test_each_sample_has_its_own_sigma(seed: int, sigmas: list[float]) -> None:
    clean, noise = pair(seed, len(sigmas))
    together = noised(clean, noise, torch.tensor(sigmas))
    for row, sigma in enumerate(sigmas):
        assert torch.equal(together[row], (1 - torch.tensor(sigma)) * clean[row] + torch.tensor(sigma) * noise[row])


# ---- the loss ------------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 4))
def test_the_true_velocity_costs_nothing_and_none_at_all_its_mean_square(seed: int, batch: int) -> None:
    clean, noise = pair(seed, batch)
    assert loss_per_sample(noise - clean, clean, noise).tolist() == [0] * batch
    expected = [sum((e - x) ** 2 for e, x in zip(*rows, strict=True)) / 15 for rows in _flat(noise, clean)]
    assert loss_per_sample(torch.zeros_like(clean), clean, noise).tolist() == pytest.approx(expected, rel=1e-5)


def _flat(*parts: Tensor) -> list[tuple[list[float], ...]]:
    """For each sample, its numbers in each of the parts."""
    return list(zip(*(part.flatten(1).tolist() for part in parts), strict=True))


def test_the_wrong_sign_costs_four_times_as_much_as_nothing() -> None:
    clean, noise = pair(1, 3)
    nothing = loss_per_sample(torch.zeros_like(clean), clean, noise)
    torch.testing.assert_close(loss_per_sample(clean - noise, clean, noise), 4 * nothing)


def test_the_loss_of_a_sample_depends_neither_on_others_nor_on_token_counts() -> None:
    clean, noise = pair(2, 3)
    predicted = torch.full_like(clean, 0.5)
    together = loss_per_sample(predicted, clean, noise)
    assert together.shape == (3,) and len(set(together.tolist())) == 3
    for row in range(3):
        alone = (part[row : row + 1] for part in (predicted, clean, noise))
        torch.testing.assert_close(loss_per_sample(*alone), together[row : row + 1])
    twice = (torch.cat([part, part], dim=1) for part in (predicted, clean, noise))
    torch.testing.assert_close(loss_per_sample(*twice), together)


def test_a_prediction_in_half_precision_is_measured_in_float32() -> None:
    clean, noise = pair(3, 2)
    predicted = torch.full_like(clean, 0.1).bfloat16()
    found = loss_per_sample(predicted, clean, noise)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss_per_sample(predicted.float(), clean, noise))


def test_the_gradient_of_the_loss_is_that_of_the_mean_square() -> None:
    clean, noise = pair(4, 2)
    predicted = torch.zeros_like(clean, requires_grad=True)
    loss_per_sample(predicted, clean, noise).sum().backward()
    torch.testing.assert_close(predicted.grad, -2 * (noise - clean) / 15)
