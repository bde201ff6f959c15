"""Group-relative policy optimization (GRPO) on the flow: make the better candidates of a scene more likely.

All candidates of a step are sampled and judged before the update, and each is used once. So the policy that learns is
the one that sampled, and the ratio of their probabilities is 1 by definition: exp(logp − logp.detach()), whose gradient
is that of the log-probability. How much the log-probability differs from that in sampling, by rounding if the kernels
or the batch size are others, is logged.

A step goes like this: draw scenes and sample a group of candidates for each; get the verdicts; draw further scenes as
long as too few groups have unequal rewards (`policy.extra_scenes`); deal the kept candidates to all ranks; learn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice

import torch
import torch.distributed as dist
from torch import Tensor

from nextscene.training.data.batches import TrainingBatch, one_step
from nextscene.training.distributed.parallelize import sharded_modules
from nextscene.training.errors import TrainingPaused, TrainingStopped
from nextscene.training.flow.schedule import sampling_sigmas
from nextscene.training.flow.sde import Transition, transition
from nextscene.training.machine_faults import memory_for
from nextscene.training.metrics.throughput import Throughput
from nextscene.training.model.grid import Grid
from nextscene.training.objectives.base import StepOutput
from nextscene.training.objectives.grpo.advantage import advantages, select_best_and_worst, select_timesteps
from nextscene.training.objectives.grpo.candidate_page import CandidatePage, PageWriter
from nextscene.training.objectives.grpo.dealing import DealtTerms, Lesson, TermBatch, choose, deal
from nextscene.training.objectives.grpo.group import (
    CandidateGroup,
    CandidateScene,
    generate_candidates,
    policy_velocity,
    to_candidates,
)
from nextscene.training.objectives.grpo.judged_group import JudgedGroup, RewardTotals, has_spread
from nextscene.training.objectives.grpo.rollout import candidate_rng, expand_sigma
from nextscene.training.objectives.grpo.step_statistics import StepStatistics
from nextscene.training.rewards.base import RewardVerdict
from nextscene.training.stage import StageState

_NOT_JUDGED = "none of its videos can ever be judged"
_CHANGED = (
    "{:.1%} of the probabilities have changed by more than policy.clip_range since sampling, at worst to {:.1e} from"
    " their ratio of 1; are the kernels or the batches of sampling others than those of learning?"
)


class Grpo:
    """The objective of reinforcement learning."""

    def __init__(self, state: StageState, throughput: Throughput) -> None:
        assert state.reward  # noqa: S101 – a stage of reinforcement learning has one
        self._state, self._throughput, self._reward = state, throughput, state.reward
        self._recipe = state.job.recipe
        self._policy = self._recipe.policy
        self._pages = PageWriter(state.job.folder)
        self._group = state.world.gloo_group()  # for tensors on the CPU, which the default group may not accept

    def compute_gradient(self, batches: Iterator[TrainingBatch], step: int) -> StepOutput:
        """Accumulate the gradient of a step.

        Raise TrainingPaused if no candidate was judged but asking again may help. Raise StopRequested if the run was
        asked to stop, at the latest after the next batch of candidates. Raise also the errors of the reward.
        """
        drawn, totals = self._draw_groups(batches, step)
        lessons = self._lessons(drawn)
        learned = {lesson.place for lesson in lessons if lesson.owner == self._state.world.rank}
        teaches = any(lesson.has_spread for lesson in lessons)
        for place, one in enumerate(drawn):
            scene, steps = one.group.scene, len(one.steps) if teaches and place in learned else 0
            self._throughput.count_group(scene.grid, scene.text_tokens, self._policy, steps)
        self._pages.submit(self._page(one, step, place in learned) for place, one in enumerate(drawn))
        keys, metrics = [one.group.scene.clip_id for one in drawn], dict(totals.metrics)
        if self._policy.extra_scenes:
            metrics["extra_scenes"] = totals.scenes - self._recipe.data.global_batch
        if not teaches:
            why = "all candidates of each scene got the same reward" if totals.rewards else _NOT_JUDGED
            return StepOutput(0.0, metrics, keys, has_gradient=False, note=f"{why}; nothing was learned")
        statistics = self._learn(lessons, drawn)
        loss, changed = statistics.reduce(self._state.world)
        note = _CHANGED.format(changed["clip_share"], changed["ratio_off"]) if changed["clip_share"] else ""
        return StepOutput(loss, {**metrics, **changed}, keys, note=note)

    def flush(self) -> None:
        """Wait until the candidates' pages are written. Raise TrainingStopped if a rank could not write one."""
        failure = self._pages.finish()
        if self._state.world.any_rank(bool(failure)):
            folder = self._state.job.folder / "candidates"
            raise TrainingStopped(f"a page could not be written in {folder}: {failure or 'by another rank'}")

    def close(self) -> None:
        """Close the reward, and write the remaining pages."""
        self._reward.close()
        self._pages.close()

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def _draw_groups(self, batches: Iterator[TrainingBatch], step: int) -> tuple[list[JudgedGroup], RewardTotals]:
        """Draw a global batch of scenes, and others as the policy says. Return this rank's groups, and all totals.

        A round draws a global batch, whatever the number of ranks is, so that all numbers draw the same scenes.
        """
        policy, wanted, world = self._policy, self._recipe.data.global_batch, self._state.world
        groups: list[CandidateGroup] = []
        verdicts: list[list[RewardVerdict]] = []
        while True:
            for batch in one_step(batches):
                with self._memory_for(batch.grid, policy.sampled_together):
                    groups.append(self._generate_group(batch, step))
            found = iter(self._reward.verdicts())
            while len(verdicts) < len(groups):
                verdicts.append(list(islice(found, policy.group_size)))
                if not (policy.kl_coef or has_spread(verdicts[-1])):  # nothing is learned from it
                    groups[len(verdicts) - 1] = replace(groups[len(verdicts) - 1], rollouts=[])
            totals = RewardTotals.of(verdicts, world)
            if totals.retryable and not totals.rewards:
                raise TrainingPaused(self._unjudged(totals, step, [one for own in verdicts for one in own]))
            if totals.scenes - totals.flat >= wanted or totals.scenes - wanted >= policy.extra_scenes:
                break
        judged = [self._select(*one, totals.deviation) for one in zip(groups, verdicts, strict=True)]
        return judged, totals

    @staticmethod
    def _unjudged(totals: RewardTotals, step: int, verdicts: Sequence[RewardVerdict]) -> str:
        return (
            f"step {step + 1}: none of its {int(totals.candidates)} videos was judged, so nothing can be learned; one"
            f" of the reasons: {next((one.reason for one in verdicts if one.retryable), verdicts[-1].reason)}"
        )

    def _memory_for(self, grid: Grid, candidates: int) -> AbstractContextManager[None]:
        frames, height, width = self._state.model.ratios.clip(grid)
        what = f"{candidates} × {frames} frames of {width}×{height}, the candidates of one pass"
        remedy = "lower `policy.sample_batch` or `policy.batch`, or set `parallel.checkpointing` to full"
        return memory_for(lambda: what, remedy)

    def _generate_group(self, batch: TrainingBatch, step: int) -> CandidateGroup:
        """Sample a group of candidates. The reward is asked about each as soon as it is decoded."""
        state, encoder, policy = self._state, self._state.encoder, self._policy
        scene = CandidateScene.of(batch, encoder)
        sigmas = sampling_sigmas(state.scheduler, policy.steps, scene.grid.tokens).tolist()
        with torch.no_grad():
            condition = state.model.condition(scene.text_tokens)
        rollouts, pictures = [], []
        for first, some in generate_candidates(state.model, policy, scene, condition, sigmas, self._recipe.seed):
            videos = to_candidates(scene, some, first, step + 1, encoder)
            self._reward.ask(videos)
            self._pages.submit_videos(videos)
            state.check_stop()
            rollouts.append(some)
            pictures += [
                one.video[len(one.video) // 2].clone() for one in videos
            ]  # a copy, so that the video can be freed
        return CandidateGroup(scene, sigmas, condition, rollouts, pictures)

    def _select(self, group: CandidateGroup, verdicts: list[RewardVerdict], step_deviation: float) -> JudgedGroup:
        policy = self._policy
        better = advantages([verdict.reward for verdict in verdicts], policy.normalize, step_deviation)
        rng = candidate_rng(self._recipe.seed, group.scene.ref, -1)
        kept = select_best_and_worst(better, policy.best_of, rng)
        noisy = policy.steps - 1  # the last step has no noise
        return JudgedGroup(group, verdicts, better, kept, select_timesteps(noisy, policy.fraction, rng))

    def _lessons(self, drawn: Sequence[JudgedGroup]) -> list[Lesson]:
        """Return the groups of all ranks to learn from, the same list on every rank."""
        world = self._state.world
        of_a_round = self._recipe.data.global_batch // world.size
        own = []
        for place, one in enumerate(drawn):
            lot = candidate_rng(self._recipe.seed, one.group.scene.ref, -1).initial_seed()
            own.append(Lesson.of(one, world.rank, place, (place // of_a_round, lot), has_spread(one.verdicts)))
        of_ranks: list[list[Lesson]] = [[] for _ in range(world.size)]
        dist.all_gather_object(of_ranks, own, group=self._group)
        everything = [lesson for own in of_ranks for lesson in own]
        chosen = choose(everything, self._recipe.data.global_batch, with_flat=self._policy.kl_coef > 0)
        return [lesson.to(world.device) for lesson in chosen]

    def _page(self, one: JudgedGroup, step: int, learned: bool) -> CandidatePage:
        scene, kept = one.group.scene, one.kept if learned else []
        pictures, name = one.group.pictures, self._reward.name
        return CandidatePage(step + 1, scene.clip_id, scene.text, pictures, one.verdicts, one.advantages, kept, name)

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _learn(self, lessons: Sequence[Lesson], own: Sequence[JudgedGroup]) -> StepStatistics:
        """Accumulate the gradient of the terms that this rank is dealt.

        That of the conditions is summed over all ranks first, so that it passes through Qwen once for each lesson. The
        CPU waits for the device only between the candidates, not between their steps.
        """
        state, policy, world = self._state, self._policy, self._state.world
        dealt = DealtTerms(lessons, deal(lessons, policy.batch, world.size), own, world.rank, self._group)
        means = self._reference_means(lessons, dealt)
        mine = {number: own[one.place].group.condition for number, one in enumerate(lessons) if one.owner == world.rank}
        trained = any(parameter.requires_grad for parameter in state.model.bridge.parameters())
        conditions = [one.requires_grad_(trained) for one in self._shared(len(lessons), mine)]
        statistics, done = StepStatistics(policy.clip_range, world.device), 0
        for batch in dealt.batches(world.device):
            for place in range(len(batch.terms)):
                lesson = lessons[batch.terms[place].lesson]
                if done % len(lesson.steps) == 0:  # as often as there are candidates, and on all ranks at once
                    state.check_stop()
                mean = means[done] if done < len(means) else None
                done += 1
                self._set_gradient_sync(done == len(dealt.terms))
                with self._memory_for(lesson.grid, policy.batch):
                    loss = self._policy_loss(lesson, batch, place, conditions, mean, statistics)
                    torch.autograd.backward(loss * self._share(lesson))
        if trained:
            self._pass_to_bridge(lessons, [one.grad for one in conditions])
        return statistics

    def _shared(self, count: int, mine: Mapping[int, Tensor]) -> list[Tensor]:
        """Return `count` tensors of the size of a condition, each the sum of what the ranks have of it."""
        bridge, transformer = self._state.model.bridge.config, self._state.model.transformer.config
        shape = (count, 2, bridge.num_queries, transformer.caption_channels)
        together = torch.zeros(shape, device=self._state.world.device)
        for number, tensor in mine.items():
            together[number] = tensor
        dist.all_reduce(together)
        return list(together.unbind())

    def _turns(self, lessons: Sequence[Lesson]) -> range:
        """Return the numbers of the lessons whose texts this rank encodes: as many on all ranks, some past the end."""
        world = self._state.world
        return range(world.rank, -(-len(lessons) // world.size) * world.size, world.size)

    def _pass_to_bridge(self, lessons: Sequence[Lesson], gradients: Sequence[Tensor | None]) -> None:
        """Add the gradient of the bridge, from those of the conditions: of each lesson on one rank."""
        given = {number: gradient for number, gradient in enumerate(gradients) if gradient is not None}
        totals, turns = self._shared(len(lessons), given), self._turns(lessons)
        for number in turns:
            lesson = lessons[min(number, len(lessons) - 1)]
            condition = self._state.model.condition(lesson.text_tokens)
            self._set_gradient_sync(number == turns[-1])
            gradient = totals[number] if number < len(lessons) else torch.zeros_like(condition)
            torch.autograd.backward(condition, gradient)

    def _share(self, lesson: Lesson) -> float:
        """Return the weight of one candidate's step in the mean over the global batch.

        It includes the factor `world.size`, because FSDP averages the gradients over the ranks.
        """
        terms = self._policy.best_of * len(lesson.steps) * self._recipe.data.global_batch
        return self._state.world.size / terms

    def _policy_loss(
        self,
        lesson: Lesson,
        batch: TermBatch,
        place: int,
        conditions: Sequence[Tensor],
        reference_mean: Tensor | None,
        statistics: StepStatistics,
    ) -> Tensor:
        """Return the objective of one term, with its KL penalty, summed over a batch of candidates."""
        move = self._transition(lesson, batch, place, conditions)
        log_prob = move.log_prob(batch.tokens[place, 1])
        ratio = torch.exp(log_prob - log_prob.detach())
        loss = -(batch.advantage * ratio).sum()
        if batch.terms[place].is_filler:
            reference_mean = None
        else:
            share = self._share(lesson) / self._state.world.size
            statistics.add(loss.detach() * share, log_prob.detach() - batch.log_probs[place])
        if reference_mean is not None:
            divergence = move.kl_divergence(reference_mean)
            statistics.add_divergence(divergence.detach())
            loss = loss + self._policy.kl_coef * (batch.weight * divergence).sum()
        return loss

    def _transition(self, lesson: Lesson, batch: TermBatch, place: int, conditions: Sequence[Tensor]) -> Transition:
        """Return the step of the present weights from the tokens before a term."""
        term, tokens = batch.terms[place], batch.tokens[place, 0]
        now, then = lesson.sigmas[term.step], lesson.sigmas[term.step + 1]
        velocity = policy_velocity(self._state.model, self._policy, conditions[term.lesson], lesson)
        return transition(self._policy, tokens, velocity(tokens, expand_sigma(now, tokens)), now, then)

    @torch.no_grad()
    def _reference_means(self, lessons: Sequence[Lesson], dealt: DealtTerms) -> list[Tensor]:
        """Return the means of the reference model's steps for the terms of this rank, in order.

        Without a KL penalty only the first term is computed, to log the divergence.
        """
        state, device = self._state, self._state.world.device
        means: list[Tensor] = []
        with state.reference_weights():
            texts = {number: lessons[min(number, len(lessons) - 1)].text_tokens for number in self._turns(lessons)}
            encoded = {number: state.model.condition(tokens) for number, tokens in texts.items()}
            own = {number: condition for number, condition in encoded.items() if number < len(lessons)}
            conditions = self._shared(len(lessons), own)
            for batch in dealt.batches(device):
                for place in range(len(batch.terms)):
                    lesson = lessons[batch.terms[place].lesson]
                    means.append(self._transition(lesson, batch, place, conditions).mean)
                    if not self._policy.kl_coef:
                        return means
        return means

    def _set_gradient_sync(self, enabled: bool) -> None:
        for part in sharded_modules(self._state.model):
            part.set_requires_gradient_sync(enabled)
