"""Prodigy: what its authors' package computes, whoever holds which shard, and what its theory promises."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import prodigyopt
import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from nextscene.training.optimizer import prodigy
from nextscene.training.optimizer.prodigy import Prodigy
from tests.training.optimizer.problems import NobodyWaits, loss, model, sharded
from tests.training.ranks import RankFailed, run

pytestmark = pytest.mark.slow

OPTIONS: list[dict[str, Any]] = [
    {},
    {"use_bias_correction": True},
    {"weight_decay": 0.01},
    {"lr": 0.3, "safeguard_warmup": True},
    {"lr": 0.3, "use_bias_correction": True},
    {"d0": 1e-3, "eps": 1e-4},
    {"d_coef": 0.5, "beta3": 0.95},
    {"d_coef": 2.0, "growth_rate": 1.1},
    {"use_bias_correction": True, "safeguard_warmup": True, "weight_decay": 0.01, "betas": (0.9, 0.99)},
]


def train(layers: nn.Module, optimizer: Any, steps: int, part: int = 0, parts: int = 1) -> list[float]:
    """The losses before each step."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        now = loss(layers, part, parts)
        now.backward()
        optimizer.step()
        losses.append(now.item())
    return losses


def assert_same(ours: Prodigy, theirs: prodigyopt.Prodigy, rtol: float = 1e-6) -> None:
    """Weights, averages and estimates; those of theirs only where they were ever made.

    How far the weights have come is known to the rounding of the weights; the numerator is a millionth of it.
    """
    known = theirs.param_groups[0]
    for name, key in {"d": "d", "d_max": "d_max", "numerator": "d_numerator", "step": "k"}.items():
        assert ours.shared[name].item() == pytest.approx(known[key], rel=rtol, abs=1e-20)
    for one, other in zip(_parameters(ours), _parameters(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol)
        for name in ("s", "exp_avg", "exp_avg_sq"):
            if name in theirs.state[other]:
                wanted = theirs.state[other][name].view_as(one)
                scale = float(wanted.abs().max())
                torch.testing.assert_close(ours.state[one][name], wanted, rtol=rtol, atol=rtol * scale)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


# ---- as the package ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS)
def test_a_hundred_steps_are_those_of_prodigyopt(options: dict[str, Any]) -> None:
    one, other = model(), model()
    ours, theirs = Prodigy(one.parameters(), **options), prodigyopt.Prodigy(other.parameters(), **options)
    assert train(one, ours, 100) == pytest.approx(train(other, theirs, 100), rel=1e-6)
    assert_same(ours, theirs)
    assert ours.d > 2e-6


def test_in_single_precision_they_differ_by_its_rounding() -> None:
    """With a d0 of which the first steps are not lost in the rounding of the weights."""
    one, other = model(torch.float32), model(torch.float32)
    ours, theirs = Prodigy(one.parameters(), d0=1e-3), prodigyopt.Prodigy(other.parameters(), d0=1e-3)
    assert train(one, ours, 100) == pytest.approx(train(other, theirs, 100), rel=1e-3)
    assert ours.d.item() == pytest.approx(theirs.param_groups[0]["d"], rel=1e-5)


@settings(max_examples=50)
@given(st.data())
def test_any_gradients_and_any_warm_up_are_taken_as_prodigyopt_takes_them(data: st.DataObject) -> None:
    """Gradients that are missing or zero, parameters of zeros or of one number, a decay of its own for a group."""
    options = data.draw(st.sampled_from(OPTIONS))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    begin = [_normal(generator, 3, 2), torch.zeros(4, dtype=torch.float64), _normal(generator)]
    ours, theirs = (
        kind(
            [{"params": [v.clone() for v in begin[:2]]}, {"params": [begin[2].clone()], "weight_decay": 0.1}], **options
        )
        for kind in (Prodigy, prodigyopt.Prodigy)
    )
    for _ in range(data.draw(st.integers(1, 8))):
        lr = data.draw(st.sampled_from([0.0, 0.1, 1.0]))
        kinds = data.draw(st.lists(st.sampled_from(["some", "some", "zero", "none"]), min_size=3, max_size=3))
        gradients = [
            _normal(generator, *value.shape) * (kind == "some") for value, kind in zip(begin, kinds, strict=True)
        ]
        for optimizer in (ours, theirs):
            for parameter, gradient, kind in zip(_parameters(optimizer), gradients, kinds, strict=True):
                parameter.grad = None if kind == "none" else gradient.clone()
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        assert_same(ours, theirs)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_a_group_may_stand_still_while_the_others_move() -> None:
    one, other = model(), model()
    ours, theirs = (
        kind([{"params": layers[0].parameters(), "lr": 0.0}, {"params": layers[2].parameters()}])
        for kind, layers in ((Prodigy, one), (prodigyopt.Prodigy, other))
    )
    assert train(one, ours, 50) == pytest.approx(train(other, theirs, 50), rel=1e-6)
    assert_same(ours, theirs)
    assert one[0].weight.equal(model()[0].weight) and not one[2].weight.equal(model()[2].weight)


def test_a_group_that_stands_still_neither_decays_nor_goes_on_by_its_momentum() -> None:
    """In prodigyopt it does both."""
    layers = model()
    optimizer = Prodigy([{"params": layers[0].parameters()}, {"params": layers[2].parameters()}], weight_decay=0.1)
    train(layers, optimizer, 20)
    optimizer.param_groups[0]["lr"] = 0.0
    before = deepcopy(layers)
    train(layers, optimizer, 5)
    assert layers[0].weight.equal(before[0].weight) and not layers[2].weight.equal(before[2].weight)


def test_with_an_lr_of_zero_nothing_changes() -> None:
    layers = model()
    optimizer = Prodigy(layers.parameters(), lr=0.0, weight_decay=0.1)
    before = deepcopy([*layers.parameters(), *_tensors(optimizer)])
    train(layers, optimizer, 3)
    assert all(
        one.equal(other) for one, other in zip([*layers.parameters(), *_tensors(optimizer)], before, strict=True)
    )


@pytest.mark.parametrize(
    "options", [{"lr": -1.0}, {"eps": 0.0}, {"d0": 0.0}, {"betas": (0.0, 0.9)}, {"betas": (0.9, 1.0)}, {"beta3": 1.0}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        Prodigy(model().parameters(), **options)


def test_groups_whose_lr_differs_are_refused() -> None:
    layers = model()
    optimizer = Prodigy([{"params": layers[0].parameters(), "lr": 0.5}, {"params": layers[2].parameters()}])
    with pytest.raises(ValueError, match="share one estimate"):
        optimizer.step()


# ---- as its theory -------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.integers(0, 99), st.floats(0.01, 100.0), st.booleans())
def test_on_a_convex_problem_d_grows_toward_the_distance_and_never_beyond(seed: int, far: float, square: bool) -> None:
    """By convexity the numerator is at most <s, p0 - solution>: d at most the largest coordinate of that distance."""
    generator = torch.Generator().manual_seed(seed)
    scales, solution = _normal(generator, 10).exp(), _normal(generator, 10) * far
    parameter = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    optimizer = Prodigy([parameter])
    estimates = []
    for _ in range(200):
        optimizer.zero_grad()
        away = scales * (parameter - solution)
        (away.square() if square else away.abs()).sum().backward()
        optimizer.step()
        estimates.append(optimizer.d.item())
    assert estimates == sorted(estimates)
    distance = solution.abs().max().item()
    assert distance / 1000 < estimates[-1] <= distance * (1 + 1e-9)


# ---- as a program --------------------------------------------------------------------------------------------------


def _tensors(optimizer: Prodigy) -> list[Tensor]:
    """All of its state."""
    return [tensor for kept in (*optimizer.state.values(), optimizer.shared) for tensor in kept.values()]


def _copied_in_place(source: Prodigy, target: Prodigy) -> None:
    for one, other in zip(_tensors(target), _tensors(source), strict=True):
        one.copy_(other)


def _as_state_dict(source: Prodigy, target: Prodigy) -> None:
    target.load_state_dict(deepcopy(source.state_dict()))


@pytest.mark.parametrize("hand_over", [_copied_in_place, _as_state_dict])
@pytest.mark.parametrize("steps", [0, 1, 40])
def test_a_fresh_optimizer_goes_on_by_the_state_of_another_to_the_bit(
    hand_over: Callable[[Prodigy, Prodigy], None], steps: int
) -> None:
    options = OPTIONS[-1]
    layers = model()
    optimizer = Prodigy(layers.parameters(), **options)
    train(layers, optimizer, steps)
    copy = deepcopy(layers)
    with torch.no_grad():
        fresh = Prodigy(copy.parameters(), **options)
    hand_over(optimizer, fresh)
    assert train(copy, fresh, 20) == train(layers, optimizer, 20)
    assert all(one.equal(other) for one, other in zip(_tensors(fresh), _tensors(optimizer), strict=True))


def test_the_state_is_there_before_the_first_step_and_stays_in_its_place() -> None:
    layers = model()
    optimizer = Prodigy(layers.parameters())
    before = [tensor.data_ptr() for tensor in _tensors(optimizer)]
    train(layers, optimizer, 3)
    assert [tensor.data_ptr() for tensor in _tensors(optimizer)] == before
    assert len(before) == 4 * 4 + 4


@pytest.mark.parametrize("options", OPTIONS)
def test_a_step_never_waits_for_the_device(options: dict[str, Any]) -> None:
    layers = model(torch.float32)
    optimizer = Prodigy(layers.parameters(), **options)
    loss(layers).backward()
    with NobodyWaits():
        optimizer.step()


def test_portions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = model(), model()
    whole = train(one, Prodigy(one.parameters()), 30)
    monkeypatch.setattr(prodigy, "_PORTION", 20)
    assert train(other, Prodigy(other.parameters()), 30) == pytest.approx(whole, rel=1e-9)


# ---- over processes ------------------------------------------------------------------------------------------------

STEPS = 40
Seen = list[tuple[float, float]]  # loss and d of each step


def test_d_is_the_same_in_all_processes_and_the_losses_are_those_of_one(trained: Trained, alone: Seen) -> None:
    for shape in [(1,), (2,), (2, 2)]:
        ranks, _ = trained(shape)
        estimates = [[d for _, d in seen] for seen in ranks]
        assert estimates == [estimates[0]] * prod(shape)
        assert estimates[0] == pytest.approx([d for _, d in alone], rel=1e-9)
        assert _mean(ranks) == pytest.approx([now for now, _ in alone], rel=1e-7)


def test_as_many_processes_go_on_from_a_checkpoint_to_the_bit(trained: Trained) -> None:
    ranks, folder = trained((2,))
    assert run(_resume_sharded, 2, folder) == [seen[STEPS:] for seen in ranks]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on_from_a_checkpoint(before: int, after: int, trained: Trained) -> None:
    ranks, folder = trained((before,))
    resumed = run(_resume_sharded, after, folder)
    assert _mean(resumed) == pytest.approx(_mean(ranks)[STEPS:], rel=1e-7)
    assert [d for _, d in resumed[0]] == pytest.approx([d for _, d in ranks[0][STEPS:]], rel=1e-9)


def test_parameters_of_which_only_some_are_sharded_are_refused() -> None:
    with pytest.raises(RankFailed, match="ValueError: parameters must all be sharded over the same processes"):
        run(_mix, 1)


def _mix(rank: int, world: int) -> None:
    Prodigy([*sharded(init_device_mesh("cpu", (world,))).parameters(), *model().parameters()])


Trained = Callable[[tuple[int, ...]], tuple[list[Seen], Path]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """By the shape of the mesh: twice STEPS steps as each rank saw them, and the checkpoint between."""

    @cache
    def train_over(shape: tuple[int, ...]) -> tuple[list[Seen], Path]:
        folder = tmp_path_factory.mktemp("checkpoint")
        return run(_train_sharded, prod(shape), shape, folder), folder

    return train_over


@pytest.fixture(scope="module")
def alone() -> Seen:
    """The same in a process that knows of no others."""
    layers = model()
    return _watched(layers, Prodigy(layers.parameters(), **OPTIONS[-1]), 2 * STEPS)


def _train_sharded(rank: int, world: int, shape: tuple[int, ...], folder: Path) -> Seen:
    layers = sharded(init_device_mesh("cpu", shape, mesh_dim_names=("replicas", "shards")[-len(shape) :]))
    optimizer = Prodigy(layers.parameters(), **OPTIONS[-1])
    seen = _watched(layers, optimizer, STEPS, rank, world)
    dcp.save(_saved(layers, optimizer), checkpoint_id=folder)
    return seen + _watched(layers, optimizer, STEPS, rank, world)


def _resume_sharded(rank: int, world: int, folder: Path) -> Seen:
    layers = sharded(init_device_mesh("cpu", (world,)))
    optimizer = Prodigy(layers.parameters(), **OPTIONS[-1])
    dcp.load(_saved(layers, optimizer), checkpoint_id=folder)
    return _watched(layers, optimizer, STEPS, rank, world)


def _saved(layers: nn.Module, optimizer: Prodigy) -> dict[str, Any]:
    """The very tensors, so that loading copies into them."""
    state = {name: optimizer.state[parameter] for name, parameter in layers.named_parameters()}
    return {"model": dict(layers.named_parameters()), "state": state, "shared": optimizer.shared}


def _watched(layers: nn.Module, optimizer: Prodigy, steps: int, part: int = 0, parts: int = 1) -> Seen:
    return [(*train(layers, optimizer, 1, part, parts), optimizer.d.item()) for _ in range(steps)]


def _mean(ranks: list[Seen]) -> list[float]:
    """Of the losses, by step."""
    return [sum(now for now, _ in step) / len(ranks) for step in zip(*ranks, strict=True)]
