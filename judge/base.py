"""What every judge is: it describes the scene before a clip, and says whether a description and a caption agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Question:
    """What a judge is told of a clip. Text that is not known is ""."""

    clip_id: str
    caption: str
    preceding_caption: str


@dataclass(frozen=True)
class Opinion:
    """A verdict on one description, with the reason in words and numbers."""

    verdict: Literal["Pass", "Fail"]
    reason: str


class Declined(Exception):
    """The judge has no answer for this clip, now or later: `outcome` and `reason` are what the ledger says of it."""

    def __init__(self, outcome: Literal["rejected", "refused"], reason: str, detail: str) -> None:
        super().__init__(outcome, reason, detail)
        self.outcome = outcome
        self.reason = reason
        self.detail = detail


class Judge(Protocol):
    """Both questions may take seconds or minutes, and many clips may be asked about at once."""

    name: str
    model: str
    rounds: int
    """How often a clip may be described anew after a Fail, the first time included."""
    prompt_sha256: str
    """Of the template that asks for a description; "" where no prompt is used."""

    async def describe(self, question: Question, turned_down: tuple[str, ...]) -> str:
        """The scene just before the clip, unlike those `turned_down`. Raises Declined."""
        ...

    async def verify(self, scene: str, caption: str) -> Opinion:
        """Whether `caption` is something new that follows from `scene`. Raises Declined."""
        ...
