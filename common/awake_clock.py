"""A clock that stands while its process is paused, so that nobody else is called silent for that time."""

from __future__ import annotations

import time

_LONGEST_STEP_SECONDS = 2.0


class AwakeClock:
    """Seconds during which this process was running. Read it at least every two seconds.

    Longer between two readings, the process was paused, by a signal or with its whole machine: that counts as two.
    """

    def __init__(self) -> None:
        self._read = time.monotonic()
        self._seconds = 0.0

    def seconds(self) -> float:
        now = time.monotonic()
        self._seconds += min(now - self._read, _LONGEST_STEP_SECONDS)
        self._read = now
        return self._seconds
