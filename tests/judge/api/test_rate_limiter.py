"""The limits that are learned, against simulated servers whose limits are known."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.judge.api.call_queue import CallQueue
from nextscene.judge.api.rate_limiter import AdaptiveConcurrencyLimit, TokenBucket, TokenBuckets
from tests.fakes.claude_api import Limits, ServerError
from tests.fakes.claude_api.limits import RateLimiter
from tests.judge.support import in_no_time

pytestmark = pytest.mark.slow


@dataclass
class Server:
    """Takes about a second for an answer. More than `most` at once are turned away, and `bad_luck` of the others.

    Bad luck sets in at `turning`; while it is `down` everybody is turned away.
    """

    most: int = 64
    bad_luck: float = 0.0
    turning: float = 0.0
    down: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    accepted: int = 0
    rejected: int = 0
    _inside: int = 0
    _seen: float = 0.0
    _area: float = 0.0
    _random: random.Random = field(default_factory=random.Random)

    def start_counting(self) -> None:
        self._count()
        self.accepted = self.rejected = 0
        self._area = 0.0

    def _count(self) -> None:
        now = asyncio.get_running_loop().time()
        self._area += self._inside * (now - self._seen)
        self._seen = now

    @property
    def area(self) -> float:
        """Call-seconds inside since counting began."""
        self._count()
        return self._area

    async def answer(self) -> bool:
        self._count()
        begin, end = self.down
        down = begin <= self._seen < end
        if down or self._inside >= self.most or (self._seen >= self.turning and self._random.random() < self.bad_luck):
            await asyncio.sleep(0.02)
            self.rejected += 1
            return False
        self._inside += 1
        await asyncio.sleep(self._random.uniform(0.5, 1.5))
        self._count()
        self._inside -= 1
        self.accepted += 1
        return True


@dataclass(frozen=True)
class Measured:
    mean: float
    """Calls inside, over the time that counts."""
    rejected: float
    """The share of all calls sent in that time."""
    accepted: float
    """Calls per second."""


def measured(server: Server, ramp_up: float, until: float, at_once: int = 256) -> Measured:
    """Return what the server records of a queue with more calls than there is time for."""

    async def work() -> Measured:
        loop = asyncio.get_running_loop()
        server._random.seed(server.seed)
        queue = CallQueue(at_once)
        queue.buckets = TokenBuckets(loop.time)
        lot = random.Random(1)

        async def ask() -> None:
            tries = 0
            while loop.time() < until:
                turn = await queue.acquire(0)
                if await server.answer():
                    queue.concurrency.record_success(turn)
                    queue.release()
                    tries = 0
                else:
                    queue.concurrency.record_rejection(turn)
                    queue.release()
                    tries += 1
                    await asyncio.sleep(lot.uniform(0.5, 1) * min(60, 0.5 * 2 ** (tries - 1)))

        async with asyncio.TaskGroup() as group:
            for _ in range(2 * at_once):
                group.create_task(ask())
            await asyncio.sleep(ramp_up)
            server.start_counting()
            await asyncio.sleep(until - ramp_up)
            span = until - ramp_up
            return Measured(
                server.area / span, server.rejected / (server.accepted + server.rejected), server.accepted / span
            )

    return in_no_time(work())


@pytest.mark.parametrize("seed", range(3))
def test_a_limit_of_64_calls_at_once_is_used_with_hardly_any_rejection(seed: int) -> None:
    seen = measured(Server(64, seed=seed), ramp_up=30, until=330)
    assert 0.95 * 64 <= seen.mean <= 64
    assert seen.rejected < 0.01


@pytest.mark.parametrize("most", [1, 5, 20, 200])
def test_other_limits_are_found_as_well(most: int) -> None:
    seen = measured(Server(most), ramp_up=60, until=260)
    assert seen.mean >= 0.9 * most
    assert seen.rejected < (0.01 if most > 5 else 0.05)


def test_without_a_limit_it_grows_to_what_the_caller_allows() -> None:
    seen = measured(Server(10**9), ramp_up=20, until=60)
    assert seen.mean > 0.98 * 256 and seen.rejected == 0


@pytest.mark.parametrize("turning", [0, 30])
def test_rejections_of_one_call_in_twenty_leave_most_of_the_limit(turning: float) -> None:
    """Both for rejections from the first call on and from the time when the limit was known."""
    free = measured(Server(10**9, bad_luck=0.05, turning=turning), ramp_up=60, until=260)
    assert free.mean > 0.6 * 256
    limited = measured(Server(64, bad_luck=0.05, turning=turning), ramp_up=60, until=260)
    assert limited.mean > 0.6 * 64
    assert limited.rejected < 0.08


@pytest.mark.parametrize(("most", "began", "over"), [(64, 60, 70), (64, 60, 120), (10**9, 60, 120), (64, 0, 20)])
def test_after_an_outage_it_is_soon_as_fast_as_before(most: int, began: float, over: float) -> None:
    seen = measured(Server(most, down=(began, over)), ramp_up=over + 65, until=over + 200)
    assert seen.mean >= 0.95 * min(most, 256)
    assert seen.rejected < 0.01


@given(st.integers(1, 300), st.lists(st.tuples(st.booleans(), st.integers(0, 400)), max_size=200))
def test_whatever_is_heard_the_window_stays_between_one_and_the_most(most: int, heard: list[tuple[bool, int]]) -> None:
    concurrency = AdaptiveConcurrencyLimit(most)
    sent = [concurrency.issue_permit(1)]
    for well, number in heard:
        sent.append(concurrency.issue_permit(1 + number % concurrency.limit))
        turn = sent[-1 - number % min(3, len(sent))]
        (concurrency.record_success if well else concurrency.record_rejection)(turn)
        assert 1 <= concurrency.limit <= most


# ---- rates -----------------------------------------------------------------------------------------------------


@dataclass
class Rate:
    accepted: int = 0
    rejected: int = 0
    tokens: int = 0


def rate_of(limits: Limits, seconds: float, tokens: Callable[[random.Random], tuple[int, int]]) -> tuple[Rate, float]:
    """Return what a server with these limits records in so many seconds, after the first twenty."""

    async def work() -> tuple[Rate, float]:
        loop, lot, ramp_up = asyncio.get_running_loop(), random.Random(3), 20.0
        queue, limiter, seen = CallQueue(256), RateLimiter(limits, loop.time), Rate()
        queue.buckets = TokenBuckets(loop.time)

        async def ask() -> None:
            while loop.time() < ramp_up + seconds:
                into, out = tokens(lot)
                turn = await queue.acquire(0)
                counts = ramp_up <= loop.time() < ramp_up + seconds
                try:
                    limiter.enter(1, into)
                except ServerError as refused:
                    seen.rejected += counts
                    queue.buckets.update_from_headers(limiter.headers())
                    queue.pause(math.ceil(refused.retry_after or 0))
                else:
                    seen.accepted += counts
                    seen.tokens += counts * (into + out)
                    await asyncio.sleep(lot.uniform(0.3, 0.9))
                    limiter.answered(out)
                    queue.buckets.update_from_headers(limiter.headers())
                    queue.concurrency.record_success(turn)
                    queue.buckets.record_usage(into, out)
                queue.release()

        async with asyncio.TaskGroup() as group:
            for _ in range(256):
                group.create_task(ask())
        return seen, seconds

    return in_no_time(work())


def test_a_limit_of_3000_requests_a_minute_is_used_with_hardly_any_rejection() -> None:
    seen, seconds = rate_of(Limits(requests_per_minute=3000), 180, lambda lot: (200, 40))
    assert 0.95 * 50 <= seen.accepted / seconds <= 50.5
    assert seen.rejected < 0.01 * (seen.accepted + seen.rejected)


def test_a_limit_on_input_tokens_is_kept_as_well() -> None:
    limits = Limits(input_tokens_per_minute=600_000)
    seen, seconds = rate_of(limits, 180, lambda lot: (lot.randint(100, 300), 0))
    assert seen.tokens / seconds >= 0.9 * 10_000
    assert seen.rejected < 0.02 * (seen.accepted + seen.rejected)


def test_a_bucket_that_heard_of_no_limit_holds_nobody() -> None:
    bucket = TokenBucket(lambda: 0.0)
    for _ in range(1000):
        bucket.consume(1)
        assert bucket.seconds_to_wait() == 0


def test_a_bucket_never_lets_more_go_than_its_rate_and_half_a_second() -> None:
    now = 0.0
    bucket = TokenBucket(lambda: now)
    bucket.update(600, 600)
    gone = 0
    while now < 60:
        while bucket.seconds_to_wait() == 0:
            bucket.consume(1)
            gone += 1
        assert gone <= 10 * now + 5 + 1
        now += max(bucket.seconds_to_wait(), 1e-6)
    assert gone >= 0.97 * 600


@pytest.mark.parametrize("value", ["", "many", "-1", "0", "1.5", "²"])
def test_headers_that_say_nothing_change_nothing(value: str) -> None:
    buckets = TokenBuckets(lambda: 0.0)
    for name in ("requests", "input-tokens", "output-tokens"):
        buckets.update_from_headers(
            {f"anthropic-ratelimit-{name}-limit": value, f"anthropic-ratelimit-{name}-remaining": "0"}
        )
        buckets.update_from_headers({f"anthropic-ratelimit-{name}-limit": "100"})
    buckets.consume()
    assert buckets.seconds_to_wait() == 0
