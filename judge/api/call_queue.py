"""The order in which calls go out: what is nearest to its end first, no more and no faster than is allowed."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from nextscene.judge.api.rate_limiter import LONGEST_PAUSE_SECONDS, AdaptiveConcurrencyLimit, Permit, TokenBuckets


class CallQueue:
    """Calls wait here for their turn. For one event loop."""

    def __init__(self, most: int) -> None:
        self.window = AdaptiveConcurrencyLimit(most)
        self.buckets = TokenBuckets()
        self._waiting: list[tuple[int, int, asyncio.Future[Permit]]] = []
        self._arrivals = itertools.count()
        self.under_way = 0
        self._paused_until = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._closed: Exception | None = None

    async def enter(self, place: int) -> Permit:
        """Waits for a turn; of those that wait the lowest `place` goes first. Raises what the flow was closed with."""
        if self._closed:
            raise self._closed
        turn: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (place, next(self._arrivals), turn))
        self._let_go()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # it was let go just when it was called off
            raise

    def leave(self) -> None:
        """The call has ended, whichever way."""
        self.under_way -= 1
        self._let_go()

    def pause(self, seconds: float) -> None:
        """Nobody goes for that long, two minutes at most."""
        now = asyncio.get_running_loop().time()
        self._paused_until = max(self._paused_until, now + min(seconds, LONGEST_PAUSE_SECONDS))

    def close(self, reason: Exception) -> None:
        """From now on nobody goes; those that wait are told why."""
        self._closed = self._closed or reason
        for _, _, turn in self._waiting:
            if not turn.done():
                turn.set_exception(self._closed)
        self._waiting.clear()

    def _let_go(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self.under_way < self.window.size:
            wait = max(self._paused_until - loop.time(), self.buckets.wait())
            if wait > 0:
                if self._alarm is None:
                    self._alarm = loop.call_later(wait, self._wake)
                return
            _, _, turn = heapq.heappop(self._waiting)
            if turn.cancelled():
                continue
            self.under_way += 1
            self.buckets.take()
            turn.set_result(self.window.sent(self.under_way))

    def _wake(self) -> None:
        self._alarm = None
        self._let_go()
