"""The outcome of a clip: kept, or the reason why not. Tested in tests/curation/stages/test_screen.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from nextscene.curation.media.probe import Measured

Outcome = Literal["kept", "rejected", "dropped", "refused", "failed", "quarantined", "absent"]
OUTCOMES: tuple[Outcome, ...] = ("kept", "rejected", "dropped", "refused", "failed", "quarantined", "absent")
Undecided = Literal["undecided"]
UNDECIDED: Undecided = "undecided"
"""Placeholder for the outcome of a clip that is not decided yet."""
NO_FILE, NOT_LISTED = "no_file", "not_listed"
"""Reasons of absent clips: no file is at the place that the source names, or none in its archives has the name."""
NEEDS_ATTENTION: tuple[Outcome, ...] = ("failed", "quarantined", "absent")


@dataclass(frozen=True)
class ClipOutcome:
    """The reason why a clip is not kept. `reason` is a word to count by; `detail` gives the numbers or the evidence.

    `retimed` is true if the clip's file has another modification time than planned. `measured` has the values of its
    headers, as far as they were read.
    """

    outcome: Outcome
    reason: str
    detail: str
    retimed: bool = False
    measured: Measured | None = None
