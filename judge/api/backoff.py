"""Retry policy, exponential backoff, and the detection of outages.

Tested in tests/judge/api/test_client.py.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nextscene.judge.errors import JudgeStopped, JudgeUsageError

if TYPE_CHECKING:
    from nextscene.judge.api.errors import ApiError  # it imports the SDK, and settings take their defaults from here

_FIRST_CONTACT_SECONDS = 30.0
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """The limits of concurrency and patience: for one call, and for an outage of the whole API.

    A batch is sent once no question has arrived for `quiet_seconds`, or once it is full. A batch whose creation broke
    off may still appear within `batch_appear_hours`.
    """

    calls_at_once: int = 256
    call_seconds: float = 180.0
    outage_seconds: float = 900.0
    quiet_seconds: float = 5.0
    batch_appear_hours: float = 24.0


class OutageDetector:
    """A detector of outages, which are times without any answer. Before the first contact it detects them sooner."""

    def __init__(self, retry_policy: RetryPolicy) -> None:
        self._retry_policy = retry_policy
        self._failing_since: float | None = None
        self._has_reached = self._has_answered = False
        self.last_error: ApiError | None = None
        """The last error since the last answer."""

    def child(self) -> OutageDetector:
        """Return a detector for one operation, which may fail for too long while others succeed."""
        watch = OutageDetector(self._retry_policy)
        watch._has_reached, watch._has_answered = self._has_reached, self._has_answered
        return watch

    def record_success(self) -> None:
        self._failing_since = self.last_error = None
        self._has_reached = self._has_answered = True

    def record_error(self, fault: ApiError, tolerate_outage: bool = False) -> bool:
        """Return whether the outage has lasted for too long. Raise JudgeStopped for that unless `tolerate_outage`.

        Raise JudgeUsageError or JudgeStopped for an error that ends the run. A key or model that was accepted before
        and is not any more raises JudgeStopped.
        """
        if fault.kind == "mistake" and not self._has_answered:
            raise JudgeUsageError(fault.message)
        if fault.kind in ("mistake", "stop"):
            raise JudgeStopped(fault.message)
        self._has_reached |= fault.reached
        self.last_error = fault
        if fault.kind in ("item", "denied"):
            return False
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        seconds = time.monotonic() - self._failing_since
        longest = self._retry_policy.outage_seconds
        if not self._has_reached:
            longest = min(longest, _FIRST_CONTACT_SECONDS)
        too_long = seconds > longest
        if too_long and not tolerate_outage:
            raise JudgeStopped(f"the Claude API gave no answer for {seconds:.0f} s (last: {fault.message})")
        return too_long


def backoff(tries: int) -> float:
    """Return the seconds before the next try: 0.5 · 2ⁿ up to a minute, times a random factor in [0.5, 1] (jitter)."""
    longest: float = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** min(tries - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311
