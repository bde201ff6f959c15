"""Group-relative policy optimisation on the flow: of a scene's candidates, the better ones are made likelier.

All candidates of a step are made, and judged, before anything is learnt from them, and they are learnt from once. So
the ratio of a step's probability to that which it was taken with is 1, but for how rounding falls; it is watched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import torch
from torch import Tensor

from nextscene.training.data.batches import TrainingBatch
from nextscene.training.distributed.parallelize import sharded_modules
from nextscene.training.errors import TrainingPaused
from nextscene.training.flow.sampler import Velocity
from nextscene.training.flow.schedule import sampling_sigmas
from nextscene.training.flow.sde import transition
from nextscene.training.metrics.throughput import Throughput
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
from nextscene.training.rewards.base import Reward, RewardVerdict, known_rewards
from nextscene.training.stage import StageState

_NOT_JUDGED = "none of its videos can be judged, however often one asks"
_CLIPPED = "{:.1%} of the ratios were clipped, though all should be 1; at worst one is off by {:.1e}"


@dataclass(frozen=True)
class _JudgedGroup:
    """A group with what it is worth, and what of it is learnt from."""

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
    """What is seen of the ratios and divergences of a step, on this rank."""

    loss: float = 0.0
    terms: int = 0
    clipped: int = 0
    farthest: float = 0.0
    divergences: list[float] = field(default_factory=list)


class Grpo:
    """The method of the stage `rl`."""

    def __init__(self, state: StageState, throughput: Throughput, reward: Reward) -> None:
        self._state, self._throughput, self._reward = state, throughput, reward
        self._recipe = state.job.recipe
        self._policy = self._recipe.policy

    def compute_gradient(self, batches: Iterator[TrainingBatch], step: int) -> StepOutput:
        """Raises TrainingPaused where none of the step's candidates was judged, this time, and as the reward does."""
        state, world = self._state, self._state.world
        groups = [self._made(next(batches), step) for _ in range(state.gradient_accumulation_steps)]
        judged, numbers = self._judged(groups, step)
        keys = [group.scene.clip_id for group in groups]
        for one in judged:
            write_page(state.job.folder, step + 1, one.group, one.verdicts, one.advantages, one.kept, self._reward.name)
        teaches = numbers["groups_without_spread"] < 1
        for one in judged:
            scene, learnt = one.group.scene, len(one.steps) if teaches else 0
            self._throughput.count_group(scene.grid, scene.words.ids.shape[1], self._policy, learnt)
        if not teaches:
            why = "all candidates of each scene got the same reward" if "reward_mean" in numbers else _NOT_JUDGED
            return StepOutput(0.0, numbers, keys, learnt=False, note=f"{why}; nothing was learnt")
        means = self._means_at_start(judged)
        seen = _StepStatistics()
        for place, one in enumerate(judged):
            self._learn_from(one, means[place], seen, last=place == len(judged) - 1)
        loss, terms, clipped, divergence, measured = world.all_reduce_sum(
            torch.tensor(
                [seen.loss, seen.terms, seen.clipped, sum(seen.divergences), len(seen.divergences)], dtype=torch.float64
            )
        ).tolist()
        off, clip_share = world.all_reduce_max(seen.farthest), clipped / terms
        numbers |= {"ratio_off": off, "clip_share": clip_share, "kl_to_start": divergence / measured}
        return StepOutput(loss, numbers, keys, note=_CLIPPED.format(clip_share, off) if clipped else "")

    def end(self) -> None:
        self._reward.end()

    def _made(self, batch: TrainingBatch, step: int) -> CandidateGroup:
        """A group of candidates; the reward is asked about each as soon as it is made."""
        state, encoder = self._state, self._state.encoder
        scene = CandidateScene.of(batch, encoder)
        sigmas = sampling_sigmas(state.scheduler, self._policy.steps, scene.grid.tokens).tolist()
        rollouts, pictures = [], []
        for first, some in generate_candidates(state.model, self._policy, scene, sigmas, self._recipe.seed):
            videos = to_candidates(scene, some, first, step + 1, encoder)
            self._reward.ask(videos)
            rollouts.append(some)
            pictures += [one.video[len(one.video) // 2].clone() for one in videos]  # not to keep all of the video
        return CandidateGroup(scene, sigmas, rollouts, pictures)

    def _judged(self, groups: Sequence[CandidateGroup], step: int) -> tuple[list[_JudgedGroup], dict[str, float]]:
        policy, world = self._policy, self._state.world
        verdicts = self._reward.verdicts()
        size = policy.candidates
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
        judged = [self._chosen(group, own, all_spread) for group, own in zip(groups, of_group, strict=True)]
        return judged, {
            **({"reward_mean": mean} if count else {}),
            "reward_deviation": spread / scenes,
            "groups_without_spread": flat / scenes,
            "missing_judgements": 1 - count / asked,
            "usd": usd,
        }

    def _chosen(self, group: CandidateGroup, verdicts: list[RewardVerdict], step_deviation: float) -> _JudgedGroup:
        policy = self._policy
        better = advantages([verdict.reward for verdict in verdicts], policy.normalise, step_deviation)
        rng = candidate_rng(self._recipe.seed, group.scene.draw, -1)
        kept = select_best_and_worst(better, policy.best_of, rng)
        noisy = len(group.rollouts[0].log_probs)
        return _JudgedGroup(group, verdicts, better, kept, select_timesteps(noisy, policy.fraction, rng))

    def _learn_from(
        self, one: _JudgedGroup, means: dict[tuple[int, int], Tensor], seen: _StepStatistics, last: bool
    ) -> None:
        """Adds one group's gradient. The condition's own is gathered first, and goes through Qwen only once."""
        model, scene = self._state.model, one.group.scene
        condition = model.condition(scene.words)
        given = condition.detach().requires_grad_(condition.requires_grad)
        velocity = policy_velocity(model, self._policy, given, scene)
        batches = one.batches(self._policy.batch)
        for place, kept in enumerate(batches):
            for turn, step in enumerate(one.steps):
                ends = place == len(batches) - 1 and turn == len(one.steps) - 1
                self._synchronise(last and ends)
                start = means.get((place, step))
                loss = self._loss(one, kept, step, velocity, start, seen)
                torch.autograd.backward(loss * self._share(one))
        if condition.requires_grad:
            torch.autograd.backward(condition, given.grad)

    def _share(self, one: _JudgedGroup) -> float:
        """Of one candidate's step in the mean over the global batch; the gradients of the ranks are averaged."""
        terms = self._policy.best_of * len(one.steps) * self._recipe.data.global_batch
        return self._state.world.size / terms

    def _loss(
        self,
        one: _JudgedGroup,
        kept: Sequence[Selected],
        step: int,
        velocity: Velocity,
        start: Tensor | None,
        seen: _StepStatistics,
    ) -> Tensor:
        """The clipped objective of one step of a batch of candidates, summed over them."""
        policy, device = self._policy, self._state.world.device
        tokens, reached, before = _transitions(one.group.rollouts, kept, step, device)
        now, then = one.group.sigmas[step], one.group.sigmas[step + 1]
        move = transition(policy, tokens, velocity(tokens, expand_sigma(now, tokens)), now, then)
        ratio = torch.exp(move.log_prob(reached) - before)
        advantage = torch.tensor([candidate.advantage for candidate in kept], device=device)
        bounded = ratio.clamp(1 - policy.clip, 1 + policy.clip)
        loss = torch.maximum(-advantage * ratio, -advantage * bounded).sum()
        seen.loss += loss.item() * self._share(one) / self._state.world.size
        away = (ratio.detach() - 1).abs()
        seen.terms += len(kept)
        seen.clipped += int((away > policy.clip).sum())
        seen.farthest = max(seen.farthest, away.max().item())
        if start is not None:
            divergence = move.kl_divergence(start.to(device))
            seen.divergences += divergence.tolist()
            weight = torch.tensor([candidate.weight for candidate in kept], device=device)
            loss = loss + policy.kl * (weight * divergence).sum()
        return loss

    @torch.no_grad()
    def _means_at_start(self, judged: Sequence[_JudgedGroup]) -> list[dict[tuple[int, int], Tensor]]:
        """Where the weights that the stage began with would lead: for all that is learnt from where that counts.

        Otherwise for one step of one batch of each group, to be told. By batch and step.
        """
        state, policy = self._state, self._policy
        found: list[dict[tuple[int, int], Tensor]] = []
        with state.reference_weights():
            for one in judged:
                scene = one.group.scene
                velocity = policy_velocity(state.model, policy, state.model.condition(scene.words), scene)
                wanted = [(place, step) for place in range(len(one.batches(policy.batch))) for step in one.steps]
                means = {}
                for place, step in wanted if policy.kl else wanted[:1]:
                    kept = one.batches(policy.batch)[place]
                    tokens, _, _ = _transitions(one.group.rollouts, kept, step, state.world.device)
                    now, then = one.group.sigmas[step], one.group.sigmas[step + 1]
                    means[place, step] = transition(
                        policy, tokens, velocity(tokens, expand_sigma(now, tokens)), now, then
                    ).mean.cpu()
                found.append(means)
        return found

    def _synchronise(self, wanted: bool) -> None:
        for part in sharded_modules(self._state.model):
            part.set_requires_gradient_sync(wanted)


def _transitions(
    rollouts: Sequence[Rollout], kept: Sequence[Selected], step: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """A step as some candidates took it: from where, to where [B, S, C], and with which log-probability [B]."""
    size = rollouts[0].ends.shape[0]
    own = [(rollouts[one.number // size], one.number % size) for one in kept]
    began, reached, probable = zip(
        *((walk.tokens[step, row], walk.tokens[step + 1, row], walk.log_probs[step, row]) for walk, row in own),
        strict=True,
    )
    return torch.stack(began).to(device), torch.stack(reached).to(device), torch.stack(probable).to(device)
