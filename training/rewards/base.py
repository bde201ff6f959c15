"""What every reward is: it is given candidates as they are made, and gives a verdict on each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Candidate:
    """One of the videos that were made of a scene.

    `clip_id` is of the clip that follows the scene in truth, `clean` [S, C] are that clip's normalised latents.
    `tokens` [S, C] are those of the video, `video` itself is uint8 [F, H, W, RGB] on the CPU, at `fps`.
    `step` and `number` say when it was made and which of its group it is.
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
    """`reward` is None where there is no judgement, never 0 for that; `reason` says why in any case.

    `caption` is what the judge was told that the video shows, `model` who judged; `usd` is what it cost. `again` tells
    that there may be a judgement if it is asked about another time.
    """

    reward: float | None
    reason: str
    caption: str = ""
    model: str = ""
    usd: Decimal = Decimal(0)
    retryable: bool = False


def known_rewards(rewards: Iterable[float | None]) -> list[float]:
    """Those that were given. What nobody judged is nothing, not a Fail: an outage would be learnt from."""
    return [reward for reward in rewards if reward is not None]


class Reward(Protocol):
    """Judges while the next candidates are made. All ranks call it alike, with as many candidates each.

    `name` says which it is, in records and pictures.
    """

    name: str

    def ask(self, candidates: Sequence[Candidate]) -> None:
        """Takes up some candidates of this rank's, and waits for no judgement."""
        ...

    def verdicts(self) -> list[RewardVerdict]:
        """One for each candidate of this rank's since the last call, in the order of asking. Waits for the last.

        Raises TrainingPaused, on all ranks alike, where the budget or the account does not let it go on, and
        UsageError for a key or a model with which it never did.
        """
        ...

    def end(self) -> None:
        """Asks nothing more; what is under way is waited for, a little, and stored."""
        ...
