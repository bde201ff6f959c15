"""How a run, or a proof of one, is watched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from judge.cached_client import Report


class Progress(Protocol):
    """Told in clips how far the work is."""

    def begin(self, planned: int, decided: int) -> None:
        """The plan stands; `decided` of its clips are done already."""

    def advance(self, clips: int) -> None:
        """So many more are done."""

    def tick(self, asking: Report | None = None) -> None:
        """Called every moment while the work goes on; with how the asking goes, where answers are paid for."""
