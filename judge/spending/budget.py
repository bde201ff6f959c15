"""The budget: the amount spent, the amount that may have been spent, and a limit that is never exceeded.

The worst-case cost of a call is reserved before it is sent: on the local journal, call by call, and in
`calls/account.json` as an allowance for the next calls. So the calls in flight in a killed run are known from its
journal, or, if the whole machine is lost, bounded by the allowance. A call without an end is lost, at its worst-case
cost, until its question has an answer; from then on it counts as much as that answer.

Tested in tests/judge/spending/test_budget.py, and against the loopback API in
tests/judge/spending/test_budget_against_api.py.
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
"""The time for calls that are about to arrive, once none of the waiting ones has room."""
_log = logging.getLogger(__name__)


class Budget:
    """The budget of one run. `limit`, in US dollars, bounds all runs together; None for no limit.

    `cache` counts what was spent. `in_batches` is what open batches have reserved, in total. For one event loop.
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
        """The reserved cost of batches whose existence is unknown."""
        self.reserved = in_batches
        self._allowance = _ZERO
        self._written_record: BudgetRecord | None = None
        self._queue = BudgetQueue(self._try_reserve, self._may_have_room_later)
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
        """The cost of calls whose answers were lost, at worst."""
        return self._settled_lost + worst_of(self._lost_calls.values())

    @property
    def committed(self) -> Decimal:
        """The worst-case total: spent, lost, reserved and held."""
        return self.spent + self.lost + self.reserved + self.held

    async def start(self) -> None:
        """Write the reconciled record, before anything is sent."""
        for key in {pending.key for pending in self._lost_calls.values()}:
            if answer := await self._cache.get(key):
                self._settle_lost(answer)
        self._cache.journal.begin(self._lost_calls, self._settled_lost)
        await self.write()

    def has_room(self, worst: Decimal) -> bool:
        return self.limit is None or self.committed + worst <= self.limit

    # ---- single calls ------------------------------------------------------------------------------------------

    async def reserve(self, call: str, key: str, worst: Decimal, priority: int = 0) -> None:
        """Return once `worst` is reserved for a call and on the journal. The lowest `priority` goes first.

        Raise JudgeStopped if the budget has no room for any waiting call, even with nothing in flight.
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
        """Record the answer of a call, and free its reservation."""
        pending = self._under_way.pop(call)
        try:
            self._cache.add(answer, call)
            self._settle_lost(answer)
        finally:
            self._unreserve(pending.worst)

    def mark_lost(self, call: str) -> None:
        """Record that the answer of a call is lost, and may have been charged for."""
        pending = self._lost_calls[call] = self._under_way.pop(call)
        self._unreserve(pending.worst)

    def release(self, call: str) -> None:
        """Record that a call was certainly not charged for."""
        self._cache.journal.record_ended(call)
        self._unreserve(self._under_way.pop(call).worst)

    # ---- batches -----------------------------------------------------------------------------------------------

    async def reserve_as_many(self, worsts: Sequence[Decimal]) -> int:
        """Reserve as many of `worsts`, from the first on, as there is room for, and return their number.

        Wait while calls in flight may still make room for all. Raise JudgeStopped if there is room for none, or for few
        while less than a tenth of the budget is left: a batch takes about an hour however small it is.
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
        """Record a batch whose answers are stored. `lost` are the calls whose answers could not be read, by name."""
        for answer in answers:
            self._settle_lost(answer)
        for call, pending in lost.items():
            self._cache.journal.record_sent(call, pending)
            self._lost_calls[call] = pending
        self._unreserve(worst)

    def hold(self, worst: Decimal) -> None:
        """Hold the reservation of a batch until it is known whether the batch exists."""
        self.held += worst
        self._unreserve(worst)

    def release_hold(self, worst: Decimal) -> None:
        """Return a held reservation to the ordinary ones."""
        self.held -= worst
        self.reserved += worst

    def release_batch(self, worst: Decimal) -> None:
        """Free the reservation of a batch that was certainly not created."""
        self._unreserve(worst)

    # ---- the record --------------------------------------------------------------------------------------------

    async def write(self) -> None:
        """Write the record, with an allowance for the next calls."""
        await self._write_record(self._next_allowance)

    async def close(self, all_stored: bool = True) -> None:
        """Write the last record: only batches are left open.

        It stays open unless `all_stored`: if the journal with the answers cannot be read, it bounds their cost.
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
            f" answers{lost}; what comes next may cost ${worst:.4f}. Raise `budget_usd`"
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

    def _try_reserve(self, worst: Decimal) -> bool:
        if not self.has_room(worst):
            return False
        self.reserved += worst
        return True

    def _may_have_room_later(self, worst: Decimal) -> bool:
        return self.limit is None or self.committed - self.reserved + worst <= self.limit

    def _stop_if_exhausted(self) -> None:
        """Stop all waiting calls if nothing is in flight that could give something back."""
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
        """Count lost calls whose question has an answer now as much as that answer.

        An answer in a batch says nothing: it costs less than a single call.
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
        # A write cannot be canceled, and must not overtake a later one.
        await asyncio.shield(self._write_record_in_turn(wanted, is_open))

    async def _write_record_in_turn(self, wanted: Callable[[], Decimal | None], is_open: bool) -> None:
        async with self._writing:
            if (allowance := wanted()) is None:
                return
            # While the file is being written, reservations must fit both the old and the new allowance.
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
    """Return the record for a missing or empty file: what is stored was spent."""
    if cache.answers:
        _log.warning(
            "%s is empty or missing; it is rebuilt from %s stored answers, which cost $%.4f; charges for answers that"
            " were never received are not included",
            ACCOUNT,
            f"{cache.answers:,}",
            cache.spent,
        )
    return BudgetRecord()
