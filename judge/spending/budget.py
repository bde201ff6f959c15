"""The budget: what was spent, what may have been, and a bound that is never passed.

The worst case of a call is reserved before it is sent: on the local journal, call by call, and in `calls/account.json`
as an allowance for those of the next moments. So what was under way in a run that was killed is known by the call where
its journal is at hand, and bounded where the whole machine is gone. A call without an end is lost, at its worst case,
until its question has an answer; from then on it counts as much as that answer cost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import accumulate
from types import MappingProxyType

from nextscene.judge.api.answer import Answer
from nextscene.judge.api.shutdown import ShutdownSignal
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.spending.answer_cache import AnswerCache
from nextscene.judge.spending.answer_segments import AnswerFiles
from nextscene.judge.spending.budget_queue import BudgetQueue
from nextscene.judge.spending.budget_record import ACCOUNT, BudgetRecord, worst_of
from nextscene.judge.spending.call_journal import Pending

_ZERO = Decimal(0)
_MARGIN = Decimal("0.25")
_GRACE_SECONDS = 1.0
"""For calls that are on their way here, once none that waits has room."""
_log = logging.getLogger(__name__)


class Budget:
    """One run's hold on the budget. `limit`, in US dollars, bounds all runs together; None is no bound.

    `cache` counts what was spent. `in_batches` is what open batches have reserved, in all. For one event loop.
    """

    def __init__(
        self,
        files: AnswerFiles,
        limit: Decimal | None,
        cache: AnswerCache,
        in_batches: Decimal,
        shutdown: ShutdownSignal,
    ) -> None:
        self._files = files
        self.limit = limit
        self._cache = cache
        self._shutdown = shutdown
        shutdown.add_listener(self._close)
        before = BudgetRecord.read(files) or _rebuilt(cache)
        before = before.reconciled(cache.spent, cache.answers, in_batches, cache.recovered)
        self._lost_calls = dict(before.lost_calls)
        self._settled_lost = before.lost - worst_of(self._lost_calls.values())
        self._under_way: dict[str, Pending] = {}
        self.held = _ZERO
        """What is set aside for batches of which nobody knows whether they exist: nothing comes back soon."""
        self.reserved = in_batches
        self._allowance = _ZERO
        self._written_record: BudgetRecord | None = None
        self._queue = BudgetQueue(self._take, self._may_have_room_later)
        self._change_waiters: list[asyncio.Future[None]] = []
        self._writing = asyncio.Lock()

    @property
    def spent(self) -> Decimal:
        return self._cache.spent

    @property
    def answers(self) -> int:
        return self._cache.answers

    @property
    def lost(self) -> Decimal:
        """What may have been charged for answers that never came."""
        return self._settled_lost + worst_of(self._lost_calls.values())

    @property
    def committed(self) -> Decimal:
        """What is gone at worst."""
        return self.spent + self.lost + self.reserved + self.held

    async def start(self) -> None:
        """Put the reconciled record on file, before anything is sent."""
        for key in {pending.key for pending in self._lost_calls.values()}:
            if answer := await self._cache.get(key):
                self._settle_lost(answer)
        self._cache.journal.begin(self._lost_calls, self._settled_lost)
        await self.write()

    def has_room(self, worst: Decimal) -> bool:
        return self.limit is None or self.committed + worst <= self.limit

    # ---- single calls ------------------------------------------------------------------------------------------

    async def reserve(self, call: str, key: str, worst: Decimal, priority: int = 0) -> None:
        """Return once `worst` is set aside for a call and on the journal. Calls that wait go by their priority.

        Raises JudgeStopped when the budget has no room for any call that waits, even with nothing under way.
        """
        await self._wait_and_reserve(worst, priority)
        try:
            self._shutdown.check()
            self._cache.journal.record_sent(call, Pending(key, worst))
        except BaseException:
            self._unreserve(worst)
            raise
        self._under_way[call] = Pending(key, worst)

    def settle(self, call: str, answer: Answer) -> None:
        """The call was answered; what was set aside for it is free again."""
        pending = self._under_way.pop(call)
        try:
            self._cache.add(answer, call)
            self._settle_lost(answer)
        finally:
            self._unreserve(pending.worst)

    def mark_lost(self, call: str) -> None:
        """The call's answer is lost, and may have been charged for."""
        pending = self._lost_calls[call] = self._under_way.pop(call)
        self._unreserve(pending.worst)

    def release(self, call: str) -> None:
        """The call was surely not charged for."""
        self._cache.journal.record_ended(call)
        self._unreserve(self._under_way.pop(call).worst)

    # ---- batches -----------------------------------------------------------------------------------------------

    async def reserve_as_many(self, worsts: Sequence[Decimal]) -> int:
        """Set aside as many of `worsts`, from the first on, as there is room for, and return how many those are.

        Waits while calls under way may still make room for all. Raises JudgeStopped when there is room for none, or
        for few while less than a tenth of the budget is left: a batch takes its hour however small it is.
        """
        totals = list(accumulate(worsts))
        while not self.has_room(totals[-1]) and self.reserved:
            self._shutdown.check()
            await self.change()
        count = sum(map(self.has_room, totals))
        few = 10 * count < len(totals)
        if few and self.limit is not None and 10 * (self.limit - self.committed) < self.limit:
            raise JudgeStopped(self.exhausted_message(totals[-1]))
        await self._wait_and_reserve(totals[max(1, count) - 1], priority=0)
        return max(1, count)

    def settle_batch(
        self, worst: Decimal, answers: Iterable[Answer], lost: Mapping[str, Pending] = MappingProxyType({})
    ) -> None:
        """A batch's answers are stored. `lost` are the calls whose answers came and could not be read, by name."""
        for answer in answers:
            self._settle_lost(answer)
        for call, pending in lost.items():
            self._cache.journal.record_sent(call, pending)
            self._lost_calls[call] = pending
        self._unreserve(worst)

    def hold(self, worst: Decimal) -> None:
        """A batch may or may not have been created; what is set aside for it stays so until that is known."""
        self.held += worst
        self._unreserve(worst)

    def release_hold(self, worst: Decimal) -> None:
        """It is known by now."""
        self.held -= worst
        self.reserved += worst

    def release_batch(self, worst: Decimal) -> None:
        """The batch was surely not created."""
        self._unreserve(worst)

    # ---- the record --------------------------------------------------------------------------------------------

    async def write(self) -> None:
        """Put the record on file, with an allowance for the calls of the next moments."""
        await self._write_record(self._next_allowance)

    async def close(self, all_stored: bool = True) -> None:
        """Put the last record on file: nothing is under way but batches.

        It stays open unless `all_stored`: where the journal with the answers is out of reach, it bounds their cost.
        """
        for call in list(self._under_way):
            self.mark_lost(call)
        await self._write_record(lambda: self.committed, is_open=not all_stored)

    async def change(self) -> None:
        """Return once anything is given back or learned."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._change_waiters.append(change)
        await change

    def exhausted_message(self, worst: Decimal) -> str:
        lost = f" and ${self.lost:.4f} set aside for answers that were lost" if self.lost else ""
        lost += f" and ${self.held:.4f} for batches that may appear later" if self.held else ""
        return (
            f"the budget of ${self.limit:f} is used up: ${self.spent:.4f} spent on {self._cache.answers:,}"
            f" answers{lost}; what comes next may cost ${worst:.4f}. Raise budget_usd"
        )

    # ---- waiting for room --------------------------------------------------------------------------------------

    async def _wait_and_reserve(self, worst: Decimal, priority: int) -> None:
        self._shutdown.check()
        granted = self._queue.join(worst, priority)
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._unreserve(worst)
            raise
        try:
            while self.committed > self._allowance:
                await self._write_record(lambda: None if self.committed <= self._allowance else self._next_allowance())
        except BaseException:
            self._unreserve(worst)
            raise

    def _grant(self) -> None:
        self._queue.grant()
        if self._queue and not self.reserved:
            asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._stop_if_exhausted)

    def _take(self, worst: Decimal) -> bool:
        if not self.has_room(worst):
            return False
        self.reserved += worst
        return True

    def _may_have_room_later(self, worst: Decimal) -> bool:
        return self.limit is None or self.committed - self.reserved + worst <= self.limit

    def _stop_if_exhausted(self) -> None:
        """Tell all that wait, if still nobody is under way who could give something back."""
        if self._queue and not self.reserved:
            self._close(JudgeStopped(self.exhausted_message(self._queue.least)))

    def _close(self, reason: Exception) -> None:
        self._queue.close(reason)
        self._notify_change()

    def _unreserve(self, worst: Decimal) -> None:
        self.reserved -= worst
        self._grant()
        self._notify_change()

    def _notify_change(self) -> None:
        changes, self._change_waiters = self._change_waiters, []
        for change in changes:
            if not change.done():
                change.set_result(None)

    def _settle_lost(self, answer: Answer) -> None:
        """Lost calls whose question has an answer now cost as much as that, as far as anybody can know.

        One of a batch tells nothing: it costs less than a call that was lost alone.
        """
        for call in [call for call, pending in self._lost_calls.items() if pending.key == answer.key]:
            worst = self._lost_calls.pop(call).worst
            self._settled_lost += worst if answer.batch_id else min(worst, answer.usd)
            self._cache.journal.record_settled(self._settled_lost, call)

    # ---- writing -----------------------------------------------------------------------------------------------

    def _next_allowance(self) -> Decimal:
        wanted = self.committed + _MARGIN * self.reserved
        return wanted if self.limit is None else min(wanted, max(self.limit, self.committed))

    async def _write_record(self, wanted: Callable[[], Decimal | None], is_open: bool = True) -> None:
        # A write cannot be called off, and must not land after a later one.
        await asyncio.shield(self._write_record_in_turn(wanted, is_open))

    async def _write_record_in_turn(self, wanted: Callable[[], Decimal | None], is_open: bool) -> None:
        async with self._writing:
            if (allowance := wanted()) is None:
                return
            # While the file is being written no more may be reserved than both the old and the new one allow.
            self._allowance = min(self._allowance, allowance)
            record = BudgetRecord(
                self.spent,
                self.lost,
                allowance,
                self._cache.answers,
                dict(self._lost_calls),
                is_open,
                self._cache.journal.name,
            )
            if record != self._written_record:
                self._shutdown.check_ownership()
                await asyncio.to_thread(self._files.write, ACCOUNT, record.to_bytes())
                self._written_record = record
            self._allowance = allowance


def _rebuilt(cache: AnswerCache) -> BudgetRecord:
    """The record of an account that is gone or empty: what is stored was spent."""
    if cache.answers:
        _log.warning(
            "%s is empty or gone; it is made anew from %s stored answers, which cost $%.4f; what may have been charged"
            " for answers that never came is not known any more",
            ACCOUNT,
            f"{cache.answers:,}",
            cache.spent,
        )
    return BudgetRecord()
