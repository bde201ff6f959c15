"""How a run, or a proof of one, is watched."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told in clips how far the work is."""

    def begin(self, planned: int, decided: int) -> None:
        """The plan stands; `decided` of its clips are done already."""

    def advance(self, clips: int) -> None:
        """So many more are done."""

    def tick(self) -> None:
        """Called every moment while the work goes on."""
