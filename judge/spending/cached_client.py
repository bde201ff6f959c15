"""The client that pays for each question once: look it up, or join an equal one in flight, or ask and store it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from decimal import Decimal
from pathlib import Path

from nextscene.judge.api.answer import Answer
from nextscene.judge.api.api_key import check_key
from nextscene.judge.api.backoff import RetryPolicy
from nextscene.judge.api.batch_record import BatchRecord
from nextscene.judge.api.batch_results import MissingFromBatch
from nextscene.judge.api.batches import Batches
from nextscene.judge.api.client import Client, check_length, connect, worst_cost
from nextscene.judge.api.request import Request
from nextscene.judge.api.shutdown import ShutdownSignal
from nextscene.judge.call_progress import CallProgress
from nextscene.judge.errors import JudgeStopped, JudgeUsageError
from nextscene.judge.spending.admission import Admission
from nextscene.judge.spending.answer_cache import AnswerCache
from nextscene.judge.spending.answer_segments import AnswerFiles
from nextscene.judge.spending.budget import Budget
from nextscene.judge.spending.prices import Price

_STORE_SECONDS = 0.25
_RECORD_SECONDS = 1.0
_LAST_ANSWERS_SECONDS = 10.0
_ONLY_MISSING_SECONDS = 60.0


class CachedClient:
    """The client with cache and budget. For one event loop, and one process at a time on the same files."""

    def __init__(
        self,
        files: AnswerFiles,
        cache: AnswerCache,
        price: Price,
        retry_policy: RetryPolicy,
        limit: Decimal | None,
        in_batches: bool,
        check_ownership: Callable[[], None],
    ) -> None:
        """Create the client from its parts. Callers use `open`, which explains the arguments."""
        self._price = price
        self._cache = cache
        self._use_batches = in_batches
        self._shutdown = ShutdownSignal(check_ownership)
        self._open_batches = BatchRecord.read_all(files)
        worst = sum((batch.worst for batch in self._open_batches), Decimal(0))
        self._budget = Budget(files, limit, cache, worst, self._shutdown)
        self._admission = Admission(self._budget, self._shutdown)
        self._api = connect(retry_policy)
        self._client = Client(self._api, price, self._budget, retry_policy, self._shutdown)
        self._batches = Batches(
            self._api,
            price,
            self._budget,
            cache,
            files,
            retry_policy,
            self._client.outage,
            self._client.shared_errors,
            self._shutdown,
        )
        self._in_flight: dict[str, asyncio.Future[Answer]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @staticmethod
    async def open(
        files: AnswerFiles,
        journals: Path,
        price: Price,
        retry_policy: RetryPolicy,
        limit: Decimal | None,
        in_batches: bool = False,
        check_ownership: Callable[[], None] = lambda: None,
    ) -> CachedClient:
        """Read what is stored, and reconcile the records.

        `journals` is a local folder that only runs on these files use. `limit`, in US dollars, bounds all that was ever
        spent on them; None for no limit. `check_ownership` is called before anything is sent or recorded, and raises
        JudgeStopped once the run is gone. Raise JudgeUsageError without a key, JudgeStopped for damaged records.
        """
        check_key()
        cache = await asyncio.to_thread(AnswerCache, files, journals)
        client = CachedClient(files, cache, price, retry_policy, limit, in_batches, check_ownership)
        await client._start()
        return client

    async def ask(self, request: Request, priority: int, clip_id: str = "") -> Answer:
        """Return the answer, stored or new. The lowest `priority` goes first; `clip_id` is the clip that it is bought
        for.

        Raise RequestFailed or OverBudget for this question, JudgeUsageError or JudgeStopped for all.
        """
        answer = await self._get_stored(request)
        if answer is None:
            if not self._batches.contains(request.key):
                check_length(self._price, request)
                worst, ordinary = (
                    worst_cost(self._price, each, in_batch=self._use_batches)
                    for each in (request, request.with_ordinary_length)
                )
                await self._admission.admit(clip_id, worst, ordinary, priority)
            answer = await asyncio.shield(self._join_or_start(request, priority, clip_id))
        self._admission.record_cost(clip_id, answer.usd)
        return answer

    def announce(self, clip_id: str, expected: Decimal) -> AbstractContextManager[None]:
        """Announce a clip for the time of its decision, with its expected cost in US dollars."""
        return self._admission.announce(clip_id, expected)

    async def has_answer(self, request: Request) -> bool:
        """Return whether the answer is stored, or on its way in a batch."""
        return self._batches.contains(request.key) or await self._get_stored(request) is not None

    def look_up(self, key: str) -> Answer | None:
        """Return the answer stored under a key, or None. Raise JudgeStopped."""
        return self._cache.look_up(key)

    async def flush(self) -> None:
        """Return once every answer so far is in a segment."""
        await self._cache.store()

    async def close(self) -> None:
        """Stop asking, wait a little for the answers in flight, store them, and write the records.

        If nothing could be stored, which every caller was told, the journal keeps the answers for the next run.
        """
        if self._closed:
            return
        self._closed = True
        storable = self._shutdown.reason is None or isinstance(self._shutdown.reason, (JudgeUsageError, JudgeStopped))
        self._shutdown.trigger(JudgeStopped("the run has ended"))
        if self._in_flight:
            await asyncio.wait(list(self._in_flight.values()), timeout=_LAST_ANSWERS_SECONDS)
        await self._batches.until_created(_LAST_ANSWERS_SECONDS)
        for task in self._tasks:
            task.cancel()
        try:
            with suppress(JudgeStopped):  # the run is gone, and the record belongs to another
                await (self._write_all() if storable else self._budget.close(all_stored=False))
        finally:
            self._cache.journal.close()
            await self._api.close()

    async def _write_all(self) -> None:
        await self._cache.store()
        await self._budget.close()
        await self._cache.close()

    def progress(self) -> CallProgress:
        """Return the current progress."""
        trouble = self._client.outage.last_error
        return CallProgress(
            answers=self._cache.answers,
            spent=self._budget.spent,
            lost=self._budget.lost,
            under_way=self._client.queue.under_way,
            in_batches=sum(len(batch.questions) for batch in self._batches.open.values()),
            trouble=trouble.message if trouble else "",
        )

    async def _start(self) -> None:
        await self._cache.store()
        await self._budget.start()
        self._cache.delete_recovered_journals()
        self._batches.resume(self._open_batches)
        self._tasks = [
            asyncio.create_task(self._repeat(_STORE_SECONDS, self._cache.store)),
            asyncio.create_task(self._repeat(_RECORD_SECONDS, self._budget.write)),
            asyncio.create_task(self._end_if_only_missing()),
        ]

    async def _end_if_only_missing(self) -> None:
        """Shut down once all callers wait only for batches whose existence is unknown."""
        since = time.monotonic()
        while True:
            await asyncio.sleep(_ONLY_MISSING_SECONDS / 20)
            if not (self._in_flight and self._in_flight.keys() <= self._batches.unlisted):
                since = time.monotonic()
            elif time.monotonic() - since > _ONLY_MISSING_SECONDS:
                self._shutdown.trigger(self._batches.unlisted_error())

    def _join_or_start(self, request: Request, priority: int, clip_id: str) -> asyncio.Future[Answer]:
        """Return the future answer to an equal question in flight, or to this one, sent now."""
        key = request.key
        if key not in self._in_flight:
            self._in_flight[key] = asyncio.ensure_future(self._fetch(request, priority, clip_id))
            self._in_flight[key].add_done_callback(lambda _: self._in_flight.pop(key))
        return self._in_flight[key]

    async def _fetch(self, request: Request, priority: int, clip_id: str) -> Answer:
        if stored := await self._get_stored(request):  # stored in the meantime
            return stored
        if self._use_batches:
            return await self._batches.ask(request, clip_id)
        if self._batches.contains(request.key):
            with suppress(MissingFromBatch):  # then ask it in a single call
                return await self._batches.result(request.key)
        return await self._client.ask(request, priority, clip_id)

    async def _get_stored(self, request: Request) -> Answer | None:
        found = await self._cache.get(request.key)
        return found or (await self._cache.get(request.alias) if request.alias else None)

    async def _repeat(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        try:
            while True:
                await asyncio.sleep(seconds)
                await asyncio.shield(action())  # a write cannot be canceled
        except Exception as fault:  # noqa: BLE001
            self._shutdown.trigger(fault)  # an answer that cannot be stored must not be paid for
