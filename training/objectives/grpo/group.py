"""One scene and its candidates: how they are made, and the reward's first sight of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nextscene.shards.loading.shuffle import SampleRef
from nextscene.training.data.batches import BatchEncoder, TrainingBatch
from nextscene.training.flow.sampler import Velocity, guided
from nextscene.training.model.grid import Grid
from nextscene.training.model.language import TokenBatch
from nextscene.training.model.latents import LatentScale, decode, unpack
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.objectives.grpo.rollout import Rollout, candidate_rng, rollout
from nextscene.training.recipe import PolicyConfig
from nextscene.training.rewards.base import Candidate


@dataclass(frozen=True)
class CandidateScene:
    """What candidates are made of, in the form of the clip that followed it, whose latents are `clean` [1, S, C].

    `words` are two: the instruction alone, and with the scene. `noise` [1, S, C] is where all candidates begin.
    """

    clip_id: str
    text: str
    words: TokenBatch
    grid: Grid
    fps: Tensor
    clean: Tensor
    noise: Tensor
    draw: SampleRef

    @staticmethod
    def of(batch: TrainingBatch, encoder: BatchEncoder) -> CandidateScene:
        (text,), (source,) = batch.texts, batch.sources
        return CandidateScene(
            batch.keys[0],
            text,
            encoder.tokenize(["", text], [source, source]),
            batch.grid,
            batch.fps,
            batch.clean,
            batch.noise,
            batch.draws[0],
        )


@dataclass(frozen=True)
class CandidateGroup:
    """`rollouts` hold `policy.batch` candidates each, `pictures` [H, W, RGB] the frame in the middle of each video."""

    scene: CandidateScene
    sigmas: list[float]
    rollouts: list[Rollout]
    pictures: list[Tensor]


def policy_velocity(model: UnifiedModel, policy: PolicyConfig, condition: Tensor, scene: CandidateScene) -> Velocity:
    """Guided by `condition` [2, queries, channels], without the scene and with it, for any number of candidates."""

    def under(given: Tensor) -> Velocity:
        def velocity(tokens: Tensor, sigma: Tensor) -> Tensor:
            rows = given.repeat_interleave(len(tokens) // len(given), dim=0)
            return model.velocity(tokens, sigma, rows, scene.grid, scene.fps.expand(len(tokens)))

        return velocity

    if not policy.detach_unconditional:
        return guided(under(condition), policy.guidance)
    without, given = under(condition[:1]), under(condition[1:])

    def apart(tokens: Tensor, sigma: Tensor) -> Tensor:
        with torch.no_grad():
            away = without(tokens, sigma)
        return away + policy.guidance * (given(tokens, sigma) - away)

    return apart


@torch.no_grad()
def generate_candidates(
    model: UnifiedModel, policy: PolicyConfig, scene: CandidateScene, sigmas: list[float], seed: int
) -> Iterator[tuple[int, Rollout]]:
    """The group, `policy.batch` at once, each time with the number of the first."""
    velocity = policy_velocity(model, policy, model.condition(scene.words), scene)
    for first in range(0, policy.candidates, policy.batch):
        rngs = [candidate_rng(seed, scene.draw, first + place) for place in range(policy.batch)]
        yield first, rollout(policy, velocity, scene.noise, sigmas, rngs)


def to_candidates(
    scene: CandidateScene, rollouts: Rollout, first: int, step: int, encoder: BatchEncoder
) -> list[Candidate]:
    """The candidates of `rollouts` as the reward is given them, of which `first` is the number of the first."""
    found = []
    for place, tokens in enumerate(rollouts.ends):
        latents = LatentScale.of(encoder.vae).denormalize(unpack(tokens[None].to(encoder.device), scene.grid))
        video = decode(encoder.vae, latents)[0].cpu()
        found.append(
            Candidate(
                scene.clip_id, scene.text, step, first + place, tokens, scene.clean[0].cpu(), video, scene.fps.item()
            )
        )
    return found
