"""What is random about a sample depends on the sample alone, and is distributed as it says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nextscene.shards.loading.shuffle import SampleRef
from nextscene.training.config import ObjectiveConfig
from nextscene.training.data.sample_noise import SampleNoise, sample_noise

SHAPE = (2, 1, 3, 3)
DRAWS = st.lists(st.builds(SampleRef, st.integers(0, 2**40), st.integers(0, 2**20)), min_size=1, max_size=6)
COUNT = 5000
PINNED = [0.7272, 0.6369, 1.5195, 1.6069, 0.4804]


@pytest.fixture(scope="module")
def many() -> SampleNoise:
    return sample_noise(0, [SampleRef(number, number % 3) for number in range(COUNT)], SHAPE)


def equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


# ---- the same for the same sample ----------------------------------------------------------------------------------


@given(st.integers(0, 2**40), DRAWS, st.data())
def test_a_sample_has_the_same_numbers_in_any_grouping_and_order(
    seed: int, draws: list[SampleRef], data: st.DataObject
) -> None:
    together = sample_noise(seed, draws, SHAPE)
    order = data.draw(st.permutations(range(len(draws))))
    assert equal(sample_noise(seed, [draws[place] for place in order], SHAPE), [part[list(order)] for part in together])
    cut = data.draw(st.integers(1, len(draws)))
    groups = [sample_noise(seed, group, SHAPE) for group in (draws[:cut], draws[cut:]) if group]
    assert equal([torch.cat(parts) for parts in zip(*groups, strict=True)], together)


def test_other_random_draws_neither_change_the_noise_nor_are_changed_by_it() -> None:
    torch.manual_seed(1)
    first, after = sample_noise(0, [SampleRef(5, 0)], SHAPE), torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)
    assert equal(sample_noise(0, [SampleRef(5, 0)], SHAPE), first)


def test_the_shapes_are_those_of_a_batch() -> None:
    found = sample_noise(0, [SampleRef(1, 0), SampleRef(2, 0)], SHAPE)
    assert [tuple(part.shape) for part in found] == [(2,), (2, 2), (2,), (2, *SHAPE), (2, *SHAPE)]


def test_the_numbers_are_those_of_earlier_versions() -> None:
    """A run may be gone on with by another version, and must find the same noise."""
    found = sample_noise(7, [SampleRef(3, 1)], (1, 1, 1, 1))
    assert [round(float(part.flatten()[0]), 4) for part in found] == PINNED


# ---- other for another ---------------------------------------------------------------------------------------------


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**20))
def test_another_seed_epoch_or_sample_gives_other_numbers(seed: int, number: int, epoch: int) -> None:
    own = sample_noise(seed, [SampleRef(number, epoch)], SHAPE)
    for other in (
        sample_noise(seed + 1, [SampleRef(number, epoch)], SHAPE),
        sample_noise(seed, [SampleRef(number, epoch + 1)], SHAPE),
        sample_noise(seed, [SampleRef(number + 1, epoch)], SHAPE),
        sample_noise(seed, [SampleRef(epoch, number)], SHAPE)
        if epoch != number
        else sample_noise(seed + 2, [SampleRef(0, 0)], SHAPE),
    ):
        assert not any(torch.equal(mine, theirs) for mine, theirs in zip(own, other, strict=True))


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]).double())[0, 1])


def test_random_values_of_a_sample_and_of_its_neighbors_are_uncorrelated(many: SampleNoise) -> None:
    first = [many.drop, many.uniform[:, 0], many.uniform[:, 1], many.normal, many.posterior[:, 0, 0, 0, 0]]
    numbers = [*first, many.noise[:, 0, 0, 0, 0]]
    for place, one in enumerate(numbers):
        for other in numbers[place + 1 :]:
            assert abs(correlation(one, other)) < 5 / math.sqrt(COUNT)
        assert abs(correlation(one[1:], one[:-1])) < 5 / math.sqrt(COUNT)
    assert abs(correlation(many.posterior, many.noise)) < 5 / math.sqrt(many.noise.numel())


# ---- distributed as it says ----------------------------------------------------------------------------------------


def test_a_tenth_of_the_samples_loses_its_text(many: SampleNoise) -> None:
    rate = ObjectiveConfig().dropout
    assert rate == 0.1
    dropped = int((many.drop < rate).sum())
    assert abs(dropped - rate * COUNT) < 4 * math.sqrt(rate * (1 - rate) * COUNT)


def test_a_sample_that_loses_its_text_has_it_in_another_epoch() -> None:
    lost = [
        [
            bool(drop < 0.1)
            for drop in sample_noise(0, [SampleRef(number, epoch) for number in range(1000)], (1, 1, 1, 1)).drop
        ]
        for epoch in range(2)
    ]
    both = sum(one and other for one, other in zip(*lost, strict=True))
    assert both < 0.01 * 1000 + 4 * math.sqrt(0.01 * 1000)


@pytest.mark.parametrize("name", ["drop", "uniform"])
def test_uniform_numbers_are_uniform(many: SampleNoise, name: str) -> None:
    values = getattr(many, name).flatten()
    assert values.min() >= 0 and values.max() < 1
    for point in (0.05, 0.3, 0.5, 0.9):
        bound = 4 * math.sqrt(point * (1 - point) / len(values))
        assert (values < point).float().mean().item() == pytest.approx(point, abs=bound)


@pytest.mark.parametrize("name", ["normal", "posterior", "noise"])
def test_noise_is_standard_normal(many: SampleNoise, name: str) -> None:
    values = getattr(many, name).flatten().double()
    count = len(values)
    assert abs(values.mean().item()) < 4 / math.sqrt(count)
    assert values.var().item() == pytest.approx(1, abs=4 * math.sqrt(2 / count))
    assert (values**4).mean().item() == pytest.approx(3, abs=4 * math.sqrt(96 / count))
