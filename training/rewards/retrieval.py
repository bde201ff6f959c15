"""The embedded reward: is the video nearer to the clip that did follow the scene than most other clips are?

It asks nobody and costs nothing. It is not the paper's, and all that is made with it says `retrieval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np
import torch
from torch import Tensor

from nextscene.shards.loading.mixture import Mixture
from nextscene.shards.loading.shuffle import splitmix64
from nextscene.training.data.batches import BatchEncoder
from nextscene.training.rewards.base import Candidate, RewardVerdict

_SEED = 0x07E5


class Retrieval:
    """Pass if the mean squared distance of a video's latents to the true clip's is below the median to the others'.

    The others are the same `most` clips always, of which those count that have the video's form.
    """

    name = "retrieval"

    def __init__(self, clips: Mixture, most: int, encoder: BatchEncoder) -> None:
        everything = np.arange(len(clips))
        chosen = np.argsort(splitmix64(everything, _SEED), kind="stable")[:most]
        self._others = dict(_read(clips, int(number), encoder) for number in chosen)
        self._verdicts: list[RewardVerdict] = []

    def ask(self, candidates: Sequence[Candidate]) -> None:
        """Says at once."""
        self._verdicts += [self._verdict(candidate) for candidate in candidates]

    def verdicts(self) -> list[RewardVerdict]:
        """Missing only where no other clip has the form."""
        found, self._verdicts = self._verdicts, []
        return found

    def end(self) -> None:
        """Nothing is under way."""

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
    memory = np.empty(*clips.array_spec(number))
    words = clips.decode_into(memory, number)
    posterior = encoder.latents(torch.from_numpy(memory[None]))
    rng = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(number))
    # Drawn from its posterior, as the true clip's latents are: those in the middle are nearer to everything.
    return words.key, encoder.normalized_tokens(posterior.sample(rng.to(encoder.device)))[0].cpu()


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean())
