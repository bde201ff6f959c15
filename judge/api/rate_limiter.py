"""How much may be asked at once and how fast: learned from the answers, since no limit is known beforehand."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Clock = Callable[[], float]

_AT_FIRST = 4

# A level is given up when half of the latest calls are turned away; given up at about the same level, it is tried again
# after ten rounds of calls, then twenty …
_LATEST = 8
_ABOUT = 0.1
_CALM_ROUNDS = 10
_MOST_CALM_WANTED = 8192

# A level begins with credit for four fines. A call that does well earns one, a rejection costs a fine. A fine of a
# hundred bears one rejection in a hundred. Once a level was lowered by an eighth in vain, the fine is halved.
_CREDIT = 4
_HIGHEST_FINE = 100
_LEAST_FINE = 5
_LOWERED_IN_VAIN = 8

# So many rejections in a row, and no fewer than may be under way, are an outage.
_ROW_OF_REJECTIONS = 6

LONGEST_PAUSE_SECONDS = 120.0
"""Whatever a server asks for."""

# A little below the limit and in short steps, since the limit may be counted over any stretch of time.
_SHARE = 0.98
_BURST_SECONDS = 0.5


@dataclass(frozen=True)
class Permit:
    """A call's leave to go: how many were under way with it, whether that was all that may be, and its number."""

    level: int
    full: bool
    serial: int


