"""The gradient of a step of GRPO: REINFORCE's, from a plain loop; and how much work it is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributions import Normal
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from nextscene.training.build_stage import build_stage
from nextscene.training.distributed.process_group import current_world
from nextscene.training.job import TrainingJob
from nextscene.training.metrics.costs import model_sizes
from nextscene.training.metrics.throughput import Throughput
from nextscene.training.model.unified import UnifiedModel, coordinates
from nextscene.training.objectives.grpo.group import CandidateScene
from nextscene.training.objectives.grpo.grpo import Grpo
from nextscene.training.objectives.grpo.judged_group import JudgedGroup
from nextscene.training.recipe import Recipe
from nextscene.training.stage import StageState
from tests.training.objectives.grpo.toys import (
    RL,
    Judge,
    brightness,
    judged_by,
    odd_clips_have_spread,
    odd_passes,
    one_in_three_is_missing,
    policy,
)
from tests.training.ranks import run
from tests.training.stages import Quiet, Stage, by_ranks, replace

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Gradients:
    """Of one step by Grpo, and by a plain loop over what it kept: by name, on each side."""

    ours: dict[str, Tensor]
    plain: dict[str, Tensor]
    kept: list[list[tuple[int, float]]]


def gradients(_rank: int, _world: int, job: TrainingJob, judge: Judge) -> Gradients:
    """On one rank, whose parameters are whole."""
    state, judged = after_a_step(job, judge)
    ours = {name: whole(value.grad) for name, value in state.trained_parameters.items()}
    for value in state.trained_parameters.values():
        value.grad = None
    reinforce(state.model, judged, job.recipe)
    plain = {name: whole(value.grad) for name, value in state.trained_parameters.items()}
    return Gradients(ours, plain, [[(one.number, one.advantage) for one in of.kept] for of in judged])


def after_a_step(job: TrainingJob, judge: Judge) -> tuple[StageState, list[JudgedGroup]]:
    """The stage with the gradient of its first step, and the groups of this rank."""
    with judged_by(judge):
        state = build_stage(job, current_world(), Quiet())
        method = Grpo(state, Throughput(state.model, state.batches, state.world))
        judged: list[JudgedGroup] = []
        select = method._select
        with patch.object(method, "_select", lambda *given: judged.append(select(*given)) or judged[-1]):
            method._throughput.start_step()
            method.compute_gradient(iter(state.batches), 0)
        method.close()
    return state, judged


def whole(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return (gradient.full_tensor() if isinstance(gradient, DTensor) else gradient).clone()


def reinforce(model: Any, judged: list[JudgedGroup], recipe: Recipe) -> None:
    """∇ of -Σ advantage × log probability, over what is kept: what the clipped objective is at a ratio of 1.

    The step is written as the paper writes it, by the score; both branches of the guidance by themselves.
    """
    settings = recipe.policy
    for one in judged:
        scene, size = one.group.scene, settings.sampled_together
        coords = coordinates(scene.grid, model.ratios, scene.fps)
        for kept in one.kept:
            rollouts, row = one.group.rollouts[kept.number // size], kept.number % size
            for step in one.steps:
                now, then = list(pairwise(one.group.sigmas))[step]
                x, reached = rollouts.trajectory[step, row][None], rollouts.trajectory[step + 1, row][None]
                condition = model.condition(scene.text_tokens)
                v_without, v_given = (
                    model.velocity(x, torch.tensor([now]), condition[branch : branch + 1], coords) for branch in (0, 1)
                )
                v_without = v_without.detach() if settings.detach_unconditional else v_without
                v = settings.guidance * v_given + (1 - settings.guidance) * v_without
                score = -(x + (1 - now) * v) / now
                mean = x + (v - settings.eta**2 / 2 * score) * (then - now)
                probability = Normal(mean, settings.eta * (now - then) ** 0.5).log_prob(reached).mean()
                share = settings.best_of * len(one.steps) * recipe.data.global_batch
                (-kept.advantage * probability / share).backward()


@pytest.mark.parametrize(
    ("changes", "judge"),
    [
        ({}, brightness),
        ({"batch": 1}, odd_passes),
        ({"detach_unconditional": True}, brightness),
        ({"kl_coef": 5.0}, brightness),  # at the start there is no distance, and its slope is none
        ({}, one_in_three_is_missing),
        ({"sample_batch": 6, "batch": 1}, brightness),
    ],
    ids=["plain", "one by one", "detached", "kl", "missing", "sampled together"],
)
def test_the_gradient_is_reinforce_s_where_the_ratio_is_one(
    stage: Stage, changes: dict[str, Any], judge: Judge
) -> None:
    job = stage.job("gradient", replace(policy(**changes), data=replace(RL.data, global_batch=1)))
    found = by_ranks(1, gradients, job, judge)
    assert found.ours.keys() == found.plain.keys()
    largest = max(value.abs().max().item() for value in found.plain.values())
    assert largest > 1e-5
    for name, ours in found.ours.items():
        assert torch.allclose(ours, found.plain[name], rtol=1e-3, atol=1e-4 * largest), name
    if judge is one_in_three_is_missing:  # of six, two are missing: the four others are all kept
        assert sorted(number for number, _ in found.kept[0]) == [0, 1, 3, 4]


def first_gradient(_rank: int, _world: int, job: TrainingJob) -> tuple[dict[str, Tensor], int]:
    """Of a step, and how many passes of the transformer with a gradient this rank took for it."""
    passes = 0

    def counted(model: UnifiedModel, *given: Any) -> Tensor:
        nonlocal passes
        passes += torch.is_grad_enabled()
        return velocity(model, *given)

    velocity = UnifiedModel.velocity
    with patch.object(UnifiedModel, "velocity", counted):
        state, _ = after_a_step(job, odd_clips_have_spread)
    return {name: whole(value.grad) for name, value in state.trained_parameters.items()}, passes


@pytest.mark.parametrize("kl", [0.0, 5.0])
def test_ranks_share_what_is_to_be_learned_and_the_gradient_is_that_of_one(stage: Stage, kl: float) -> None:
    """Of two scenes only that of the second rank teaches: four candidates, of three steps each.

    Three passes of all four are dealt to two ranks, so that one of the two is given a filler. A penalty teaches of the
    first scene, too.
    """
    recipe = policy(batch=4, sample_batch=6, fraction=1.0, kl_coef=kl)
    ((alone, passes),) = run(first_gradient, 1, stage.job("alone", recipe))
    (first, first_passes), (_, second_passes) = run(first_gradient, 2, stage.job("shared", recipe))
    assert passes == (6 if kl else 3)
    assert first_passes == second_passes == (3 if kl else 2)
    size = torch.stack([value.norm() for value in alone.values()]).norm()
    for name, value in alone.items():
        assert (first[name] - value).norm() <= 1e-6 * size, name


def reads(_rank: int, _world: int, job: TrainingJob) -> int:
    """How often a number of a tensor was waited for in a step."""
    count = 0

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, _types: Any, given: Any = (), named: Any = None) -> Any:
            nonlocal count
            count += function is torch.ops.aten._local_scalar_dense.default
            return function(*given, **(named or {}))

    def to_list(tensor: Tensor) -> Any:
        nonlocal count
        count += 1
        return as_list(tensor)

    as_list = Tensor.tolist
    with Counting(), patch.object(Tensor, "tolist", to_list):
        after_a_step(job, brightness)
    return count


def test_however_many_steps_are_learned_from_nothing_more_is_waited_for(stage: Stage) -> None:
    few, many = (
        by_ranks(1, reads, stage.job("reads", replace(policy(fraction=share), data=replace(RL.data, global_batch=1))))
        for share in (0.3, 1.0)
    )
    assert few == many > 0


def work(_rank: int, _world: int, job: TrainingJob) -> tuple[int, int]:
    """FLOPs of a step as torch counts them; and as the throughput is told of them, with those of a look at the start.

    That look tells the distance from there: both branches of one step, and their condition. It is no work of the step.
    """
    with judged_by(odd_passes):
        state = build_stage(job, current_world(), Quiet())
        assert state.reward
        throughput = Throughput(state.model, state.batches, state.world)
        method = Grpo(state, throughput)
        throughput.start_step()
        batch = next(iter(state.batches))
        prefix = CandidateScene.of(batch, state.encoder).text_tokens.ids.shape[1]
        sizes = model_sizes(state.model, batch.grid, prefix)
        throughput._vae(batch.grid)  # which is counted as it is first asked for
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            method.compute_gradient(iter([batch]), 0)
    look = [sizes.denoising(clips=2), sizes.encoding_text(2), sizes.encoding_queries(2), sizes.connecting(2)]
    counts = counter.get_flop_counts()
    positions = sum(sum(counts[module].values()) for module in counts if module.endswith(".rotary_emb"))
    return counter.get_total_flops() - positions, throughput._work.total + sum(part.forward for part in look)


@pytest.mark.parametrize("detached", [False, True])
def test_the_work_of_a_step_is_what_torch_counts(stage: Stage, detached: bool) -> None:
    changed = replace(policy(detach_unconditional=detached, batch=1), data=replace(RL.data, global_batch=1))
    counted, told = by_ranks(1, work, stage.job("work", changed))
    assert counted == told
