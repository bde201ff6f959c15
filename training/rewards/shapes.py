"""The reward `shapes`, for the sample world of moving shapes: a verifier reads pixels.

It calls no API and costs nothing. It reads color, shape, place and motion of a video, without knowing the scene. A
video gets 1 if all four are as they follow from the scene, and otherwise 0.

Tested in tests/training/rewards/test_shapes.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from nextscene.samples.shapes.check import check_clip
from nextscene.training.distributed.process_group import World
from nextscene.training.job import TrainingJob
from nextscene.training.rewards.base import Candidate, RewardContext, RewardVerdict


class Shapes:
    """The reward `shapes`."""

    name = "shapes"

    def __init__(self) -> None:
        self._verdicts: list[RewardVerdict] = []

    @staticmethod
    def check(job: TrainingJob, world: World) -> None:
        """Accept everything: the reward needs no key and no price."""

    @classmethod
    def build(cls, context: RewardContext) -> Shapes:
        """Return the reward."""
        return cls()

    def ask(self, candidates: Sequence[Candidate]) -> None:
        """Judge the candidates at once."""
        self._verdicts += [_verdict(candidate) for candidate in candidates]

    def verdicts(self) -> list[RewardVerdict]:
        """Return the verdicts. A verdict has no reward only if the scene is none of the world's."""
        found, self._verdicts = self._verdicts, []
        return found

    def close(self) -> None:
        """Do nothing: no call is in flight."""


def _verdict(candidate: Candidate) -> RewardVerdict:
    try:
        check = check_clip(candidate.video.numpy(), candidate.scene)
    except ValueError as error:
        return RewardVerdict(None, str(error), model=Shapes.name)
    return RewardVerdict(float(check.passed), check.reason, check.caption, model=Shapes.name)
