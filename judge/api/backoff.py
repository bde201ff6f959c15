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

    def __init__(self, patience: RetryPolicy) -> None:
        self._patience = patience
        self._since: float | None = None
        self._reached = self._answered = False
        self.last: ApiError | None = None
        """What went wrong since the last answer."""

    def apart(self) -> OutageDetector:
        """A watch over one thing alone, which may fail for too long while others are answered."""
        watch = OutageDetector(self._patience)
        watch._reached, watch._answered = self._reached, self._answered
        return watch

    def answered(self) -> None:
        self._since = self.last = None
        self._reached = self._answered = True

    def met(self, fault: ApiError, bearable: bool = False) -> bool:
        """Raises JudgeUsageError or JudgeStopped if this fault ends the run, or has lasted for too long.

        What was accepted before and is not any more is no mistake.

        Where the latter is `bearable`, it returns whether it has.
        """
        if fault.kind == "mistake" and not self._answered:
            raise JudgeUsageError(fault.said)
        if fault.kind in ("mistake", "stop"):
            raise JudgeStopped(fault.said)
        self._reached |= fault.reached
        self.last = fault
        if fault.kind in ("item", "denied"):
            return False
        if self._since is None:
            self._since = time.monotonic()
        seconds = time.monotonic() - self._since
        longest = self._patience.outage_seconds
        if not self._reached:
            longest = min(longest, _FIRST_CONTACT_SECONDS)
        too_long = seconds > longest
        if too_long and not bearable:
            raise JudgeStopped(f"the Claude API gave no answer for {seconds:.0f} s (last: {fault.said})")
        return too_long


def backoff(tries: int) -> float:
    """Seconds before the next try: twice as long each time, up to a minute, and never the same for two callers."""
    longest: float = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** min(tries - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311
