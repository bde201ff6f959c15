"""Timeouts of steps: finds those without progress for so long that their worker must hang.

Tested in tests/curation/run/test_engine.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nextscene.common.awake_clock import AwakeClock
from nextscene.curation.run.unit_progress import Kind

_SILENT_SECONDS: dict[Kind, float] = {"screen": 1800.0, "cut": 1800.0, "try": 1800.0, "seal": 7200.0}
"""More than all limits of one clip together, and than a shard takes to copy. Questions have their own limits."""
GRACE_SECONDS = 120.0
"""Time in which a worker that is killed should be gone."""


class StepTimeouts:
    """The time at which each running step was begun or last showed progress."""

    def __init__(self) -> None:
        self._clock = AwakeClock()
        self._seen: dict[Any, tuple[Kind, float]] = {}
        self._cancelled: dict[Any, float] = {}

    def begin(self, reference: Any, kind: Kind) -> None:
        if kind in _SILENT_SECONDS:
            self._seen[reference] = kind, self._clock.seconds()

    def progress(self, reference: Any) -> None:
        if reference in self._seen:
            self._seen[reference] = self._seen[reference][0], self._clock.seconds()

    def end(self, reference: Any) -> None:
        self._seen.pop(reference, None)
        self._cancelled.pop(reference, None)

    def silent(self) -> Iterator[Any]:
        """Yield, once, each step that has been silent for too long."""
        now = self._clock.seconds()
        for reference, (kind, seen) in list(self._seen.items()):
            if now - seen > _SILENT_SECONDS[kind]:
                del self._seen[reference]
                self._cancelled[reference] = now
                yield reference

    def stuck(self) -> Iterator[Any]:
        """Yield, once, each silent step that has not ended within the grace period since it was yielded by `silent`."""
        now = self._clock.seconds()
        for reference, cancelled in list(self._cancelled.items()):
            if now - cancelled > GRACE_SECONDS:
                del self._cancelled[reference]
                yield reference
