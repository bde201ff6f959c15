"""The average of the weights: its closed form, where it lies, and that it gives back what it borrowed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from nextscene.training.optimizer.ema import EMA
from tests.training.optimizer.problems import NobodyWaits, loss, model, sharded
from tests.training.ranks import run

pytestmark = pytest.mark.slow


@given(st.floats(0.0, 1.0), st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=12))
def test_each_value_counts_by_its_age(decay: float, values: list[float]) -> None:
    parameter = torch.tensor([values[0], 1.0])
    average = EMA({"it": parameter}, decay)
    for value in values[1:]:
        parameter[0] = value
        average.update()
    ages = range(len(values) - 1)
    shares = [decay ** len(ages), *((1 - decay) * decay**age for age in reversed(ages))]
    wanted = sum(share * value for share, value in zip(shares, values, strict=True))
    assert average.shadows["it"].tolist() == pytest.approx([wanted, 1.0], rel=1e-4, abs=1e-3)


@given(st.floats(0.0, 1.0), st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30))
def test_an_average_that_warms_up_forgets_its_start(decay: float, values: list[float]) -> None:
    parameter = torch.tensor([values[0], 1.0])
    average = EMA({"it": parameter}, decay, warm_up=True)
    wanted, share = values[0], 1.0
    for number, value in enumerate(values[1:]):
        parameter[0] = value
        average.update()
        now = min(decay, (1 + number) / (10 + number))
        wanted, share = now * wanted + (1 - now) * value, now * share
    assert average.shadows["it"].tolist() == pytest.approx([wanted, 1.0], rel=1e-4, abs=1e-3)
    assert average.start_share == pytest.approx(share)


def test_the_start_is_forgotten_after_a_stage_of_the_paper() -> None:
    """Without a warm-up, 68 % of the average would be the start. With it: 9! · t! / (t + 9)!, while t is small."""
    warm, cold = EMA({}, 0.9999, warm_up=True), EMA({}, 0.9999)
    warm.updates = cold.updates = 3789
    assert cold.start_share == pytest.approx(0.6846, abs=1e-4)
    assert warm.start_share == pytest.approx(math.exp(math.lgamma(10) + math.lgamma(3790) - math.lgamma(3799)))
    assert warm.start_share < 1e-6


def test_the_average_moves_by_less_than_its_parameters_could() -> None:
    parameter = torch.ones(5, dtype=torch.bfloat16)
    average = EMA({"it": parameter}, 0.9999)
    parameter += 1
    average.update()
    assert average.shadows["it"].dtype == torch.float32
    assert average.shadows["it"].tolist() == pytest.approx([1.0001] * 5, rel=1e-6)


def test_an_average_is_no_view_of_its_parameters() -> None:
    parameter = torch.ones(3)
    average = EMA({"it": parameter}, 0.5)
    parameter.zero_()
    assert average.shadows["it"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_averaged_values_are_swapped_in_for_a_while_and_out_again(dtype: torch.dtype) -> None:
    layers = model(dtype)
    average = EMA(dict(layers.named_parameters()), 0.5)
    own = [torch.randn_like(parameter) for parameter in layers.parameters()]
    averaged = [parameter.detach().clone() for parameter in layers.parameters()]
    with torch.no_grad():
        torch._foreach_copy_(list(layers.parameters()), own)
    with pytest.raises(KeyboardInterrupt), average.swapped_in():
        assert all(one.equal(other) for one, other in zip(layers.parameters(), averaged, strict=True))
        raise KeyboardInterrupt
    assert all(one.equal(other) for one, other in zip(layers.parameters(), own, strict=True))
    assert all(one.requires_grad for one in layers.parameters())


def test_averaging_never_waits_for_the_device() -> None:
    layers = model(torch.float32)
    with NobodyWaits():
        average = EMA(dict(layers.named_parameters()), 0.9)
        average.update()
        with average.swapped_in():
            pass


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="within 0 and 1"):
        EMA({}, decay)


def test_averages_of_shards_are_shards_and_together_those_of_the_whole() -> None:
    whole = model()
    wanted = _averaged_and_own(whole, EMA(dict(whole.named_parameters()), 0.9))
    for rank in run(_average_shards, 2):
        assert rank == pytest.approx(wanted, rel=1e-6)


def _average_shards(rank: int, world: int) -> list[float]:
    layers = sharded(init_device_mesh("cpu", (world,)))
    average = EMA(dict(layers.named_parameters()), 0.9)
    assert all(isinstance(shadow, DTensor) for shadow in average.shadows.values())
    return _averaged_and_own(layers, average)


def _averaged_and_own(layers: torch.nn.Module, average: EMA) -> list[float]:
    """The losses by the averaged weights and by their own, which have in the meantime been trebled."""
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter *= 3
        average.update()
        with average.swapped_in():
            averaged = loss(layers).item()
        return [averaged, loss(layers).item()]
