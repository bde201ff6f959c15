"""Every question is paid for once: it is looked up, or joined to an equal one under way, or asked and stored."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal

from judge.account import Account
from judge.answer import Answer
from judge.batch_api import NotInBatch
from judge.batches import Batches
from judge.client import Client, connect
from judge.errors import JudgeStopped
from judge.gate import Gate
from judge.open_batch import OpenBatch
from judge.patience import Patience
from judge.prices import Price
from judge.request import Request
from judge.store import CallStore, Files

_REMEMBERED = 20_000
_BOOKKEEPING_SECONDS = 1.0
_LAST_ANSWERS_SECONDS = 10.0


@dataclass(frozen=True)
class Report:
    """How the asking goes. Money in US dollars; `trouble` is the last fault if nothing was answered since."""

    answers: int
    spent: Decimal
    lost: Decimal
    under_way: int
    in_batches: int
    trouble: str


class PaidOnce:
    """The way from a question to its stored answer. For one event loop, and one process at a time on the same files.

    `budget` is in US dollars and bounds all that was ever spent on these files; None is no bound. `still_ours` is
    called before anything is sent or put on account, and raises JudgeStopped once the run is gone. Raises JudgeMistake
    without a key.
    """

    def __init__(
        self, files: Files, price: Price, patience: Patience, budget: Decimal | None, in_batches: bool,
        still_ours: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._in_batches = in_batches
        self._store = CallStore(files)
        open_batches = OpenBatch.all(files)
        self._gate = Gate(still_ours)
        self._account = Account(files, budget, {batch.name: batch.worst for batch in open_batches}, self._gate)
        self._open_batches = open_batches
        self._api = connect(patience)
        self._client = Client(self._api, price, self._account, patience, self._gate)
        self._batches = Batches(
            self._api, price, self._account, self._store, files, patience, self._client.outage, self._gate
        )
        self._asking: dict[str, asyncio.Future[Answer]] = {}
        self._remembered: OrderedDict[str, Answer] = OrderedDict()
        self._bookkeeper: asyncio.Task[None] | None = None

    async def open(self, drawer: str) -> None:
        """Before the first question about a drawer's clips."""
        if self._bookkeeper is None:
            self._bookkeeper = asyncio.create_task(self._keep_books())
            self._batches.take_up(self._open_batches)
        await self._store.open(drawer)

    async def close(self, drawer: str) -> None:
        """After the last one."""
        await self._store.close(drawer)

    async def end(self) -> None:
        """Asks nothing more, waits a little for the answers under way, stores them, and puts the account in order."""
        self._gate.close(JudgeStopped("the run has ended"))
        if self._asking:
            await asyncio.wait(list(self._asking.values()), timeout=_LAST_ANSWERS_SECONDS)
        if self._bookkeeper:
            self._bookkeeper.cancel()
        with suppress(JudgeStopped):  # the run is gone, and the account another's
            await self._account.write()
        await self._api.close()

    async def ask(self, request: Request, drawer: str, place: int) -> Answer:
        """The stored answer. Raises Unanswered for this question, JudgeMistake or JudgeStopped for all.

        An equal question of another drawer is not asked again either while its answer is remembered; the copy that is
        stored here says that it was shared.
        """
        if stored := self._store.get(drawer, request.key):
            return stored
        first = request.key not in self._asking
        if first:
            self._asking[request.key] = asyncio.ensure_future(self._find(request, drawer, place))
        try:
            answer = await asyncio.shield(self._asking[request.key])
        finally:
            if first:
                del self._asking[request.key]
        if self._store.get(drawer, request.key) is None:
            await self._put(drawer, replace(answer, usd=Decimal(0), shared=True))
        return self._store.get(drawer, request.key) or answer

    def has_answer(self, request: Request, drawer: str) -> bool:
        """Whether it was asked before: the answer is stored in an open drawer, or on its way in a batch."""
        return self._store.get(drawer, request.key) is not None or self._batches.holds(request.key)

    def report(self) -> Report:
        trouble = self._client.outage.last
        return Report(
            answers=self._account.answers, spent=self._account.spent, lost=self._account.lost,
            under_way=self._client.flow.under_way,
            in_batches=sum(len(batch.questions) for batch in self._batches.open.values()),
            trouble=trouble.said if trouble else "",
        )  # fmt: skip

    async def _find(self, request: Request, drawer: str, place: int) -> Answer:
        if known := self._remembered.get(request.key):
            return known
        answer = await self._ask(request, drawer, place)
        self._remembered[request.key] = answer
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return answer

    async def _ask(self, request: Request, drawer: str, place: int) -> Answer:
        if self._in_batches:
            return await self._batches.ask(request, drawer)
        if self._batches.holds(request.key):
            try:
                return await self._batches.result(request.key)
            except NotInBatch:
                pass  # then as any other
        answer = await self._client.ask(request, place)
        await self._put(drawer, answer)
        return answer

    async def _put(self, drawer: str, answer: Answer) -> None:
        try:
            await self._store.put(drawer, [answer])
        except Exception as fault:
            self._gate.close(fault)  # what cannot be stored must not be paid for
            raise

    async def _keep_books(self) -> None:
        try:
            while True:
                await asyncio.sleep(_BOOKKEEPING_SECONDS)
                await self._account.write()
        except Exception as fault:  # noqa: BLE001
            self._gate.close(fault)
