"""The outcome of a clip: kept, or why not. Tested in tests/curation/stages/test_screen.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from nextscene.curation.media.probe import Measured

Outcome = Literal["kept", "rejected", "dropped", "refused", "failed", "quarantined"]
OUTCOMES: tuple[Outcome, ...] = ("kept", "rejected", "dropped", "refused", "failed", "quarantined")
Undecided = Literal["undecided"]
UNDECIDED: Undecided = "undecided"
"""Stands for the outcome of a clip that is not decided yet."""
NEEDS_ATTENTION: tuple[Outcome, ...] = ("failed", "quarantined")


@dataclass(frozen=True)
class ClipOutcome:
    """Why a clip is not kept. `reason` is a word to count by; `detail` names the numbers or the evidence.

    `retimed`: the clip's file has another modification time than the planned one. `measured` has the values of its
    headers, as far as they were read.
    """

    outcome: Outcome
    reason: str
    detail: str
    retimed: bool = False
    measured: Measured | None = None
