"""The account: what was spent, what may have been, and a budget that is never passed.

The worst case of a call is reserved before it is sent, and the file says so first. So after a crash the account still
covers whatever was under way: what was reserved then and has no known end counts as lost, at its worst case.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate

from judge.answer import Answer
from judge.errors import JudgeStopped
from judge.gate import Gate
from judge.open_batch import OpenBatch
from judge.store import CALLS, Files, read_all

ACCOUNT = f"{CALLS}/account.json"
_ZERO = Decimal(0)
_log = logging.getLogger(__name__)
_MARGIN = Decimal("0.25")


@dataclass(frozen=True)
class Statement:
    """US dollars. `allowance` bounds all that was spent or lost or is under way; `answers` counts what was paid for.

    `collected` names batches whose cost is in `spent` already, though they may still stand as open.
    """

    spent: Decimal = _ZERO
    lost: Decimal = _ZERO
    allowance: Decimal = _ZERO
    answers: int = 0
    collected: tuple[str, ...] = ()

    @staticmethod
    def read(files: Files) -> Statement:
        """The account on file; of one that is empty or gone, what the stored answers tell.

        Raises JudgeStopped for a file that is damaged.
        """
        try:
            data = files.read(ACCOUNT)
            if not data.strip(b"\0"):
                return Statement._rebuilt(files)
            value = json.loads(data)
            money = {name: Decimal(value[name]) for name in ("spent", "lost", "allowance")}
            return Statement(answers=int(value["answers"]), collected=tuple(value["collected"]), **money)
        except FileNotFoundError:
            return Statement._rebuilt(files)
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            raise JudgeStopped(f"{ACCOUNT} is damaged ({error!r}); restore it from a copy") from error

    @staticmethod
    def _rebuilt(files: Files) -> Statement:
        """What the stored answers cost, but for those of open batches, which are counted as these end."""
        batches = OpenBatch.all(files)
        still_open = {batch.batch_id for batch in batches if batch.batch_id}
        paid = {
            (answer.key, answer.message_id): answer.usd for answer in read_all(files) if _counts(answer, still_open)
        }
        if not paid and not batches:
            return Statement()
        spent = sum(paid.values(), _ZERO)
        _log.warning(
            "%s is empty or gone; it is made anew from %s stored answers, which cost $%.4f; what may have been charged"
            " for answers that never came is not known any more", ACCOUNT, f"{len(paid):,}", spent,
        )  # fmt: skip
        return Statement(spent, _ZERO, spent + sum((batch.worst for batch in batches), _ZERO), len(paid))

    def lost_at_worst(self, in_batches: Mapping[str, Decimal]) -> Decimal:
        """What is lost if nobody is at work any more: all that was allowed and has no known end.

        `in_batches` is what open batches have reserved, name → worst case: it is under way.
        """
        return max(self.lost, self.allowance - self.spent - self.under_way(in_batches))

    def under_way(self, in_batches: Mapping[str, Decimal]) -> Decimal:
        """What open batches have reserved, less those whose cost is known."""
        return sum((worst for name, worst in in_batches.items() if name not in self.collected), _ZERO)

    def to_bytes(self) -> bytes:
        money = {"spent": str(self.spent), "lost": str(self.lost), "allowance": str(self.allowance)}
        return json.dumps({**money, "answers": self.answers, "collected": self.collected}).encode()


def _counts(answer: Answer, still_open: set[str]) -> bool:
    return not answer.shared and answer.batch_id not in still_open


class Account:
    """One run's hold on the account. `budget` bounds all runs together; None is no bound. `in_batches` as above."""

    def __init__(
        self, files: Files, budget: Decimal | None, in_batches: Mapping[str, Decimal], gate: Gate | None = None
    ) -> None:
        self._files = files
        self._budget = budget
        self._gate = gate or Gate()
        self._gate.on_close(lambda _: self._wake())
        before = Statement.read(files)
        self._on_file: Statement | None = None  # it may have been made anew
        self.collected = set(before.collected)
        self.spent = before.spent
        self.reserved = before.under_way(in_batches)
        self.lost = before.lost_at_worst(in_batches)
        self.answers = before.answers
        self._allowance = before.allowance
        self._waiting: list[asyncio.Future[None]] = []
        self._writing = asyncio.Lock()

    @property
    def committed(self) -> Decimal:
        """What is gone at worst."""
        return self.spent + self.lost + self.reserved

    def fits(self, worst: Decimal) -> bool:
        return self._budget is None or self.committed + worst <= self._budget

    async def reserve(self, worst: Decimal, margin: Decimal = _MARGIN) -> None:
        """Returns once `worst` is set aside, on file too. Waits while calls under way may give some of theirs back.

        The file then allows for a bit more, a share `margin` of what is under way, so that not every call waits for it.
        Raises JudgeStopped when the budget leaves no room even with nothing under way.
        """
        while True:
            self._gate.check()
            if not self.fits(worst):
                if not self.reserved:
                    raise JudgeStopped(self._used_up(worst))
                await self._change()
            elif self.committed + worst <= self._allowance:
                self.reserved += worst
                return
            else:
                await self._allow(worst, margin)

    async def reserve_most(self, worsts: Sequence[Decimal]) -> int:
        """Sets aside as many of `worsts`, from the first on, as there is room for, and returns how many those are.

        Waits while calls under way may still make room for all. Raises JudgeStopped when there is room for none, or
        for few while less than a tenth of the budget is left: a batch takes its hour however small it is.
        """
        totals = list(accumulate(worsts))
        while not self.fits(totals[-1]) and self.reserved:
            self._gate.check()
            await self._change()
        count = sum(map(self.fits, totals))
        few = 10 * count < len(totals)
        if few and self._budget is not None and 10 * (self._budget - self.committed) < self._budget:
            raise JudgeStopped(self._used_up(totals[-1]))
        await self.reserve(totals[max(1, count) - 1], margin=_ZERO)
        return max(1, count)

    async def settle(self, worst: Decimal, cost: Decimal) -> None:
        """An answer came for `cost`; what was reserved for it is free again."""
        self.spent += cost
        self.answers += 1
        await self.release(worst)

    async def settle_batch(self, name: str, worst: Decimal, cost: Decimal, answers: int, lost: Decimal = _ZERO) -> None:
        """A batch's answers came, all stored. Returns once the file says so: from then on it counts no second time.

        `lost` is the worst case of those that came and could not be read.
        """
        if name in self.collected:
            return  # by an earlier run, which died before it could forget the batch

        def allowance() -> Decimal:
            # In one step: nobody may use what is freed here before the file knows of the batch's end.
            self.collected.add(name)
            self.spent += cost
            self.answers += answers
            self.lost += lost
            self.reserved -= worst
            return self.committed

        await self._put_on_file(allowance)
        self._wake()

    async def lose(self, worst: Decimal) -> None:
        """The answer is lost and may have been charged for."""
        self.lost += worst
        await self.release(worst)

    async def release(self, worst: Decimal) -> None:
        """It was surely not charged for."""
        self.reserved -= worst
        self._wake()

    async def write(self) -> None:
        """Puts the account on file, with an allowance that covers just what is under way."""
        await self._put_on_file(lambda: self.committed)

    async def _change(self) -> None:
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(change)
        await change

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)

    async def _allow(self, worst: Decimal, margin: Decimal) -> None:
        def allowance() -> Decimal | None:
            if self.committed + worst <= self._allowance:
                return None
            wanted = self.committed + worst + margin * self.reserved
            return wanted if self._budget is None else min(wanted, self._budget)

        await self._put_on_file(allowance)

    async def _put_on_file(self, wanted: Callable[[], Decimal | None]) -> None:
        # A write cannot be called off, and must not land after a later one.
        await asyncio.shield(self._in_turn(wanted))

    async def _in_turn(self, wanted: Callable[[], Decimal | None]) -> None:
        async with self._writing:
            if (allowance := wanted()) is not None:
                await self._write(allowance)

    async def _write(self, allowance: Decimal) -> None:
        # While the file is being written no more may be reserved than both the old and the new one allow.
        self._allowance = min(self._allowance, allowance)
        statement = Statement(self.spent, self.lost, allowance, self.answers, tuple(sorted(self.collected)))
        if statement != self._on_file:
            self._gate.still_ours()
            await asyncio.to_thread(self._files.write, ACCOUNT, statement.to_bytes())
            self._on_file = statement
        self._allowance = allowance

    def _used_up(self, worst: Decimal) -> str:
        lost = f" and ${self.lost:.2f} set aside for answers that were lost" if self.lost else ""
        return (
            f"the budget of ${self._budget:f} is used up: ${self.spent:.4f} spent on {self.answers:,} answers{lost};"
            f" what comes next may cost ${worst:.4f}. Raise --budget-usd"
        )
