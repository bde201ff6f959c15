"""The rate limiter: how many calls may run at once, and how many may start per minute.

No limit is known beforehand. The concurrency limit is learned by additive increase and multiplicative decrease (AIMD),
as in TCP congestion control (RFC 5681); the rate limits are token buckets, set by the headers of the answers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Clock = Callable[[], float]

_INITIAL_LIMIT = 4

# The limit is lowered at once when half of the latest calls were rejected. Lowered repeatedly at about the same level,
# that level is tried again after ten rounds of calls, then twenty, and so on.
_LATEST = 8
_SAME_LEVEL_SHARE = 0.1
_CALM_ROUNDS = 10
_MAX_CALM_CALLS = 8192

# Each level starts with a credit of four fines. A success adds 1 to the credit and a rejection subtracts the fine, so
# that a fine of 100 tolerates one rejection in 100 calls. If lowering the limit by an eighth does not help, the fine is
# halved.
_CREDIT = 4
_MAX_FINE = 100
_MIN_FINE = 5
_VAIN_DECREASE_SHARE = 8

# This many rejections in a row, and at least as many as the limit, are an outage.
_OUTAGE_REJECTIONS = 6

MAX_PAUSE_SECONDS = 120.0
"""The longest pause, whatever the server asks for."""

# Slightly below the limit, and in short bursts, since the server may count over any stretch of time.
_USED_SHARE = 0.98
_BURST_SECONDS = 0.5


@dataclass(frozen=True)
class Permit:
    """The permit of one call: `level` calls were in flight with it, `full` if that was the limit; `serial` counts."""

    level: int
    full: bool
    serial: int


class AdaptiveConcurrencyLimit:
    """The number of calls that may run at once, learned from successes and rejections (HTTP 429 without retry-after).

    With `limit` ≤ `ceiling` ≤ `max_limit`, and only for calls that ran at the limit:

        success, limit < ceiling       limit += 1                     so it doubles with each round trip (slow start)
        success, limit = ceiling       credit += 1; once credit ≥ 4·fine + calm: ceiling += step, step *= 2
        rejection                      credit -= fine; once credit < 0: ceiling = limit = level - 1, credit = 4·fine
        half of the last 8 rejected    ceiling = limit = level - 1, step = 1
        max(6, limit) rejections       limit //= 2, ceiling as before them; ignored until the next success, as they
          in a row                     are an outage and say nothing about the limit

    `calm` is one round of calls; after n repeated decreases at about the same level it is 10·2ⁿ rounds, 8,192 calls at
    most. `fine` starts at 100, is halved (to 5 at least) if decreases do not help, and is doubled again after a level
    without rejections.
    """

    def __init__(self, max_limit: int) -> None:
        self._max_limit = max_limit
        self.limit = min(_INITIAL_LIMIT, max_limit)
        self._ceiling = max_limit
        self._step = 1
        self._last_ceiling = 0
        self._repeated_decreases = 0
        self._fine = _MAX_FINE
        self._credit = _CREDIT * self._fine
        self._vain_decreases = 0
        self._flawless = True
        self._latest: deque[bool] = deque(maxlen=_LATEST)
        self._rejections_in_a_row = 0
        self._before_rejections = max_limit, 0
        self._outage_from = -1  # as in an outage, nothing is known before the first success
        self._sent = 0
        self._restarted_at = 0

    def issue_permit(self, level: int) -> Permit:
        """Return the permit of a call that is sent now, with `level` calls in flight, itself included."""
        self._sent += 1
        return Permit(level, level >= self.limit, self._sent)

    def record_success(self, permit: Permit) -> None:
        """Count a call that was answered."""
        if permit.serial <= self._outage_from:
            return  # sent before the outage, so it does not show that the outage is over
        self._rejections_in_a_row = self._outage_from = 0
        if not permit.full:
            return
        self._latest.append(True)
        if self.limit < self._ceiling:
            self.limit += 1
            return
        self._credit += 1
        if self._ceiling < self._max_limit and self._credit >= _CREDIT * self._fine + self._calm_calls:
            self._raise()

    def record_rejection(self, permit: Permit) -> None:
        """Count a call that was rejected although no known rate limit was exceeded."""
        if self._outage_from or permit.serial > self._restarted_at:
            if not self._rejections_in_a_row:
                self._before_rejections = self._ceiling, self._repeated_decreases
            self._rejections_in_a_row += 1
        if self._rejections_in_a_row >= max(_OUTAGE_REJECTIONS, self.limit):
            self._ceiling, self._repeated_decreases = self._before_rejections
            self._outage_from = self._outage_from or self._sent
            self._rejections_in_a_row = 0
            self._restart_at(max(1, self.limit // 2))
        elif self._outage_from or not permit.full:
            return
        elif permit.serial <= self._restarted_at:
            # Sent before the last decrease, it shows how far that should have gone.
            self._lower_to(permit.level - 1)
        else:
            self._flawless = False
            self._latest.append(False)
            if self._latest.count(False) >= _LATEST / 2:
                self._decrease(permit.level)
            else:
                self._tolerate(permit.level)

    @property
    def _calm_calls(self) -> int:
        """The number of successes before a higher limit is tried: one round of calls, more after repeated decreases."""
        if not self._repeated_decreases:
            return self.limit
        return min(_MAX_CALM_CALLS, (_CALM_ROUNDS * self.limit) << self._repeated_decreases)

    def _raise(self) -> None:
        self._last_ceiling = self._ceiling
        self._ceiling = min(self._max_limit, self._ceiling + self._step)
        self._step *= 2
        if self._flawless:
            self._fine = min(_MAX_FINE, 2 * self._fine)
        self._credit, self._vain_decreases, self._flawless = _CREDIT * self._fine, 0, True

    def _decrease(self, level: int) -> None:
        about_the_same = abs(level - 1 - self._last_ceiling) <= max(1, _SAME_LEVEL_SHARE * self._last_ceiling)
        self._repeated_decreases = self._repeated_decreases + 1 if about_the_same else 0
        self._step = 1
        self._lower_to(level - 1)
        self._restart_at(self.limit)

    def _tolerate(self, level: int) -> None:
        self._credit -= self._fine
        if self._credit >= 0:
            return
        self._lower_to(level - 1)
        self._vain_decreases += 1
        if self._vain_decreases > self.limit // _VAIN_DECREASE_SHARE:
            self._fine = max(_MIN_FINE, self._fine // 2)
            self._vain_decreases = 0
        self._credit = _CREDIT * self._fine

    def _restart_at(self, limit: int) -> None:
        self.limit = limit
        self._latest.clear()
        self._credit = _CREDIT * self._fine
        self._restarted_at = self._sent

    def _lower_to(self, level: int) -> None:
        self._ceiling = max(1, min(self._ceiling, level))
        self.limit = min(self.limit, self._ceiling)


class TokenBucket:
    """A token bucket: refilled continuously, it may be overdrawn by one call, for which the next ones wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rate = 0.0
        self._level = 0.0
        self._seen = 0.0

    def update(self, limit: int, remaining: int) -> None:
        """Take over the limit per minute, and how much of it the server says is left."""
        self._refill()
        if not self._rate:
            self._level = _BURST_SECONDS * limit / 60
        self._rate = _USED_SHARE * limit / 60
        self._level = min(self._level, remaining)

    def seconds_to_wait(self) -> float:
        """Return the seconds until the next call may go."""
        if not self._rate:
            return 0.0
        self._refill()
        return max(0.0, -self._level / self._rate)

    def consume(self, amount: float) -> None:
        """Take an amount; a negative one corrects an estimate."""
        if self._rate:
            self._level -= amount

    def _refill(self) -> None:
        now = self._clock()
        most = max(1.0, _BURST_SECONDS * self._rate)
        self._level = min(most, self._level + self._rate * (now - self._seen))
        self._seen = now


