"""The queue of calls that wait for room in the budget."""

from __future__ import annotations

import asyncio
import itertools
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(order=True)
class _CallWaiter:
    """A call that waits; the lowest `priority` goes first."""

    priority: int
    arrival: int
    worst: Decimal = field(compare=False)
    granted: asyncio.Future[None] = field(compare=False)


class BudgetQueue:
    """Calls wait here until there is room for their worst case, in US dollars. For one event loop.

    `take` sets aside a worst case and returns True if there is room for it now; `may_fit` tells whether there could be
    once the calls under way are settled.
    """

    def __init__(self, take: Callable[[Decimal], bool], may_fit: Callable[[Decimal], bool]) -> None:
        self._take = take
        self._may_have_room_later = may_fit
        self._waiting: list[_CallWaiter] = []
        self._arrivals = itertools.count()

    def __bool__(self) -> bool:
        """Whether any call waits."""
        return bool(self._waiting)

    @property
    def least(self) -> Decimal:
        """The least that a call which waits may cost."""
        return min(waiter.worst for waiter in self._waiting)

    def join(self, worst: Decimal, priority: int) -> asyncio.Future[None]:
        """Return what `grant` sets once there is room. It raises what the queue was closed with."""
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        insort(self._waiting, _CallWaiter(priority, next(self._arrivals), worst, granted))
        return granted

    def grant(self) -> None:
        """Let those go for whom there is room. A call that could have room in a moment is not overtaken."""
        still: list[_CallWaiter] = []
        blocked = False
        for waiter in self._waiting:
            if waiter.granted.done():
                continue
            if not blocked and self._take(waiter.worst):
                waiter.granted.set_result(None)
                continue
            still.append(waiter)
            blocked = blocked or self._may_have_room_later(waiter.worst)
        self._waiting = still

    def close(self, reason: Exception) -> None:
        """Tell all that wait why there is no room for them."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.granted.done():
                waiter.granted.set_exception(reason)
