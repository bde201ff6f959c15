"""A clock that stops while its process is suspended, so that other processes do not count as silent for that time.

Tested in tests/common/test_run_lock.py.
"""

from __future__ import annotations

import time

_LONGEST_STEP_SECONDS = 2.0


class AwakeClock:
    """Seconds during which this process was running. Read it at least every two seconds.

    If more time passes between two readings, the process was suspended, by a signal or with its machine: count two
    seconds.
    """

    def __init__(self) -> None:
        self._read = time.monotonic()
        self._seconds = 0.0

    def seconds(self) -> float:
        now = time.monotonic()
        self._seconds += min(now - self._read, _LONGEST_STEP_SECONDS)
        self._read = now
        return self._seconds
