"""Runs of GRPO on the flow: what they come to, from which candidates, and how they continue."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from nextscene.common.errors import UsageError
from nextscene.training.build_stage import _check_fits
from nextscene.training.checkpoint_info import CheckpointInfo, latest
from nextscene.training.config import PolicyConfig
from nextscene.training.distributed.process_group import current_world
from nextscene.training.errors import TrainingPaused, TrainingStopped
from nextscene.training.job import TrainingJob
from nextscene.training.metrics.log_file import read_metrics
from nextscene.training.objectives.grpo.group import generate_candidates
from nextscene.training.objectives.grpo.grpo import Grpo
from nextscene.training.objectives.grpo.rollout import Rollout
from nextscene.training.recipe import Recipe
from nextscene.training.rewards.base import Candidate, RewardVerdict
from nextscene.training.trainer import train
from tests.training.objectives.grpo.toys import (
    RL,
    Judge,
    all_pass,
    brightness,
    judged_by,
    nobody_knows,
    odd_clips_have_spread,
    odd_passes,
    policy,
    rl_on_rank,
)
from tests.training.stages import Quiet, Stage, by_ranks, replace

pytestmark = pytest.mark.slow


def steps(job: TrainingJob) -> list[dict[str, Any]]:
    return [line for line in read_metrics(job.folder) if line["event"] == "step"]


def weights(job: TrainingJob, step: int) -> dict[str, Tensor]:
    file = job.folder / "whole.pt"
    dcp_to_torch_save(job.checkpoints / f"step-{step}", file)
    return {name: value for name, value in torch.load(file).items() if name.startswith("model.")}


# ---- the run ----------------------------------------------------------------------------------------------------


def on_ranks(stage: Stage, name: str, world: int, judge: Judge = brightness, recipe: Recipe = RL) -> TrainingJob:
    job = stage.job(name, recipe)
    by_ranks(world, rl_on_rank, job, judge)
    return job


@pytest.fixture(scope="module")
def alone(stage: Stage) -> TrainingJob:
    return on_ranks(stage, "alone", 1)


@pytest.fixture(scope="module")
def shared(stage: Stage) -> TrainingJob:
    return on_ranks(stage, "shared", 2)


def test_the_ratio_is_exactly_one_and_nothing_is_clipped(alone: TrainingJob, shared: TrainingJob) -> None:
    for job in (alone, shared):
        assert [line["ratio_off"] for line in steps(job)] == [0.0] * 4
        assert [line["clip_share"] for line in steps(job)] == [0.0] * 4


def test_two_ranks_learn_what_one_does(alone: TrainingJob, shared: TrainingJob) -> None:
    """AdamW's first steps have the size of the rate, whatever the gradient's: rounding is seen from the second on."""
    for place, (one, two) in enumerate(zip(steps(alone), steps(shared), strict=True)):
        assert two["reward_mean"] == pytest.approx(one["reward_mean"], abs=1e-3 if place else 1e-7)
        assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=0.1 if place else 1e-4)
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-2 if place else 1e-6)


def test_it_goes_away_from_where_it_began(alone: TrainingJob) -> None:
    distances = [line["kl_to_start"] for line in steps(alone)]
    assert distances[0] == 0
    assert all(distance > 0 for distance in distances[1:])


def test_a_run_in_two_parts_is_the_same_to_the_bit(stage: Stage, alone: TrainingJob) -> None:
    job = stage.job("parts")
    by_ranks(1, rl_on_rank, job, brightness, 2)
    by_ranks(1, rl_on_rank, replace(job, resume=True), brightness)
    ours, theirs = weights(job, 4), weights(alone, 4)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    timeless = [{name: line[name] for name in ("step", "loss", "reward_mean")} for line in steps(job)]
    assert timeless == [{name: line[name] for name in timeless[0]} for line in steps(alone)]


@dataclasses.dataclass
class Asked(Quiet):
    """An observer that asks to stop when the reward has seen so many candidates, or in the learning after them."""

    candidates: int
    while_learning: bool
    stopping: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def judge(self, candidate: Candidate) -> float:
        self.candidates -= 1
        self.stopping = self.candidates == 0 and not self.while_learning
        return brightness(candidate)

    def learn(self, *given: Any) -> Any:
        self.stopping = self.candidates <= 0
        return accumulate(*given)


accumulate = Grpo._reference_means


def given_up(_rank: int, _world: int, job: TrainingJob, observer: Asked) -> None:
    torch.use_deterministic_algorithms(mode=True)
    learning = patch.object(Grpo, "_reference_means", lambda *given: observer.learn(*given))
    with judged_by(observer.judge), learning if observer.while_learning else contextlib.nullcontext():
        summary = train(job, current_world(), observer)
    torch.use_deterministic_algorithms(mode=False)
    assert (summary.step, summary.finished) == (1, False)


@pytest.mark.parametrize("while_learning", [False, True], ids=["while candidates are made", "while it learns"])
def test_an_abandoned_step_leaves_the_checkpoint_before_and_is_repeated_exactly(
    stage: Stage, alone: TrainingJob, while_learning: bool
) -> None:
    """The second step, of three: each has 12 candidates."""
    job = stage.job(f"given-up-{while_learning}", replace(RL, steps=3))
    by_ranks(1, given_up, job, Asked(16, while_learning))
    assert [path.name for path in job.checkpoints.iterdir()] == ["step-1"]
    by_ranks(1, rl_on_rank, replace(job, resume=True), brightness)
    exact = ("step", "loss", "reward_mean", "gradient_norm", "kl_to_start")
    ours, theirs = ([[line[name] for name in exact] for line in steps(one)] for one in (job, alone))
    assert ours == theirs[:3]


def test_a_run_of_an_earlier_version_keeps_its_noise_or_is_refused(stage: Stage) -> None:
    job, newer = stage.job("earlier"), ("policy.noise", "policy.extra_scenes", "reward.verdicts")
    recorded = {name: value for name, value in RL.identity_settings().items() if name not in newer}
    before = CheckpointInfo("rl", "rl", 2, 4, 1, job.pretrained.fingerprint, {}, [], [], recorded, {})
    _check_fits(job, before, True, job.folder)
    with pytest.raises(UsageError, match=r"policy.noise is 'device', was 'cpu'\. Run with the same"):
        _check_fits(replace(job, recipe=policy(noise="device")), before, True, job.folder)


def test_the_candidates_of_a_step_are_there_to_be_looked_at(alone: TrainingJob) -> None:
    folder = alone.folder / "candidates" / "step-1"
    pages = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    assert len(pages) == RL.data.global_batch
    assert (alone.folder / "curves.png").is_file()
    for page in pages:
        assert page["judged_by"] == "toy"
        assert len(page["candidates"]) == RL.policy.group_size
        learned = [one for one in page["candidates"] if one["learnt_from"]]
        worth = sorted(one["reward"] for one in page["candidates"])
        assert sorted(one["reward"] for one in learned) == worth[:2] + worth[-2:]
        assert (folder / f"{page['clip_id']}.png").is_file()


def test_nothing_is_learned_where_all_are_worth_the_same(stage: Stage) -> None:
    job = on_ranks(stage, "same", 1, all_pass, replace(RL, steps=2, logging=replace(RL.logging, checkpoint_every=1)))
    first, second = weights(job, 1), weights(job, 2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [line["groups_without_spread"] for line in steps(job)] == [1.0, 1.0]
    assert [line["reward_mean"] for line in steps(job)] == [1.0, 1.0]


def paused(_rank: int, _world: int, job: TrainingJob) -> tuple[str, str]:
    calls = 0

    def fails_at_the_second_step(candidate: Candidate) -> float | None:
        nonlocal calls
        calls += 1
        return odd_passes(candidate) if calls <= 12 else nobody_knows(candidate)

    with judged_by(fails_at_the_second_step), pytest.raises(TrainingPaused) as stop:
        train(job, current_world(), Quiet())
    newest = latest(job.checkpoints)
    assert newest
    return str(stop.value), newest.name


def scenes(job: TrainingJob) -> dict[str, set[str]]:
    """Of each step that has pages."""
    return {place.name: {page.stem for page in place.glob("*.json")} for place in (job.folder / "candidates").iterdir()}


def test_a_step_without_verdicts_pauses_the_run_which_then_resumes_exactly(stage: Stage) -> None:
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


def refused_at_the_second_step(candidate: Candidate) -> float | RewardVerdict:
    return RewardVerdict(None, "refused") if candidate.step == 2 else odd_passes(candidate)


def test_a_step_that_can_never_be_judged_is_passed(stage: Stage) -> None:
    job = stage.job("refused", replace(RL, steps=3, logging=replace(RL.logging, checkpoint_every=1)))
    summary, observer = by_ranks(1, rl_on_rank, job, refused_at_the_second_step)
    assert summary.finished
    (told,) = [note for note in observer.notes if note.startswith("step 2")]
    assert "none of its videos can ever be judged" in told and "nothing was learned" in told
    _, passed, _ = steps(job)
    assert "reward_mean" not in passed
    assert (passed["missing_judgements"], passed["groups_without_spread"]) == (1.0, 1.0)
    first, second, third = (weights(job, step) for step in (1, 2, 3))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(second[name], third[name]) for name in first)


def misremembered(_rank: int, _world: int, job: TrainingJob) -> list[str]:
    """With each step taken for more likely than it was; what the observer was told."""

    def made(*given: Any) -> Iterator[tuple[int, Rollout]]:
        for first, rollouts in generate_candidates(*given):
            yield first, dataclasses.replace(rollouts, log_probs=rollouts.log_probs + 1)

    with patch("nextscene.training.objectives.grpo.grpo.generate_candidates", made):
        _, observer = rl_on_rank(0, 1, job, brightness)
    return observer.notes


def test_ratios_that_are_off_are_told_and_change_nothing(stage: Stage, alone: TrainingJob) -> None:
    job = stage.job("off", replace(RL, steps=1))
    notes = by_ranks(1, misremembered, job)
    assert any("step 1: 100.0% of the probabilities have changed by more than" in note for note in notes)
    (step,) = steps(job)
    assert step["ratio_off"] == pytest.approx(1 - math.exp(-1), rel=1e-5) and step["clip_share"] == 1
    assert [step[name] for name in ("loss", "gradient_norm")] == [
        steps(alone)[0][name] for name in ("loss", "gradient_norm")
    ]


def paged(_rank: int, _world: int, job: TrainingJob) -> str:
    with judged_by(brightness), pytest.raises(TrainingStopped) as stop:
        train(job, current_world(), Quiet())
    assert latest(job.checkpoints) is None
    return str(stop.value)


def test_a_page_that_cannot_be_written_ends_the_run_before_the_checkpoint(stage: Stage) -> None:
    job = stage.job("unpaged", replace(SPARSE, steps=1))
    job.folder.mkdir(parents=True)
    (job.folder / "candidates").touch()
    assert re.match(r"a page could not be written in .*/candidates: .*candidates", by_ranks(1, paged, job))


# ---- groups without spread --------------------------------------------------------------------------------------

SPARSE = replace(
    policy(group_size=2, best_of=2, steps=2, extra_scenes=4), steps=2, logging=replace(RL.logging, checkpoint_every=1)
)
"""Of the scenes 0, 3 | 10, 4 | 11, 5 and 7, 6 | 9, 8 those with odd numbers have spread."""


def positions(job: TrainingJob) -> list[int]:
    return [CheckpointInfo.read(job.checkpoints / f"step-{step}").loader["position"] for step in (1, 2)]


def learned(job: TrainingJob, step: int) -> set[int]:
    """The clips that were learned from."""
    pages = [json.loads(file.read_text()) for file in job.folder.glob(f"candidates/step-{step}/*.json")]
    return {int(page["clip_id"], 16) for page in pages if any(one["learnt_from"] for one in page["candidates"])}


@pytest.fixture(scope="module")
def sparse(stage: Stage) -> TrainingJob:
    return on_ranks(stage, "sparse", 1, odd_clips_have_spread, SPARSE)


def test_scenes_are_drawn_until_there_are_groups_to_learn_from(sparse: TrainingJob) -> None:
    assert [line["extra_scenes"] for line in steps(sparse)] == [4, 2]
    assert [line["groups_without_spread"] for line in steps(sparse)] == [3 / 6, 2 / 4]
    assert [line["usd"] for line in steps(sparse)] == pytest.approx([0.12, 0.08])
    assert positions(sparse) == [6, 10]
    assert [len(scenes(sparse)[f"step-{step}"]) for step in (1, 2)] == [6, 4]
    assert 3 in learned(sparse, 1) and learned(sparse, 1) < {3, 5, 11} and len(learned(sparse, 1)) == 2
    assert learned(sparse, 2) == {7, 9}


def test_two_ranks_draw_the_same_and_learn_the_same(stage: Stage, sparse: TrainingJob) -> None:
    both = on_ranks(stage, "both", 2, odd_clips_have_spread, SPARSE)
    assert positions(both) == positions(sparse) and scenes(both) == scenes(sparse)
    assert [learned(both, step) for step in (1, 2)] == [learned(sparse, step) for step in (1, 2)]
    for name in ("usd", "extra_scenes", "reward_mean", "groups_without_spread"):
        assert [line[name] for line in steps(both)] == pytest.approx([line[name] for line in steps(sparse)])
    assert steps(both)[0]["gradient_norm"] == pytest.approx(steps(sparse)[0]["gradient_norm"], rel=1e-5)


def test_a_run_that_draws_more_goes_on_to_the_bit(stage: Stage, sparse: TrainingJob) -> None:
    job = stage.job("sparse-parts", SPARSE)
    by_ranks(1, rl_on_rank, job, odd_clips_have_spread, 1)
    by_ranks(1, rl_on_rank, replace(job, resume=True), odd_clips_have_spread)
    assert positions(job) == positions(sparse)
    ours, theirs = weights(job, 2), weights(sparse, 2)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_no_more_are_drawn_than_may_be(stage: Stage) -> None:
    few = replace(SPARSE, steps=1, policy=replace(SPARSE.policy, extra_scenes=2))
    job = on_ranks(stage, "bounded", 1, odd_clips_have_spread, few)
    (step,) = steps(job)
    assert (step["extra_scenes"], step["groups_without_spread"]) == (2, 3 / 4)
    assert learned(job, 1) == {3} and step["gradient_norm"] > 0


# ---- what it is for ---------------------------------------------------------------------------------------------


def test_videos_become_brighter_over_twenty_updates_but_not_at_rate_zero(stage: Stage) -> None:
    """The same scenes and the same noise in both, so that the only difference is what was learned."""

    def rewards(lr: float) -> list[float]:
        one_scene = replace(RL.data, global_batch=1)
        recipe = replace(RL, steps=20, data=one_scene, optimizer=replace(RL.optimizer, lr=lr))
        return [line["reward_mean"] for line in steps(on_ranks(stage, f"bright-{lr}", 1, brightness, recipe))]

    learned, control = rewards(3e-3), rewards(0.0)
    assert learned[0] == control[0]
    by_chance = max(control) - min(control)
    assert learned[-1] > max(control) + 5 * by_chance
    assert fmean(learned[-5:]) > fmean(learned[5:10]) > fmean(learned[:5])


def test_a_penalty_keeps_it_near_where_it_began(stage: Stage, alone: TrainingJob) -> None:
    kept = on_ranks(stage, "kept", 1, brightness, replace(policy(kl_coef=1000.0), steps=3))
    far, near = (steps(job)[2]["kl_to_start"] for job in (alone, kept))
    assert near < far


# ---- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"extra_scenes": 3}, "not a multiple of data.global_batch 2"),
        ({"sample_batch": 4}, "policy.sample_batch 4 must divide"),
        ({"group_size": 1}, "must be at least 2"),
        ({"best_of": 3}, "even"),
        ({"best_of": 8}, "at most policy.group_size 6"),
        ({"batch": 3}, "must divide"),
        ({"steps": 1}, "at least 2"),
        ({"fraction": 1.5}, "at most 1"),
        ({"dynamics": "cps", "eta": 1.5}, "at most 1"),
        ({"eta": 0.0}, "above 0"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(RL, policy=replace(PolicyConfig(group_size=6, best_of=4), **changes))
