"""The queue of calls: the most urgent goes first, within the limits on concurrency and rate."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from nextscene.judge.api.rate_limiter import MAX_PAUSE_SECONDS, AdaptiveConcurrencyLimit, Permit, TokenBuckets


class CallQueue:
    """A priority queue of calls, bounded by an adaptive concurrency limit and token buckets. For one event loop."""

    def __init__(self, max_concurrent: int) -> None:
        self.concurrency = AdaptiveConcurrencyLimit(max_concurrent)
        self.buckets = TokenBuckets()
        self._waiting: list[tuple[int, int, asyncio.Future[Permit]]] = []
        self._arrivals = itertools.count()
        self.under_way = 0
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed: Exception | None = None

    async def acquire(self, priority: int) -> Permit:
        """Wait for a permit; the lowest `priority` goes first. Raise the reason with which the queue was closed."""
        if self._closed:
            raise self._closed
        granted: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._arrivals), granted))
        self._dispatch()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.release()  # granted and canceled at the same moment: return the slot
            raise

    def release(self) -> None:
        """Return a call's permit, however the call ended."""
        self.under_way -= 1
        self._dispatch()

    def pause(self, seconds: float) -> None:
        """Hold back all calls for that many seconds, two minutes at most."""
        now = asyncio.get_running_loop().time()
        self._paused_until = max(self._paused_until, now + min(seconds, MAX_PAUSE_SECONDS))

    def close(self, reason: Exception) -> None:
        """Let no further call go; raise `reason` in those that wait."""
        self._closed = self._closed or reason
        for _, _, granted in self._waiting:
            if not granted.done():
                granted.set_exception(self._closed)
        self._waiting.clear()

    def _dispatch(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self.under_way < self.concurrency.limit:
            wait = max(self._paused_until - loop.time(), self.buckets.seconds_to_wait())
            if wait > 0:
                if self._timer is None:
                    self._timer = loop.call_later(wait, self._wake)
                return
            _, _, granted = heapq.heappop(self._waiting)
            if granted.cancelled():
                continue
            self.under_way += 1
            self.buckets.consume()
            granted.set_result(self.concurrency.issue_permit(self.under_way))

    def _wake(self) -> None:
        self._timer = None
        self._dispatch()
