"""A scene and its group of candidates: sampling them, and decoding them for the reward.

Tested in tests/training/objectives/grpo/test_gradient.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nextscene.shards.loading.shuffle import SampleRef
from nextscene.training.config import PolicyConfig
from nextscene.training.data.batches import BatchEncoder, TrainingBatch
from nextscene.training.flow.sampler import Velocity, guided
from nextscene.training.model.grid import Grid
from nextscene.training.model.language import TokenBatch
from nextscene.training.model.latents import LatentScale, decode, unpack
from nextscene.training.model.unified import UnifiedModel, coordinates
from nextscene.training.objectives.grpo.rollout import Rollout, candidate_rng, rollout
from nextscene.training.rewards.base import Candidate


@dataclass(frozen=True)
class CandidateScene:
    """The input of a group. `clean` [1, S, C] are the latents of the clip that actually followed the scene.

    `text_tokens` has two rows: the prompt without the scene, and with it. All candidates start at `noise` [1, S, C].
    """

    clip_id: str
    text: str
    text_tokens: TokenBatch
    grid: Grid
    fps: Tensor
    clean: Tensor
    noise: Tensor
    ref: SampleRef

    @staticmethod
    def of(batch: TrainingBatch, encoder: BatchEncoder) -> CandidateScene:
        """Return the scene of a micro-batch of one sample."""
        (text,), (source,) = batch.texts, batch.sources
        return CandidateScene(
            batch.keys[0],
            text,
            encoder.tokenize(["", text], [source, source]),
            batch.grid,
            batch.fps,
            batch.clean,
            batch.noise,
            batch.refs[0],
        )


class VideoForm(Protocol):
    """The latent grid of a video, and its frame rate [1]."""

    @property
    def grid(self) -> Grid: ...

    @property
    def fps(self) -> Tensor: ...


@dataclass(frozen=True)
class CandidateGroup:
    """A scene and its candidates.

    `condition` [2, queries, channels] is the condition of the scene, unconditional half first. Each of `rollouts` has
    `policy.sampled_together` candidates. `pictures` [H, W, RGB] are the middle frames of the videos.
    """

    scene: CandidateScene
    sigmas: list[float]
    condition: Tensor
    rollouts: list[Rollout]
    pictures: list[Tensor]


def policy_velocity(model: UnifiedModel, policy: PolicyConfig, condition: Tensor, scene: VideoForm) -> Velocity:
    """Return the guided velocity for any number of candidates.

    `condition` [2, queries, channels] is the condition of the scene, unconditional half first.
    """
    coords = coordinates(scene.grid, model.ratios, scene.fps)

    def under(given: Tensor) -> Velocity:
        def velocity(tokens: Tensor, sigma: Tensor) -> Tensor:
            rows = given.repeat_interleave(len(tokens) // len(given), dim=0)
            return model.velocity(tokens, sigma, rows, coords.expand(len(tokens), -1, -1))

        return velocity

    if not policy.detach_unconditional:
        return guided(under(condition), policy.guidance)
    without, given = under(condition[:1]), under(condition[1:])

    def detached(tokens: Tensor, sigma: Tensor) -> Tensor:
        with torch.no_grad():
            base = without(tokens, sigma)
        return base + policy.guidance * (given(tokens, sigma) - base)

    return detached


@torch.no_grad()
def generate_candidates(
    model: UnifiedModel, policy: PolicyConfig, scene: CandidateScene, condition: Tensor, sigmas: list[float], seed: int
) -> Iterator[tuple[int, Rollout]]:
    """Sample the candidates of a group, some at once. Yield each rollout with the number of its first candidate."""
    velocity = policy_velocity(model, policy, condition, scene)
    device = scene.noise.device if policy.noise == "device" else torch.device("cpu")
    for first in range(0, policy.group_size, policy.sampled_together):
        rngs = [candidate_rng(seed, scene.ref, first + place, device) for place in range(policy.sampled_together)]
        yield first, rollout(policy, velocity, scene.noise, sigmas, rngs)


def to_candidates(scene: CandidateScene, one: Rollout, first: int, step: int, encoder: BatchEncoder) -> list[Candidate]:
    """Decode the videos of a rollout, and return them as candidates that are numbered from `first`."""
    scale, clean, fps = LatentScale.of(encoder.vae), scene.clean[0].cpu(), scene.fps.item()
    found = []
    for place, tokens in enumerate(one.final):
        latents = scale.denormalize(unpack(tokens[None].to(encoder.device), scene.grid))
        video = decode(encoder.vae, latents)[0].cpu()
        found.append(Candidate(scene.clip_id, scene.text, step, first + place, tokens, clean, video, fps))
    return found
