"""How long to wait, and when waiting is over."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from nextscene.judge.api.errors import ApiError
from nextscene.judge.errors import JudgeStopped, JudgeUsageError

_FIRST_CONTACT_SECONDS = 30.0
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """How many calls at once are too many, and how many seconds too long: for one call, and for an outage of all.

    A batch is sent off once no question has joined it for `quiet_seconds`, or it is full. One whose creation broke off
    may still appear within `batch_appear_hours`.
    """

    calls_at_once: int = 256
    call_seconds: float = 180.0
    outage_seconds: float = 900.0
    quiet_seconds: float = 5.0
    batch_appear_hours: float = 24.0


class OutageDetector:
    """Watches for the time in which nothing at all is answered. Before the first contact it is less patient."""

    def __init__(self, retry_policy: RetryPolicy) -> None:
        self._retry_policy = retry_policy
        self._failing_since: float | None = None
        self._has_reached = self._has_answered = False
        self.last_error: ApiError | None = None
        """What went wrong since the last answer."""

    def child(self) -> OutageDetector:
        """A watch over one thing alone, which may fail for too long while others are answered."""
        watch = OutageDetector(self._retry_policy)
        watch._has_reached, watch._has_answered = self._has_reached, self._has_answered
        return watch

    def record_success(self) -> None:
        self._failing_since = self.last_error = None
        self._has_reached = self._has_answered = True

    def record_error(self, fault: ApiError, tolerate_outage: bool = False) -> bool:
        """Raises JudgeUsageError or JudgeStopped if this fault ends the run, or has lasted for too long.

        What was accepted before and is not any more is no mistake.

        Where the latter is `tolerate_outage`, it returns whether it has.
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
    """Seconds before the next try: twice as long each time, up to a minute, and never the same for two callers."""
    longest: float = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** min(tries - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311
