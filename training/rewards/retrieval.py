"""The reward `retrieval`: Pass if the video is nearer to the clip that actually followed the scene than to most others.

It calls no API and costs nothing. It is not the reward of the paper, and its records name it `retrieval`.

Tested in tests/pipelines/test_train_rl.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np
import torch
from torch import Tensor

from nextscene.shards.loading.mixture import Mixture
from nextscene.shards.loading.sample_set import decode_sample
from nextscene.shards.loading.shuffle import splitmix64
from nextscene.training.data.batches import BatchEncoder
from nextscene.training.distributed.process_group import World
from nextscene.training.job import TrainingJob
from nextscene.training.rewards.base import Candidate, RewardContext, RewardVerdict

_SEED = 0x07E5


class Retrieval:
    """The reward `retrieval`. The distance of two clips is the mean squared distance of their latents.

    Pass if the distance from the video to the true clip is below the median distance from the video to other clips.
    The other clips are always the same `max_clips`, without those whose latents have another shape than the video's.
    """

    name = "retrieval"

    def __init__(self, clips: Mixture, max_clips: int, encoder: BatchEncoder) -> None:
        everything = np.arange(len(clips))
        chosen = np.argsort(splitmix64(everything, _SEED), kind="stable")[:max_clips]
        self._others = dict(_read(clips, int(number), encoder) for number in chosen)
        self._verdicts: list[RewardVerdict] = []

    @staticmethod
    def check(job: TrainingJob, world: World) -> None:
        """Accept everything: the reward needs no key and no price."""

    @classmethod
    def build(cls, context: RewardContext) -> Retrieval:
        """Return the reward over the clips of the training split."""
        return cls(context.clips, context.job.recipe.reward.others, context.encoder)

    def ask(self, candidates: Sequence[Candidate]) -> None:
        """Judge the candidates at once."""
        self._verdicts += [self._verdict(candidate) for candidate in candidates]

    def verdicts(self) -> list[RewardVerdict]:
        """Return the verdicts. A verdict has no reward only if no other clip has the shape of the video."""
        found, self._verdicts = self._verdicts, []
        return found

    def close(self) -> None:
        """Do nothing: no call is in flight."""

    def _verdict(self, candidate: Candidate) -> RewardVerdict:
        others = [
            other
            for clip_id, other in self._others.items()
            if clip_id != candidate.clip_id and other.shape == candidate.tokens.shape
        ]
        if not others:
            return RewardVerdict(None, "none of the other clips has its form", model=self.name)
        own = _distance(candidate.tokens, candidate.clean)
        middle = median(_distance(candidate.tokens, other) for other in others)
        passed = own < middle
        reason = f"{own:.4f} from its own clip, {middle:.4f} from the median of {len(others)} others"
        return RewardVerdict(float(passed), reason, model=self.name)


def _read(clips: Mixture, number: int, encoder: BatchEncoder) -> tuple[str, Tensor]:
    array, sample = decode_sample(clips, number)
    posterior = encoder.latents(torch.from_numpy(array[None]))
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(number))
    # A sample of the posterior, like the true clip's latents: the mean would be nearer to every video.
    return sample.key, encoder.normalized_tokens(posterior.sample(noise.to(encoder.device)))[0].cpu()


def _distance(one: Tensor, other: Tensor) -> float:
    """Return the mean squared distance of two tensors."""
    return float((one - other).square().mean())