class TokenBuckets:
    """Token buckets of requests, input tokens and output tokens per minute, as the headers of answers name them."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._requests, self._input, self._output = TokenBucket(clock), TokenBucket(clock), TokenBucket(clock)
        self._by_name = {"requests": self._requests, "input-tokens": self._input, "output-tokens": self._output}
        self._mean_output = 0.0
        self._mean_input = 0.0

    def update_from_headers(self, headers: Mapping[str, str]) -> None:
        """Take over the limits in the headers `anthropic-ratelimit-*-limit` and `-remaining`."""
        for name, bucket in self._by_name.items():
            limit = headers.get(f"anthropic-ratelimit-{name}-limit", "")
            remaining = headers.get(f"anthropic-ratelimit-{name}-remaining", "")
            if limit.isdecimal() and int(limit) > 0 and remaining.isdecimal():
                bucket.update(int(limit), int(remaining))

    def seconds_to_wait(self) -> float:
        """Return the seconds until one more call may go."""
        return max(self._requests.seconds_to_wait(), self._input.seconds_to_wait(), self._output.seconds_to_wait())

    def consume(self) -> None:
        """Count one call; its tokens are estimated by the running mean until `record_usage` gives them."""
        self._requests.consume(1)
        self._input.consume(self._mean_input)
        self._output.consume(self._mean_output)

    def record_usage(self, input_tokens: int, output_tokens: int) -> None:
        """Correct the estimate for one call by its true numbers of tokens."""
        self._input.consume(input_tokens - self._mean_input)
        self._output.consume(output_tokens - self._mean_output)
        self._mean_input += (input_tokens - self._mean_input) / 20
        self._mean_output += (output_tokens - self._mean_output) / 20