class AdaptiveConcurrencyLimit:
    """How many calls may be under way: doubled with each round trip until many are turned away, then held just below.

    A level is given up at once when half of the latest calls were turned away, and tried again ever more rarely while
    that happens at about the same one. Of single rejections one call in a hundred is borne; more lower the level little
    by little, and where that does not help they are the weather, of which more is borne. Several in a row halve the
    window; up to the next answer they are an outage, and tell nothing of any level.
    """

    def __init__(self, max_limit: int) -> None:
        self._max_limit = max_limit
        self.limit = min(_AT_FIRST, max_limit)
        self._ceiling = max_limit
        self._step = 1
        self._held = 0
        self._confirmed = 0
        self._fine = _HIGHEST_FINE
        self._credit = _CREDIT * self._fine
        self._in_vain = 0
        self._flawless = True
        self._latest: deque[bool] = deque(maxlen=_LATEST)
        self._in_a_row = 0
        self._before = max_limit, 0
        self._outage_from = -1  # as in an outage, nothing is known before the first answer
        self._sent = 0
        self._cut_at = 0

    def issue_permit(self, level: int) -> Permit:
        """A call is sent now, with `level` under way, itself included."""
        self._sent += 1
        return Permit(level, level >= self.limit, self._sent)

    def record_success(self, permit: Permit) -> None:
        """That call was answered."""
        if permit.serial <= self._outage_from:
            return  # let in before the outage, it does not say that this is over
        self._in_a_row = self._outage_from = 0
        if not permit.full:
            return
        self._latest.append(True)
        if self.limit < self._ceiling:
            self.limit += 1
            return
        self._credit += 1
        if self._ceiling < self._max_limit and self._credit >= _CREDIT * self._fine + self._calm_wanted:
            self._raise()

    def record_rejection(self, permit: Permit) -> None:
        """That call was turned away, though no known rate was passed."""
        if self._outage_from or permit.serial > self._cut_at:
            if not self._in_a_row:
                self._before = self._ceiling, self._confirmed
            self._in_a_row += 1
        if self._in_a_row >= max(_ROW_OF_REJECTIONS, self.limit):
            self._ceiling, self._confirmed = self._before
            self._outage_from = self._outage_from or self._sent
            self._in_a_row = 0
            self._cut_to(max(1, self.limit // 2))
        elif self._outage_from or not permit.full:
            return
        elif permit.serial <= self._cut_at:
            self._lower_to(
                permit.level - 1
            )  # it was sent before the last cut, and tells how deep that should have been
        else:
            self._flawless = False
            self._latest.append(False)
            if self._latest.count(False) >= _LATEST / 2:
                self._give_up(permit.level)
            else:
                self._bear(permit.level)

    @property
    def _calm_wanted(self) -> int:
        """How many calls must do well before a higher level is tried: one round of them, many once it was given up."""
        if not self._confirmed:
            return self.limit
        return min(_MOST_CALM_WANTED, (_CALM_ROUNDS * self.limit) << self._confirmed)

    def _raise(self) -> None:
        self._held = self._ceiling
        self._ceiling = min(self._max_limit, self._ceiling + self._step)
        self._step *= 2
        if self._flawless:
            self._fine = min(_HIGHEST_FINE, 2 * self._fine)
        self._credit, self._in_vain, self._flawless = _CREDIT * self._fine, 0, True

    def _give_up(self, level: int) -> None:
        about_the_same = abs(level - 1 - self._held) <= max(1, _ABOUT * self._held)
        self._confirmed = self._confirmed + 1 if about_the_same else 0
        self._step = 1
        self._lower_to(level - 1)
        self._cut_to(self.limit)

    def _bear(self, level: int) -> None:
        self._credit -= self._fine
        if self._credit >= 0:
            return
        self._lower_to(level - 1)
        self._in_vain += 1
        if self._in_vain > self.limit // _LOWERED_IN_VAIN:
            self._fine = max(_LEAST_FINE, self._fine // 2)
            self._in_vain = 0
        self._credit = _CREDIT * self._fine

    def _cut_to(self, limit: int) -> None:
        self.limit = limit
        self._latest.clear()
        self._credit = _CREDIT * self._fine
        self._cut_at = self._sent

    def _lower_to(self, level: int) -> None:
        self._ceiling = max(1, min(self._ceiling, level))
        self.limit = min(self.limit, self._ceiling)


class TokenBucket:
    """A rate: so much a minute, in short steps. It may be overdrawn by one call, which the next ones wait for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rate = 0.0
        self._level = 0.0
        self._seen = 0.0

    def update(self, limit: int, remaining: int) -> None:
        """The limit a minute, and how much the server says is left."""
        self._refill()
        if not self._rate:
            self._level = _BURST_SECONDS * limit / 60
        self._rate = _SHARE * limit / 60
        self._level = min(self._level, remaining)

    def seconds_to_wait(self) -> float:
        """Seconds until the next call may go."""
        if not self._rate:
            return 0.0
        self._refill()
        return max(0.0, -self._level / self._rate)

    def consume(self, amount: float) -> None:
        """Also to put right what was taken by estimate, by a negative amount."""
        if self._rate:
            self._level -= amount

    def _refill(self) -> None:
        now = self._clock()
        most = max(1.0, _BURST_SECONDS * self._rate)
        self._level = min(most, self._level + self._rate * (now - self._seen))
        self._seen = now


class TokenBuckets:
    """Requests, input tokens and output tokens a minute, as the answers' headers name them."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._requests, self._input, self._output = TokenBucket(clock), TokenBucket(clock), TokenBucket(clock)
        self._by_name = {"requests": self._requests, "input-tokens": self._input, "output-tokens": self._output}
        self._mean_output = 0.0
        self._mean_input = 0.0

    def update_from_headers(self, headers: Mapping[str, str]) -> None:
        """Takes in `anthropic-ratelimit-*-limit` and `-remaining`."""
        for name, bucket in self._by_name.items():
            limit = headers.get(f"anthropic-ratelimit-{name}-limit", "")
            remaining = headers.get(f"anthropic-ratelimit-{name}-remaining", "")
            if limit.isdecimal() and int(limit) > 0 and remaining.isdecimal():
                bucket.update(int(limit), int(remaining))

    def seconds_to_wait(self) -> float:
        """Seconds until one more call may go."""
        return max(self._requests.seconds_to_wait(), self._input.seconds_to_wait(), self._output.seconds_to_wait())

    def consume(self) -> None:
        """One call goes; its tokens are those of the calls before it until its own are known."""
        self._requests.consume(1)
        self._input.consume(self._mean_input)
        self._output.consume(self._mean_output)

    def record_usage(self, input_tokens: int, output_tokens: int) -> None:
        """A call's true tokens."""
        self._input.consume(input_tokens - self._mean_input)
        self._output.consume(output_tokens - self._mean_output)
        self._mean_input += (input_tokens - self._mean_input) / 20
        self._mean_output += (output_tokens - self._mean_output) / 20
