"""Admission: no more clips are begun than the budget can finish, at what they are expected to cost."""

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
_LEAST_LEFT = Decimal("0.25")
"""What a clip that is not decided may still cost, as a share of what it was expected to, however much it has cost."""
_PRIOR_CLIPS = 10
"""The estimate counts as much as so many clips that are decided."""
_LAST_CHANCE_SECONDS = 1.0


@dataclass
class _AdmittedClip:
    """One clip that is being decided: what it was expected to cost and what was paid for it, in US dollars."""

    expected: Decimal
    paid: Decimal = _ZERO
    begun: bool = False


@dataclass(order=True)
class _ClipWaiter:
    """A clip that waits to be begun with a call of these costs; the lowest `priority` goes first."""

    priority: int
    clip_id: str
    worst: Decimal = field(compare=False)
    ordinary: Decimal = field(compare=False)
    admitted: asyncio.Future[None] = field(compare=False)


class Admission:
    """Lets clips begin in the order of their priority, while budget is left for those begun and one more.

    A clip is begun by its first call or stored answer. Clips that were not announced are not held back. For one event
    loop.
    """

    def __init__(self, budget: Budget, gate: ShutdownSignal) -> None:
        self._budget = budget
        self._gate = gate
        gate.on_close(self._close)
        self._clips: dict[str, _AdmittedClip] = {}
        self._waiting: list[_ClipWaiter] = []
        self._decided_expected = self._decided_paid = _ZERO

    @contextmanager
    def clip(self, clip_id: str, expected: Decimal) -> Iterator[None]:
        """Announce a clip, for the time of its decision. `expected` is what deciding it costs, in US dollars."""
        clip = self._clips[clip_id] = _AdmittedClip(expected)
        try:
            yield
            if clip.begun:
                self._decided_expected += clip.expected
                self._decided_paid += clip.paid
        finally:
            del self._clips[clip_id]
            self._admit()

    async def begin(self, clip_id: str, worst: Decimal, ordinary: Decimal, priority: int) -> None:
        """Return once the clip may have a call that costs `worst` at most, `ordinary` if its text were a short one.

        Raises OverBudget where its length makes it dearer than what is left, JudgeStopped when the budget cannot finish
        another clip and none is under way.
        """
        self._gate.check()
        if self._budget.limit is None:
            return
        clip = self._clips.get(clip_id)
        if clip is None or clip.begun:
            if ordinary <= self._left < worst:
                raise self._over_budget(clip_id, worst)
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        insort(self._waiting, _ClipWaiter(priority, clip_id, worst, ordinary, admitted))
        self._admit()
        await admitted

    def paid(self, clip_id: str, usd: Decimal) -> None:
        """Count an answer, a new or a stored one."""
        if clip := self._clips.get(clip_id):
            clip.begun = True
            clip.paid += usd
            self._admit()

    @property
    def _left(self) -> Decimal:
        """What may be spent yet, if all that is set aside for calls under way is given back."""
        return (self._budget.limit or _ZERO) - self._budget.spent - self._budget.lost - self._budget.held

    @property
    def _scale(self) -> Decimal:
        """What clips cost, over what was expected."""
        if not self._decided_expected:
            return Decimal(1)
        prior = _PRIOR_CLIPS * max(clip.expected for clip in self._clips.values()) if self._clips else _ZERO
        return (self._decided_paid + prior) / (self._decided_expected + prior)

    def _expected_left(self) -> Decimal:
        scale = self._scale
        begun = (clip for clip in self._clips.values() if clip.begun)
        return sum(
            (max(scale * clip.expected - clip.paid, _LEAST_LEFT * scale * clip.expected) for clip in begun), _ZERO
        )

    def _admit(self) -> None:
        if not self._waiting or self._budget.limit is None:
            return
        free = self._left - self._expected_left()
        while self._waiting:
            waiter = self._waiting[0]
            clip = self._clips.get(waiter.clip_id)
            if clip is None or waiter.admitted.done():
                self._waiting.pop(0)
                continue
            need = max(self._scale * clip.expected, waiter.worst)
            if waiter.ordinary <= self._left < need:
                self._waiting.pop(0)
                waiter.admitted.set_exception(self._over_budget(waiter.clip_id, need))
                continue
            if free < need:
                break
            free -= self._scale * clip.expected
            clip.begun = True
            self._waiting.pop(0)
            waiter.admitted.set_result(None)
        if self._waiting and not any(clip.begun for clip in self._clips.values()):
            asyncio.get_running_loop().call_later(_LAST_CHANCE_SECONDS, self._end_if_used_up)

    def _end_if_used_up(self) -> None:
        if self._waiting and not any(clip.begun for clip in self._clips.values()):
            first = self._waiting[0]
            self._gate.close(JudgeStopped(self._budget.used_up(first.worst)))

    def _over_budget(self, clip_id: str, need: Decimal) -> OverBudget:
        return OverBudget(
            f"the clip {clip_id} is not decided: its caption is so long that it may need ${need:.4f}, and"
            f" ${self._left:.4f} of the budget of ${self._budget.limit:f} is left. Raise --budget-usd, or shorten the"
            " caption and plan anew, into another --out"
        )

    def _close(self, reason: Exception) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.admitted.done():
                waiter.admitted.set_exception(reason)
