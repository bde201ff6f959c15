"""Limits on concurrent requests, and on requests and tokens per minute."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from tests.fakes.claude_api.errors import ServerError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a server; None for no limit. `latency` is in seconds, `burst` the size of the request bucket."""

    latency: float = 0.0
    concurrent: int | None = None
    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    burst: float | None = None


@lru_cache(maxsize=256)
def _rfc3339(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


class _Bucket:
    """A token bucket, refilled continuously. Its default capacity is the amount of one second."""

    def __init__(self, name: str, per_minute: int, capacity: float | None, now: float) -> None:
        self.name = name
        self.rate = per_minute / 60
        self.capacity = max(1.0, capacity or self.rate)
        self.level = self.capacity
        self.filled = now
        self.scale = per_minute / self.capacity
        self.prefix = f"anthropic-ratelimit-{name}"
        self.limit = str(per_minute)

    def fill(self, now: float) -> None:
        self.level = min(self.capacity, self.level + (now - self.filled) * self.rate)
        self.filled = now

    def wait(self, amount: float) -> float:
        """Return the seconds until this amount may be taken. If it exceeds the capacity, a full bucket is overdrawn."""
        return max(0.0, min(amount, self.capacity) - self.level) / self.rate

    def headers(self, wall: float) -> dict[str, str]:
        full = math.ceil(wall + (self.capacity - self.level) / self.rate)
        return {
            f"{self.prefix}-limit": self.limit,
            f"{self.prefix}-remaining": str(max(0, math.floor(self.scale * self.level))),
            f"{self.prefix}-reset": _rfc3339(full),
        }


class RateLimiter:
    """The rate limiter of one server."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        wanted = {
            "requests": (limits.requests_per_minute, limits.burst),
            "input-tokens": (limits.input_tokens_per_minute, None),
            "output-tokens": (limits.output_tokens_per_minute, None),
        }
        now = clock()
        self._buckets = {name: _Bucket(name, rate, size, now) for name, (rate, size) in wanted.items() if rate}

    def enter(self, in_flight: int, input_tokens: int) -> None:
        """Take one request from the buckets, or raise the 429 that names the exceeded limit."""
        if self.limits.concurrent is not None and in_flight > self.limits.concurrent:
            raise ServerError(429, "Number of concurrent connections has exceeded your rate limit.", cause="concurrent")
        self._fill()
        # The length of the answer is not known yet: one remaining token is enough to begin it.
        needs = {"requests": 1, "input-tokens": input_tokens, "output-tokens": 1}
        for name, bucket in self._buckets.items():
            if wait := bucket.wait(needs[name]):
                message = f"This request would exceed your rate limit of {bucket.limit} {name} per minute."
                raise ServerError(429, message, retry_after=math.ceil(wait), cause=name)
        self._take("requests", 1)
        self._take("input-tokens", input_tokens)

    def answered(self, output_tokens: int) -> None:
        self._fill()
        self._take("output-tokens", output_tokens)

    def headers(self) -> dict[str, str]:
        self._fill()
        wall = time.time()
        return {name: value for bucket in self._buckets.values() for name, value in bucket.headers(wall).items()}

    def _fill(self) -> None:
        now = self._clock()
        for bucket in self._buckets.values():
            bucket.fill(now)

    def _take(self, name: str, amount: int) -> None:
        if bucket := self._buckets.get(name):
            bucket.level -= amount
