"""Interface of a reward: it takes candidate videos as they are made, and returns a verdict on each.

Tested in tests/training/objectives/grpo/test_grpo.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Qwen2_5_VLTextModel

    from nextscene.shards.loading.mixture import Mixture
    from nextscene.training.data.batches import BatchEncoder
    from nextscene.training.distributed.process_group import World
    from nextscene.training.job import TrainingJob


@dataclass(frozen=True)
class Candidate:
    """A video that the policy generated for a scene.

    `clip_id` names the clip that actually followed the scene, and `clean` [S, C] are that clip's normalized latents.
    `tokens` [S, C] are the latents of the candidate, `video` its pixels, uint8 [F, H, W, RGB] on the CPU, at `fps`.
    `step` is the step of training, and `number` the place of the candidate in its group.
    """

    clip_id: str
    scene: str
    step: int
    number: int
    tokens: Tensor
    clean: Tensor
    video: Tensor
    fps: float


@dataclass(frozen=True)
class RewardVerdict:
    """The reward of a candidate, and the reason for it.

    `reward` is None, never 0, if there is no judgment. `caption` is the caption that the judge was given, `model` the
    judge, and `usd` the cost. `retryable` is True if asking again may give a judgment.
    """

    reward: float | None
    reason: str
    caption: str = ""
    model: str = ""
    usd: Decimal = Decimal(0)
    retryable: bool = False


def known_rewards(rewards: Iterable[float | None]) -> list[float]:
    """Return the rewards that are known. A missing one does not count as Fail: training would learn from an outage."""
    return [reward for reward in rewards if reward is not None]


class Reward(Protocol):
    """A reward, which judges candidates while the next ones are sampled.

    All ranks make the same calls, with the same number of candidates each.

    `name` identifies the reward in records and pictures.
    """

    name: str

    def ask(self, candidates: Sequence[Candidate]) -> None:
        """Take some candidates of this rank, and return without waiting for a judgment."""
        ...

    def verdicts(self) -> list[RewardVerdict]:
        """Wait, and return a verdict for each candidate of this rank since the last call, in the order of asking.

        Raise TrainingPaused, on all ranks alike, if the budget or the account ends the asking, StopRequested if a rank
        is to stop, and UsageError for a key or a model that can never work.
        """
        ...

    def close(self) -> None:
        """Stop asking. Wait a limited time for calls in flight, and store their answers."""
        ...


@dataclass(frozen=True)
class RewardContext:
    """Everything that a reward may be built from.

    `clips` is the training split of the mix, `language` the frozen language model of the trained model. `stopping`
    returns True once this rank was asked to stop.
    """

    job: TrainingJob
    world: World
    clips: Mixture
    encoder: BatchEncoder
    language: Qwen2_5_VLTextModel
    stopping: Callable[[], bool] = lambda: False


class RewardClass(Protocol):
    """The class of a reward, as `rewards.REWARDS` lists it."""

    def check(self, job: TrainingJob, world: World) -> None:
        """Raise UsageError, on all ranks alike, if the reward cannot work. Called before anything large is loaded."""
        ...

    def build(self, context: RewardContext) -> Reward:
        """Return the reward of a stage."""
        ...
