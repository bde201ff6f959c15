"""Message batches: half the price, answers within a day.

A record of the batch and its questions is written before the batch is created; its id is added after. If a run dies
between the two, the next one looks for the batch in the account's list for as long as it may still appear there, so no
batch is created twice. The record is deleted once the answers are stored and their cost is recorded.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import anthropic

from nextscene.judge.api.answer import Answer
from nextscene.judge.api.backoff import OutageDetector, RetryPolicy
from nextscene.judge.api.batch_api import BatchApi, CreationFailed, CreationUncertain
from nextscene.judge.api.batch_gatherer import MAX_BYTES, MAX_REQUESTS, BatchGatherer, BatchQuestion
from nextscene.judge.api.batch_record import BatchRecord
from nextscene.judge.api.batch_results import BatchNeverCreated, MissingFromBatch, UnreadableResult
from nextscene.judge.api.errors import ApiError, Kind
from nextscene.judge.api.request import Request
from nextscene.judge.api.shared_errors import SharedErrors
from nextscene.judge.api.shutdown import ShutdownSignal
from nextscene.judge.errors import JUDGE_ERROR, JudgeStopped, RequestFailed
from nextscene.judge.spending.answer_cache import AnswerCache
from nextscene.judge.spending.answer_segments import AnswerFiles
from nextscene.judge.spending.budget import Budget
from nextscene.judge.spending.call_journal import Pending
from nextscene.judge.spending.prices import Price

_MAX_SUBMISSIONS = 3
_MAX_CREATIONS = 8
_FIRST_LOOK_SECONDS = 5.0
_MAX_LOOK_SECONDS = 300.0
_log = logging.getLogger(__name__)


class Batches:
    """A sender of questions in batches, which returns their answers. For one event loop."""

    def __init__(
        self,
        api: anthropic.AsyncAnthropic,
        price: Price,
        budget: Budget,
        cache: AnswerCache,
        files: AnswerFiles,
        retry_policy: RetryPolicy,
        outage: OutageDetector,
        shared_errors: SharedErrors,
        shutdown: ShutdownSignal,
        max_requests: int = MAX_REQUESTS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._shared_errors = shared_errors
        self._api = BatchApi(api, price, outage, shared_errors, shutdown)
        self._gatherer = BatchGatherer(price, budget, shutdown, retry_policy.quiet_seconds, max_requests, max_bytes)
        self._budget = budget
        self._cache = cache
        self._files = files
        self._retry_policy = retry_policy
        self._shutdown = shutdown
        shutdown.add_listener(self._fail_all)
        self._tasks: set[asyncio.Task[None]] = set()
        # An exception is set as a result: a future whose exception is never retrieved would log an error.
        self._results: dict[str, asyncio.Future[Answer | Exception]] = {}
        self._creating: set[str] = set()
        self.open: dict[str, BatchRecord] = {}
        self._unlisted: dict[str, BatchRecord] = {}

    def resume(self, batches: Iterable[BatchRecord]) -> None:
        """Collect the batches that earlier runs left open."""
        for batch in batches:
            self.open[batch.name] = batch
            self._create_futures(batch.questions)
            self._start(self._finish(batch))

    def contains(self, key: str) -> bool:
        """Return whether the question is in a batch."""
        return key in self._results

    async def result(self, key: str) -> Answer:
        """Return the answer to a question in a batch.

        Raise MissingFromBatch, RequestFailed, JudgeUsageError or JudgeStopped.
        """
        found = await asyncio.shield(self._results[key])
        if isinstance(found, Exception):
            raise found
        return found

    async def ask(self, request: Request, clip_id: str) -> Answer:
        """Return the answer, which is stored by then. Raise RequestFailed, JudgeUsageError or JudgeStopped."""
        misses: list[MissingFromBatch] = []
        while (
            len(misses) < _MAX_CREATIONS
            and sum(not isinstance(miss, BatchNeverCreated) for miss in misses) < _MAX_SUBMISSIONS
        ):
            self._shutdown.check()
            if not self.contains(request.key):
                self._enqueue(BatchQuestion(request, clip_id))
            try:
                return await self.result(request.key)
            except MissingFromBatch as miss:
                misses.append(miss)
        raise RequestFailed(JUDGE_ERROR, f"in {len(misses)} batches without an answer; last: {misses[-1]}")

    @property
    def unlisted(self) -> set[str]:
        """The keys of questions in batches that may exist although the API does not list them."""
        return {key for batch in self._unlisted.values() for key in batch.questions}

    def unlisted_error(self) -> JudgeStopped:
        """Return the error that ends a run which waits only for unlisted batches."""
        latest = max(map(self._appears_until, self._unlisted.values()))
        return JudgeStopped(
            f"{len(self.unlisted):,} questions may be in a batch whose creation broke off, and which the API does not"
            " list yet; the same command looks for it again, and asks the questions again after"
            f" {datetime.fromtimestamp(latest, UTC):%Y-%m-%d %H:%M} UTC (see limits.batch_appear_hours)"
        )

    async def until_created(self, seconds: float) -> None:
        """Return once no batch is being created, after `seconds` at the latest."""
        deadline = time.monotonic() + seconds
        while self._creating and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    # ---- the life of a batch -----------------------------------------------------------------------------------

    def _enqueue(self, question: BatchQuestion) -> None:
        self._create_futures([question.request.key])
        if self._gatherer.add(question):
            self._start(self._gatherer.run(lambda questions, worsts: self._start(self._submit(questions, worsts))))

    def _create_futures(self, keys: Iterable[str]) -> None:
        loop = asyncio.get_running_loop()
        for key in keys:
            self._results.setdefault(key, loop.create_future())

    async def _submit(self, questions: list[BatchQuestion], worsts: list[Decimal]) -> None:
        clips = {question.request.key: question.clip_id for question in questions}
        aliases = {question.request.key: question.request.alias for question in questions if question.request.alias}
        batch = BatchRecord(
            uuid.uuid4().hex, time.time(), sum(worsts, Decimal(0)), clips, aliases=aliases, dearest=max(worsts)
        )
        self.open[batch.name] = batch
        await asyncio.to_thread(batch.write, self._files)
        self._creating.add(batch.name)
        try:
            batch_id = await self._api.create(batch, [question.request for question in questions])
            batch = await self._record_id(batch, batch_id)
        except CreationFailed as refusal:
            await self._discard(batch)
            raise refusal.reason from refusal
        except CreationUncertain as doubt:
            _log.warning("a batch of %s questions may have been created: %s", f"{len(questions):,}", doubt)
        finally:
            self._creating.discard(batch.name)
        await self._finish(batch)

    async def _finish(self, batch: BatchRecord) -> None:
        if not batch.batch_id:
            batch_id = await self._locate(batch)
            if not batch_id:
                await self._discard(batch)
                return
            batch = await self._record_id(batch, batch_id)
        await self._collect(batch)

    async def _locate(self, batch: BatchRecord) -> str:
        """Return the id of a batch that may have been created, once it is listed; "" once it can no longer appear."""
        pause = _FIRST_LOOK_SECONDS
        self._budget.hold(batch.worst)
        try:
            while True:
                left = self._appears_until(batch) - time.time()
                batch_id, at_work = await self._api.locate(batch, self._known_ids)
                if batch_id or (left <= 0 and not at_work):
                    return batch_id
                if at_work:
                    self._unlisted.pop(batch.name, None)
                else:
                    self._unlisted[batch.name] = batch
                await self._shutdown.sleep(pause if at_work else min(pause, left))
                pause = min(2 * pause, _MAX_LOOK_SECONDS)
        finally:
            self._unlisted.pop(batch.name, None)
            self._budget.release_hold(batch.worst)

    def _appears_until(self, batch: BatchRecord) -> float:
        """Return until when a batch may appear in the list, in seconds since 1970."""
        return batch.planned_at + 3600 * self._retry_policy.batch_appear_hours

    @property
    def _known_ids(self) -> set[str]:
        return {batch.batch_id for batch in self.open.values()}

    async def _record_id(self, batch: BatchRecord, batch_id: str) -> BatchRecord:
        batch = replace(batch, batch_id=batch_id)
        self.open[batch.name] = batch
        await asyncio.to_thread(batch.write, self._files)
        return batch

    async def _collect(self, batch: BatchRecord) -> None:
        """Store the answers, then delete the record, then deliver them."""
        await self._api.until_ended(batch.batch_id, batch.path)
        results = {key: _with_clip(batch, key, result) for key, result in (await self._api.results(batch)).items()}
        answers = [result for result in results.values() if isinstance(result, Answer)]
        self._cache.add_new(answers)
        await self._cache.store()
        lost = {
            f"{batch.name[:8]}-{key[:8]}": Pending(key, batch.dearest or batch.worst)
            for key, result in results.items()
            if isinstance(result, UnreadableResult)
        }
        self._budget.settle_batch(batch.worst, answers, lost)
        await self._budget.write()
        await asyncio.to_thread(self._files.delete, batch.path)
        if not answers:
            await self._check_shared(results)
        self._deliver(batch, results)
        for result in results.values():
            if isinstance(result, JudgeStopped):
                raise result

    async def _check_shared(self, results: Mapping[str, Answer | Exception]) -> None:
        """Raise JudgeStopped if many questions in a row got no answer."""
        for key, result in results.items():
            if isinstance(result, MissingFromBatch):
                kind: Kind = "unreadable" if isinstance(result, UnreadableResult) else "server"
                await self._shared_errors.check(ApiError(kind, str(result)), key)

    async def _discard(self, batch: BatchRecord) -> None:
        """Delete the record of a batch that was not created."""
        await asyncio.to_thread(self._files.delete, batch.path)
        self._budget.release_batch(batch.worst)
        self._deliver(batch, dict.fromkeys(batch.questions, BatchNeverCreated("it was not created")))

    def _deliver(self, batch: BatchRecord, results: dict[str, Answer | Exception]) -> None:
        del self.open[batch.name]
        for key in batch.questions:
            expected = self._results.pop(key, None)  # merged datasets may have the question in two batches
            if expected and not expected.done():
                expected.set_result(results.get(key) or MissingFromBatch("the batch holds no result for it"))

    # ---- tasks -------------------------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._shutdown.trigger(error)

    def _fail_all(self, reason: Exception) -> None:
        """End all waiting calls with the reason. Open batches stay on record, for another run to collect."""
        for result in self._results.values():
            if not result.done():
                result.set_result(reason)


def _with_clip(batch: BatchRecord, key: str, result: Answer | Exception) -> Answer | Exception:
    """Return an answer with its clip and alias; any other result as it is."""
    if not isinstance(result, Answer):
        return result
    return replace(result, clip_id=batch.questions[key], alias=batch.aliases.get(key, ""))
