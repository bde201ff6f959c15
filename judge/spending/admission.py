"""Admission control: no more clips are started than the budget can finish, at their expected cost."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal

from nextscene.judge.api.shutdown import ShutdownSignal
from nextscene.judge.errors import JudgeStopped, OverBudget
from nextscene.judge.spending.budget import Budget

_ZERO = Decimal(0)
_MIN_REMAINING_SHARE = Decimal("0.25")
"""The least that an undecided clip may still cost, as a share of its expected cost."""
_PRIOR_CLIPS = 10
"""The weight of the estimate, in decided clips."""
_GRACE_SECONDS = 1.0


@dataclass
class _AdmittedClip:
    """A clip that is being decided: its expected cost and what was paid for it, in US dollars."""

    expected: Decimal
    paid: Decimal = _ZERO
    admitted: bool = False


@dataclass(order=True)
class _ClipWaiter:
    """A clip that waits to be admitted for a call of these costs; the lowest `priority` goes first."""

    priority: int
    clip_id: str
    worst: Decimal = field(compare=False)
    ordinary: Decimal = field(compare=False)
    granted: asyncio.Future[None] = field(compare=False)


class Admission:
    """Admission of clips in the order of their priority, while the budget has room for the admitted ones and one more.

    A clip is admitted by its first call or stored answer. Clips that were not announced are never held back. For one
    event loop.
    """

    def __init__(self, budget: Budget, shutdown: ShutdownSignal) -> None:
        self._budget = budget
        self._shutdown = shutdown
        shutdown.add_listener(self._close)
        self._clips: dict[str, _AdmittedClip] = {}
        self._waiting: list[_ClipWaiter] = []
        self._decided_expected = self._decided_paid = _ZERO

    @contextmanager
    def announce(self, clip_id: str, expected: Decimal) -> Iterator[None]:
        """Announce a clip for the time of its decision. `expected` is the expected cost of that, in US dollars."""
        clip = self._clips[clip_id] = _AdmittedClip(expected)
        try:
            yield
            if clip.admitted:
                self._decided_expected += clip.expected
                self._decided_paid += clip.paid
        finally:
            del self._clips[clip_id]
            self._admit_waiting()

    async def admit(self, clip_id: str, worst: Decimal, ordinary: Decimal, priority: int) -> None:
        """Return once the clip may have a call that costs `worst` at most, or `ordinary` if its text were short.

        Raise OverBudget if only its length makes it cost more than is left, JudgeStopped if the budget cannot finish
        another clip and none is in progress.
        """
        self._shutdown.check()
        if self._budget.limit is None:
            return
        clip = self._clips.get(clip_id)
        if clip is None or clip.admitted:
            if ordinary <= self._remaining < worst:
                raise self._over_budget(clip_id, worst)
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        insort(self._waiting, _ClipWaiter(priority, clip_id, worst, ordinary, granted))
        self._admit_waiting()
        await granted

    def record_cost(self, clip_id: str, usd: Decimal) -> None:
        """Count the cost of an answer, new or stored."""
        if clip := self._clips.get(clip_id):
            clip.admitted = True
            clip.paid += usd
            self._admit_waiting()

    @property
    def _remaining(self) -> Decimal:
        """The rest of the budget, if all that is reserved for calls in flight is given back."""
        return (self._budget.limit or _ZERO) - self._budget.spent - self._budget.lost - self._budget.held

    @property
    def _scale(self) -> Decimal:
        """The ratio of actual to expected cost."""
        if not self._decided_expected:
            return Decimal(1)
        prior = _PRIOR_CLIPS * max(clip.expected for clip in self._clips.values()) if self._clips else _ZERO
        return (self._decided_paid + prior) / (self._decided_expected + prior)

    def _expected_remaining(self) -> Decimal:
        scale = self._scale
        admitted = (clip for clip in self._clips.values() if clip.admitted)
        return sum(
            (max(scale * clip.expected - clip.paid, _MIN_REMAINING_SHARE * scale * clip.expected) for clip in admitted),
            _ZERO,
        )

    def _admit_waiting(self) -> None:
        if not self._waiting or self._budget.limit is None:
            return
        free = self._remaining - self._expected_remaining()
        while self._waiting:
            waiter = self._waiting[0]
            clip = self._clips.get(waiter.clip_id)
            if clip is None or waiter.granted.done():
                self._waiting.pop(0)
                continue
            need = max(self._scale * clip.expected, waiter.worst)
            if waiter.ordinary <= self._remaining < need:
                self._waiting.pop(0)
                waiter.granted.set_exception(self._over_budget(waiter.clip_id, need))
                continue
            if free < need:
                break
            free -= self._scale * clip.expected
            clip.admitted = True
            self._waiting.pop(0)
            waiter.granted.set_result(None)
        if self._waiting and not any(clip.admitted for clip in self._clips.values()):
            asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._stop_if_exhausted)

    def _stop_if_exhausted(self) -> None:
        if self._waiting and not any(clip.admitted for clip in self._clips.values()):
            first = self._waiting[0]
            self._shutdown.trigger(JudgeStopped(self._budget.exhausted_message(first.worst)))

    def _over_budget(self, clip_id: str, need: Decimal) -> OverBudget:
        return OverBudget(
            f"the clip {clip_id} is not decided: its caption is so long that it may need ${need:.4f}, and"
            f" ${self._remaining:.4f} of the budget of ${self._budget.limit:f} is left. Raise"
            " `budget_usd`, or shorten the caption and plan again, into another output folder"
        )

    def _close(self, reason: Exception) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.granted.done():
                waiter.granted.set_exception(reason)
