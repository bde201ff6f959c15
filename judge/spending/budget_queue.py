"""The queue of calls that wait for room in the budget.

Tested in tests/judge/spending/test_budget.py.
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(order=True)
class _CallWaiter:
    """A waiting call; the lowest `priority` goes first."""

    priority: int
    arrival: int
    worst: Decimal = field(compare=False)
    granted: asyncio.Future[None] = field(compare=False)


class BudgetQueue:
    """A queue of calls that wait for room for their worst-case cost, in US dollars. For one event loop.

    `try_reserve` reserves a cost and returns True if there is room for it now; `may_have_room_later` returns whether
    there could be once the calls in flight are settled.
    """

    def __init__(self, try_reserve: Callable[[Decimal], bool], may_have_room_later: Callable[[Decimal], bool]) -> None:
        self._try_reserve = try_reserve
        self._may_have_room_later = may_have_room_later
        self._waiting: list[_CallWaiter] = []
        self._arrivals = itertools.count()

    def __bool__(self) -> bool:
        """Return whether any call waits."""
        return bool(self._waiting)

    @property
    def least(self) -> Decimal:
        """The lowest worst-case cost of the waiting calls."""
        return min(waiter.worst for waiter in self._waiting)

    def join(self, worst: Decimal, priority: int) -> asyncio.Future[None]:
        """Return the future that `grant` sets once there is room. It raises the reason of `close`."""
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        insort(self._waiting, _CallWaiter(priority, next(self._arrivals), worst, granted))
        return granted

    def grant(self) -> None:
        """Grant the calls that have room. A call that may have room in a moment is not overtaken."""
        still_waiting: list[_CallWaiter] = []
        blocked = False
        for waiter in self._waiting:
            if waiter.granted.done():
                continue
            if not blocked and self._try_reserve(waiter.worst):
                waiter.granted.set_result(None)
                continue
            still_waiting.append(waiter)
            blocked = blocked or self._may_have_room_later(waiter.worst)
        self._waiting = still_waiting

    def close(self, reason: Exception) -> None:
        """Raise `reason` in all waiting calls."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.granted.done():
                waiter.granted.set_exception(reason)
