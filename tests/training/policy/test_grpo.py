"""GRPO on the flow: what it learns, from which candidates, and that nothing else moves it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.tensor import DTensor
from torch.distributions import Normal
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.training.policy.toys import (
    RL,
    Judge,
    all_pass,
    brightness,
    judged_by,
    nobody_knows,
    odd_passes,
    one_in_three_is_missing,
    rl_on_rank,
)
from tests.training.stages import Quiet, by_ranks, make_data, make_job, make_originals, replace
from training.checkpoint import latest
from training.errors import TrainingPaused
from training.job import Job
from training.journal import entries
from training.meter import Meter
from training.model.originals import Originals
from training.policy.group import Scene, candidates
from training.policy.grpo import Grpo, _Judged
from training.policy.rollout import Walks
from training.recipe import Policy, Recipe
from training.rewards.base import Candidate, Verdict
from training.setting import set_up
from training.trainer import train
from training.world import of_group


@dataclass(frozen=True)
class Stage:
    folder: Path
    data: Path
    originals: Originals

    def job(self, name: str, recipe: Recipe = RL, **changes: Any) -> Job:
        return make_job(self.data, self.originals, self.folder / name, recipe, **changes)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    folder = tmp_path_factory.mktemp("rl")
    return Stage(folder, make_data(folder / "data"), make_originals(folder / "originals"))


def policy(**changes: Any) -> Recipe:
    return replace(RL, policy=replace(RL.policy, **changes))


def steps(job: Job) -> list[dict[str, Any]]:
    return [line for line in entries(job.folder) if line["event"] == "step"]


def weights(job: Job, step: int) -> dict[str, Tensor]:
    file = job.folder / "whole.pt"
    dcp_to_torch_save(job.checkpoints / f"step-{step}", file)
    return {name: value for name, value in torch.load(file).items() if name.startswith("model.")}


# ---- the gradient ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gradients:
    """Of one step by Grpo, and by a plain loop over what it kept: by name, on each side."""

    ours: dict[str, Tensor]
    plain: dict[str, Tensor]
    kept: list[list[tuple[int, float]]]


def gradients(_rank: int, _world: int, job: Job, judge: Judge) -> Gradients:
    """On one rank, whose parameters are whole."""
    with judged_by(judge):
        setting = set_up(job, of_group(), Quiet())
        assert setting.reward
        method = Grpo(setting, Meter(setting.model, setting.feed, setting.world), setting.reward)
        judged: list[_Judged] = []
        learn_from = method._learn_from
        with patch.object(
            method, "_learn_from", lambda one, *rest, **how: (judged.append(one), learn_from(one, *rest, **how))
        ):
            method._meter.begin()
            method.learn(iter(setting.feed), 0)
    ours = {name: whole(value.grad) for name, value in setting.trained.items()}
    for value in setting.trained.values():
        value.grad = None
    reinforce(setting.model, judged, job.recipe)
    plain = {name: whole(value.grad) for name, value in setting.trained.items()}
    return Gradients(ours, plain, [[(one.number, one.advantage) for one in of.kept] for of in judged])


def whole(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return (gradient.full_tensor() if isinstance(gradient, DTensor) else gradient).clone()


def reinforce(model: Any, judged: list[_Judged], recipe: Recipe) -> None:
    """∇ of -Σ advantage × log probability, over what is kept: what the clipped objective is at a ratio of 1.

    The step is written as the paper writes it, by the score; both branches of the guidance by themselves.
    """
    settings = recipe.policy
    for one in judged:
        scene, size = one.group.scene, settings.batch
        for kept in one.kept:
            walks, row = one.group.walks[kept.number // size], kept.number % size
            for step in one.steps:
                now, then = list(pairwise(one.group.sigmas))[step]
                x, reached = walks.tokens[step, row][None], walks.tokens[step + 1, row][None]
                condition = model.condition(scene.words)
                v_without, v_given = (
                    model.velocity(x, torch.tensor([now]), condition[branch : branch + 1], scene.grid, scene.fps)
                    for branch in (0, 1)
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
        ({"kl": 5.0}, brightness),  # at the start there is no distance, and its slope is none
        ({}, one_in_three_is_missing),
    ],
    ids=["plain", "one by one", "detached", "kl", "missing"],
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


def work(_rank: int, _world: int, job: Job) -> tuple[int, int]:
    """FLOPs of a step as torch counts them; and as the meter is told of them, with those of a look at the start.

    That look tells the distance from there: both branches of one step, and their condition. It is no work of the step.
    """
    with judged_by(odd_passes):
        setting = set_up(job, of_group(), Quiet())
        assert setting.reward
        meter = Meter(setting.model, setting.feed, setting.world)
        method = Grpo(setting, meter, setting.reward)
        meter.begin()
        examples = next(iter(setting.feed))
        prefix = Scene.of(examples, setting.maker).words.ids.shape[1]
        sizes = meter._sizes(examples.grid, prefix)
        meter._vae(examples.grid)  # which is counted as it is first asked for
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            method.learn(iter([examples]), 0)
    look = [sizes.drawing(clips=2), sizes.reading(2), sizes.asking(2), sizes.connecting(2)]
    counts = counter.get_flop_counts()
    positions = sum(sum(counts[module].values()) for module in counts if module.endswith(".rotary_emb"))
    return counter.get_total_flops() - positions, meter._work.total + sum(part.forward for part in look)


@pytest.mark.parametrize("detached", [False, True])
def test_the_work_of_a_step_is_what_torch_counts(stage: Stage, detached: bool) -> None:
    changed = replace(policy(detach_unconditional=detached, batch=1), data=replace(RL.data, global_batch=1))
    counted, told = by_ranks(1, work, stage.job("work", changed))
    assert counted == told


# ---- the run ----------------------------------------------------------------------------------------------------


def on_ranks(stage: Stage, name: str, world: int, judge: Judge = brightness, recipe: Recipe = RL) -> Job:
    job = stage.job(name, recipe)
    by_ranks(world, rl_on_rank, job, judge)
    return job


@pytest.fixture(scope="module")
def alone(stage: Stage) -> Job:
    return on_ranks(stage, "alone", 1)


@pytest.fixture(scope="module")
def shared(stage: Stage) -> Job:
    return on_ranks(stage, "shared", 2)


def test_the_ratio_is_exactly_one_and_nothing_is_clipped(alone: Job, shared: Job) -> None:
    for job in (alone, shared):
        assert [line["ratio_off"] for line in steps(job)] == [0.0] * 4
        assert [line["clip_share"] for line in steps(job)] == [0.0] * 4


def test_two_ranks_learn_what_one_does(alone: Job, shared: Job) -> None:
    """AdamW's first steps have the size of the rate, whatever the gradient's: rounding is seen from the second on."""
    for place, (one, two) in enumerate(zip(steps(alone), steps(shared), strict=True)):
        assert two["reward_mean"] == pytest.approx(one["reward_mean"], abs=1e-3 if place else 1e-7)
        assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=0.1 if place else 1e-4)
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-2 if place else 1e-6)


def test_it_goes_away_from_where_it_began(alone: Job) -> None:
    distances = [line["kl_to_start"] for line in steps(alone)]
    assert distances[0] == 0
    assert all(distance > 0 for distance in distances[1:])


def test_a_run_in_two_parts_is_the_same_to_the_bit(stage: Stage, alone: Job) -> None:
    job = stage.job("parts")
    by_ranks(1, rl_on_rank, job, brightness, 2)
    by_ranks(1, rl_on_rank, replace(job, resume=True), brightness)
    ours, theirs = weights(job, 4), weights(alone, 4)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    timeless = [{name: line[name] for name in ("step", "loss", "reward_mean")} for line in steps(job)]
    assert timeless == [{name: line[name] for name in timeless[0]} for line in steps(alone)]


def test_the_candidates_of_a_step_are_there_to_be_looked_at(alone: Job) -> None:
    folder = alone.folder / "candidates" / "step-1"
    pages = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    assert len(pages) == RL.data.global_batch
    assert (alone.folder / "curves.png").is_file()
    for page in pages:
        assert page["judged_by"] == "toy"
        assert len(page["candidates"]) == RL.policy.candidates
        learnt = [one for one in page["candidates"] if one["learnt_from"]]
        worth = sorted(one["reward"] for one in page["candidates"])
        assert sorted(one["reward"] for one in learnt) == worth[:2] + worth[-2:]
        assert (folder / f"{page['clip_id']}.png").is_file()


def test_nothing_is_learnt_where_all_are_worth_the_same(stage: Stage) -> None:
    job = on_ranks(stage, "same", 1, all_pass, replace(RL, steps=2, keeping=replace(RL.keeping, checkpoint_every=1)))
    first, second = weights(job, 1), weights(job, 2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [line["groups_without_spread"] for line in steps(job)] == [1.0, 1.0]
    assert [line["reward_mean"] for line in steps(job)] == [1.0, 1.0]


def paused(_rank: int, _world: int, job: Job) -> tuple[str, str]:
    calls = 0

    def fails_at_the_second_step(candidate: Candidate) -> float | None:
        nonlocal calls
        calls += 1
        return odd_passes(candidate) if calls <= 12 else nobody_knows(candidate)

    with judged_by(fails_at_the_second_step), pytest.raises(TrainingPaused) as stop:
        train(job, of_group(), Quiet())
    newest = latest(job.checkpoints)
    assert newest
    return str(stop.value), newest.name


def scenes(job: Job) -> dict[str, set[str]]:
    """Of each step that has pages."""
    return {place.name: {page.stem for page in place.iterdir()} for place in (job.folder / "candidates").iterdir()}


def test_a_step_that_nobody_judged_pauses_the_run_which_then_goes_on_as_if_it_had_been_judged(stage: Stage) -> None:
    recipe = replace(RL, steps=3)
    job, undisturbed = stage.job("paused", recipe), on_ranks(stage, "undisturbed", 1, odd_passes, recipe)
    message, checkpoint = by_ranks(1, paused, job)
    assert message.startswith("step 2: none of its 12 videos was judged")
    assert checkpoint == "step-1"
    summary, _ = by_ranks(1, rl_on_rank, replace(job, resume=True), odd_passes)
    assert summary.finished
    assert scenes(job) == scenes(undisturbed)
    ours, theirs = weights(job, 3), weights(undisturbed, 3)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def refused_at_the_second_step(candidate: Candidate) -> float | Verdict:
    return Verdict(None, "refused") if candidate.step == 2 else odd_passes(candidate)


def test_a_step_that_can_never_be_judged_is_passed(stage: Stage) -> None:
    job = stage.job("refused", replace(RL, steps=3, keeping=replace(RL.keeping, checkpoint_every=1)))
    summary, watcher = by_ranks(1, rl_on_rank, job, refused_at_the_second_step)
    assert summary.finished
    (told,) = [note for note in watcher.notes if note.startswith("step 2")]
    assert "none of its videos can be judged" in told and "nothing was learnt" in told
    _, passed, _ = steps(job)
    assert "reward_mean" not in passed
    assert (passed["missing_judgements"], passed["groups_without_spread"]) == (1.0, 1.0)
    first, second, third = (weights(job, step) for step in (1, 2, 3))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(second[name], third[name]) for name in first)


def misremembered(_rank: int, _world: int, job: Job) -> list[str]:
    """With each step taken for more likely than it was; what the watcher was told."""

    def made(*given: Any) -> Iterator[tuple[int, Walks]]:
        for first, walks in candidates(*given):
            yield first, dataclasses.replace(walks, log_probability=walks.log_probability + 1)

    with patch("training.policy.grpo.candidates", made):
        _, watcher = rl_on_rank(0, 1, job, odd_passes)
    return watcher.notes


def test_ratios_that_are_off_are_told(stage: Stage) -> None:
    job = stage.job("off", replace(RL, steps=1))
    notes = by_ranks(1, misremembered, job)
    assert any("step 1: 100.0% of the ratios were clipped" in note for note in notes)
    (step,) = steps(job)
    assert step["ratio_off"] == pytest.approx(1 - math.exp(-1), rel=1e-5) and step["clip_share"] == 1


# ---- what it is for ---------------------------------------------------------------------------------------------


def test_videos_become_brighter_over_twenty_updates_and_do_not_where_nothing_is_learnt(stage: Stage) -> None:
    """The same scenes and the same noise in both, so that the only difference is what was learnt."""

    def rewards(lr: float) -> list[float]:
        one_scene = replace(RL.data, global_batch=1)
        recipe = replace(RL, steps=20, data=one_scene, optimiser=replace(RL.optimiser, lr=lr))
        return [line["reward_mean"] for line in steps(on_ranks(stage, f"bright-{lr}", 1, brightness, recipe))]

    learnt, control = rewards(3e-3), rewards(0.0)
    assert learnt[0] == control[0]
    by_chance = max(control) - min(control)
    assert learnt[-1] > max(control) + 5 * by_chance
    assert fmean(learnt[-5:]) > fmean(learnt[5:10]) > fmean(learnt[:5])


def test_a_penalty_keeps_it_near_where_it_began(stage: Stage, alone: Job) -> None:
    kept = on_ranks(stage, "kept", 1, brightness, replace(policy(kl=1000.0), steps=3))
    far, near = (steps(job)[2]["kl_to_start"] for job in (alone, kept))
    assert near < far


# ---- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"candidates": 1}, "none to compare it with"),
        ({"best_of": 3}, "even"),
        ({"best_of": 8}, "at most policy.candidates 6"),
        ({"batch": 3}, "must divide"),
        ({"steps": 1}, "at least 2"),
        ({"fraction": 1.5}, "at most 1"),
        ({"dynamics": "cps", "eta": 1.5}, "at most 1"),
        ({"eta": 0.0}, "above 0"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(RL, policy=replace(Policy(candidates=6, best_of=4), **changes))
