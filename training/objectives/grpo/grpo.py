"""Group-relative policy optimization (GRPO) on the flow: make the better candidates of a scene more likely.

All candidates of a step are sampled and judged before the update, and each is used once. So the policy that learns is
still the one that sampled, and the ratio of their probabilities is 1 up to rounding. Its largest difference from 1 is
logged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from decimal import Decimal

import torch
from torch import Tensor

from nextscene.training.data.batches import TrainingBatch, one_step
from nextscene.training.distributed.parallelize import sharded_modules
from nextscene.training.errors import TrainingPaused
from nextscene.training.flow.sampler import Velocity
from nextscene.training.flow.schedule import sampling_sigmas
from nextscene.training.flow.sde import transition
from nextscene.training.machine_faults import memory_for
from nextscene.training.metrics.throughput import Throughput
from nextscene.training.model.grid import Grid
from nextscene.training.objectives.base import StepOutput
from nextscene.training.objectives.grpo.advantage import (
    Selected,
    advantages,
    select_best_and_worst,
    select_timesteps,
    standard_deviation,
)
from nextscene.training.objectives.grpo.candidate_page import write_page
from nextscene.training.objectives.grpo.group import (
    CandidateGroup,
    CandidateScene,
    generate_candidates,
    policy_velocity,
    to_candidates,
)
from nextscene.training.objectives.grpo.rollout import Rollout, candidate_rng, expand_sigma
from nextscene.training.rewards.base import RewardVerdict, known_rewards
from nextscene.training.stage import StageState

_NOT_JUDGED = "none of its videos can ever be judged"
_CLIPPED = "{:.1%} of the ratios were clipped, though all should be 1; at worst one is off by {:.1e}"


@dataclass(frozen=True)
class _JudgedGroup:
    """A group with its verdicts and advantages, and the candidates and timesteps to learn from."""

    group: CandidateGroup
    verdicts: list[RewardVerdict]
    advantages: list[float | None]
    kept: list[Selected]
    steps: list[int]

    @property
    def rewards(self) -> list[float]:
        return known_rewards(verdict.reward for verdict in self.verdicts)

    def batches(self, size: int) -> list[list[Selected]]:
        return [self.kept[begin : begin + size] for begin in range(0, len(self.kept), size)]


@dataclass
class _StepStatistics:
    """Statistics of the ratios and KL divergences of a step, on this rank."""

    loss: float = 0.0
    terms: int = 0
    clipped: int = 0
    max_ratio_error: float = 0.0
    divergences: list[float] = field(default_factory=list)


class Grpo:
    """The objective of reinforcement learning."""

    def __init__(self, state: StageState, throughput: Throughput) -> None:
        assert state.reward  # noqa: S101 – a stage of reinforcement learning has one
        self._state, self._throughput, self._reward = state, throughput, state.reward
        self._recipe = state.job.recipe
        self._policy = self._recipe.policy

    def compute_gradient(self, batches: Iterator[TrainingBatch], step: int) -> StepOutput:
        """Accumulate the gradient of a step.

        Raise TrainingPaused if no candidate was judged but asking again may help. Raise StopRequested if the run was
        asked to stop, at the latest after the next batch of candidates. Raise also the errors of the reward.
        """
        state, world = self._state, self._state.world
        groups = []
        for batch in one_step(batches):
            with self._memory_for(batch.grid):
                groups.append(self._generate_group(batch, step))
        judged, metrics = self._score_groups(groups, step)
        keys = [group.scene.clip_id for group in groups]
        for one in judged:
            write_page(state.job.folder, step + 1, one.group, one.verdicts, one.advantages, one.kept, self._reward.name)
        teaches = metrics["groups_without_spread"] < 1
        for one in judged:
            scene, learnt = one.group.scene, len(one.steps) if teaches else 0
            self._throughput.count_group(scene.grid, scene.text_tokens, self._policy, learnt)
        if not teaches:
            why = "all candidates of each scene got the same reward" if "reward_mean" in metrics else _NOT_JUDGED
            return StepOutput(0.0, metrics, keys, has_gradient=False, note=f"{why}; nothing was learnt")
        means = self._reference_means(judged)
        statistics = _StepStatistics()
        for place, one in enumerate(judged):
            with self._memory_for(one.group.scene.grid):
                self._accumulate_gradient(one, means[place], statistics, last=place == len(judged) - 1)
        loss, terms, clipped, divergence, measured = world.all_reduce_sum(
            torch.tensor(
                [
                    statistics.loss,
                    statistics.terms,
                    statistics.clipped,
                    sum(statistics.divergences),
                    len(statistics.divergences),
                ],
                dtype=torch.float64,
            )
        ).tolist()
        off, clip_share = world.all_reduce_max(statistics.max_ratio_error), clipped / terms
        metrics |= {"ratio_off": off, "clip_share": clip_share, "kl_to_start": divergence / measured}
        return StepOutput(loss, metrics, keys, note=_CLIPPED.format(clip_share, off) if clipped else "")

    def close(self) -> None:
        """Close the reward."""
        self._reward.close()

    def _memory_for(self, grid: Grid) -> AbstractContextManager[None]:
        frames, height, width = self._state.model.ratios.clip(grid)
        what = f"{self._policy.batch} × {frames} frames of {width}×{height}, the candidates of one pass"
        return memory_for(lambda: what, "lower `policy.batch`, or set `parallel.checkpointing` to full")

    def _generate_group(self, batch: TrainingBatch, step: int) -> CandidateGroup:
        """Sample a group of candidates. The reward is asked about each as soon as it is decoded."""
        state, encoder = self._state, self._state.encoder
        scene = CandidateScene.of(batch, encoder)
        sigmas = sampling_sigmas(state.scheduler, self._policy.steps, scene.grid.tokens).tolist()
        rollouts, pictures = [], []
        for first, some in generate_candidates(state.model, self._policy, scene, sigmas, self._recipe.seed):
            videos = to_candidates(scene, some, first, step + 1, encoder)
            self._reward.ask(videos)
            state.check_stop()
            rollouts.append(some)
            pictures += [
                one.video[len(one.video) // 2].clone() for one in videos
            ]  # a copy, so that the video can be freed
        return CandidateGroup(scene, sigmas, rollouts, pictures)

    def _score_groups(self, groups: Sequence[CandidateGroup], step: int) -> tuple[list[_JudgedGroup], dict[str, float]]:
        policy, world = self._policy, self._state.world
        verdicts = self._reward.verdicts()
        size = policy.group_size
        of_group = [verdicts[size * place : size * (place + 1)] for place in range(len(groups))]
        rewards = [known_rewards(verdict.reward for verdict in own) for own in of_group]
        given = [reward for own in rewards for reward in own]
        spreads = [standard_deviation(own) for own in rewards]
        paid = sum((verdict.usd for verdict in verdicts), Decimal(0))
        sums = [
            len(given),
            sum(given),
            sum(reward * reward for reward in given),
            len(groups),
            sum(spreads),
            sum(spread == 0 for spread in spreads),
            len(verdicts),
            float(paid),
            sum(one.retryable for one in verdicts),
        ]
        count, total, squares, scenes, spread, flat, asked, usd, again = world.all_reduce_sum(
            torch.tensor(sums, dtype=torch.float64)
        ).tolist()
        if again and not count:
            raise TrainingPaused(
                f"step {step + 1}: none of its {int(asked)} videos was judged, so nothing can be learnt; one of the"
                f" reasons: {next((one.reason for one in verdicts if one.retryable), verdicts[-1].reason)}"
            )
        mean = total / max(1, count)
        all_spread = math.sqrt(max(0.0, squares - count * mean**2) / (count - 1)) if count > 1 else 0.0
        judged = [self._select(group, own, all_spread) for group, own in zip(groups, of_group, strict=True)]
        return judged, {
            **({"reward_mean": mean} if count else {}),
            "reward_deviation": spread / scenes,
            "groups_without_spread": flat / scenes,
            "missing_judgements": 1 - count / asked,
            "usd": usd,
        }

    def _select(self, group: CandidateGroup, verdicts: list[RewardVerdict], step_deviation: float) -> _JudgedGroup:
        policy = self._policy
        better = advantages([verdict.reward for verdict in verdicts], policy.normalize, step_deviation)
        rng = candidate_rng(self._recipe.seed, group.scene.ref, -1)
        kept = select_best_and_worst(better, policy.best_of, rng)
        noisy = len(group.rollouts[0].log_probs)
        return _JudgedGroup(group, verdicts, better, kept, select_timesteps(noisy, policy.fraction, rng))

    def _accumulate_gradient(
        self, one: _JudgedGroup, means: dict[tuple[int, int], Tensor], statistics: _StepStatistics, last: bool
    ) -> None:
        """Add the gradient of one group. That of the condition is summed first, so that it passes through Qwen once."""
        model, scene = self._state.model, one.group.scene
        condition = model.condition(scene.text_tokens)
        given = condition.detach().requires_grad_(condition.requires_grad)
        velocity = policy_velocity(model, self._policy, given, scene)
        batches = one.batches(self._policy.batch)
        for place, kept in enumerate(batches):
            self._state.check_stop()
            for turn, step in enumerate(one.steps):
                ends = place == len(batches) - 1 and turn == len(one.steps) - 1
                self._set_gradient_sync(last and ends)
                reference_mean = means.get((place, step))
                loss = self._policy_loss(one, kept, step, velocity, reference_mean, statistics)
                torch.autograd.backward(loss * self._share(one))
        if condition.requires_grad:
            torch.autograd.backward(condition, given.grad)

    def _share(self, one: _JudgedGroup) -> float:
        """Return the weight of one candidate's step in the mean over the global batch.

        It includes the factor `world.size`, because FSDP averages the gradients over the ranks.
        """
        terms = self._policy.best_of * len(one.steps) * self._recipe.data.global_batch
        return self._state.world.size / terms

    def _policy_loss(
        self,
        one: _JudgedGroup,
        kept: Sequence[Selected],
        step: int,
        velocity: Velocity,
        reference_mean: Tensor | None,
        statistics: _StepStatistics,
    ) -> Tensor:
        """Return the clipped objective of one timestep, with its KL penalty, summed over a batch of candidates."""
        policy, device = self._policy, self._state.world.device
        tokens, reached, before = _transitions(one.group.rollouts, kept, step, device)
        now, then = one.group.sigmas[step], one.group.sigmas[step + 1]
        move = transition(policy, tokens, velocity(tokens, expand_sigma(now, tokens)), now, then)
        ratio = torch.exp(move.log_prob(reached) - before)
        advantage = torch.tensor([candidate.advantage for candidate in kept], device=device)
        bounded = ratio.clamp(1 - policy.clip_range, 1 + policy.clip_range)
        loss = torch.maximum(-advantage * ratio, -advantage * bounded).sum()
        statistics.loss += loss.item() * self._share(one) / self._state.world.size
        away = (ratio.detach() - 1).abs()
        statistics.terms += len(kept)
        statistics.clipped += int((away > policy.clip_range).sum())
        statistics.max_ratio_error = max(statistics.max_ratio_error, away.max().item())
        if reference_mean is not None:
            divergence = move.kl_divergence(reference_mean.to(device))
            statistics.divergences += divergence.tolist()
            weight = torch.tensor([candidate.weight for candidate in kept], device=device)
            loss = loss + policy.kl_coef * (weight * divergence).sum()
        return loss

    @torch.no_grad()
    def _reference_means(self, judged: Sequence[_JudgedGroup]) -> list[dict[tuple[int, int], Tensor]]:
        """Return the means of the reference model's steps for each group, by batch and timestep.

        Without a KL penalty only one timestep of one batch is computed for each group, to log the divergence.
        """
        state, policy = self._state, self._policy
        found: list[dict[tuple[int, int], Tensor]] = []
        with state.reference_weights():
            for one in judged:
                scene = one.group.scene
                velocity = policy_velocity(state.model, policy, state.model.condition(scene.text_tokens), scene)
                wanted = [(place, step) for place in range(len(one.batches(policy.batch))) for step in one.steps]
                means = {}
                for place, step in wanted if policy.kl_coef else wanted[:1]:
                    kept = one.batches(policy.batch)[place]
                    tokens, _, _ = _transitions(one.group.rollouts, kept, step, state.world.device)
                    now, then = one.group.sigmas[step], one.group.sigmas[step + 1]
                    means[place, step] = transition(
                        policy, tokens, velocity(tokens, expand_sigma(now, tokens)), now, then
                    ).mean.cpu()
                found.append(means)
        return found

    def _set_gradient_sync(self, enabled: bool) -> None:
        for part in sharded_modules(self._state.model):
            part.set_requires_gradient_sync(enabled)


def _transitions(
    rollouts: Sequence[Rollout], kept: Sequence[Selected], step: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a timestep of some candidates: tokens before and after it [B, S, C], and its log-probability [B]."""
    size = rollouts[0].final.shape[0]
    own = [(rollouts[one.number // size], one.number % size) for one in kept]
    began, reached, probable = zip(
        *((one.trajectory[step, row], one.trajectory[step + 1, row], one.log_probs[step, row]) for one, row in own),
        strict=True,
    )
    return torch.stack(began).to(device), torch.stack(reached).to(device), torch.stack(probable).to(device)
