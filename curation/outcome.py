"""The one end of each clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from nextscene.curation.media.probe import Measured

Outcome = Literal["kept", "rejected", "dropped", "refused", "failed", "quarantined"]
OUTCOMES: tuple[Outcome, ...] = ("kept", "rejected", "dropped", "refused", "failed", "quarantined")
Undecided = Literal["undecided"]
UNDECIDED: Undecided = "undecided"
"""What stands for the end of a clip that has none yet."""
NEEDS_ATTENTION: tuple[Outcome, ...] = ("failed", "quarantined")


@dataclass(frozen=True)
class ClipOutcome:
    """Why a clip is not kept. `reason` is a word to count by; `detail` names the numbers or the evidence.

    `retimed` says that the clip's file was looked at and has another time than was planned; `measured` is what its
    headers say, as far as they were read.
    """

    outcome: Outcome
    reason: str
    detail: str
    retimed: bool = False
    measured: Measured | None = None
