"""Message batches: half the price, answers within a day.

A batch is written down before it is created, with the questions it holds; its id is added after. What is cut off
between the two is looked for in the account's list of batches, for as long as it may still appear there, so no batch is
created twice. It stands as open until its answers are stored and its cost is in the account.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import anthropic

from nextscene.judge.api.answer import Answer
from nextscene.judge.api.backoff import OutageDetector, RetryPolicy
from nextscene.judge.api.batch_api import BatchApi, MayAppear, NotCreated
from nextscene.judge.api.batch_record import BatchRecord
from nextscene.judge.api.batch_results import MissingFromBatch, NeverCreated, UnreadableResult
from nextscene.judge.api.client import worst_cost
from nextscene.judge.api.errors import ApiError, Kind
from nextscene.judge.api.request import Request
from nextscene.judge.api.shared_errors import SharedErrors
from nextscene.judge.api.shutdown import ShutdownSignal
from nextscene.judge.errors import JUDGE_ERROR, JudgeStopped, RequestFailed
from nextscene.judge.spending.answer_cache import AnswerCache
from nextscene.judge.spending.budget import Budget
from nextscene.judge.spending.journal import Pending
from nextscene.judge.spending.prices import Price
from nextscene.judge.spending.segments import AnswerFiles

# The API takes 100,000 requests and 256 MB; less is lost where less is sent at once.
MOST_REQUESTS = 10_000
MOST_BYTES = 64 << 20
_BYTES_AROUND_A_REQUEST = 100
_SUBMISSIONS = 3
_CREATIONS = 8
_FIRST_LOOK_SECONDS = 5.0
_LONGEST_LOOK_SECONDS = 300.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Question:
    request: Request
    clip_id: str


class Batches:
    """Gathers questions into batches and hands out their answers. For one event loop."""

    def __init__(
        self,
        api: anthropic.AsyncAnthropic,
        price: Price,
        budget: Budget,
        cache: AnswerCache,
        files: AnswerFiles,
        patience: RetryPolicy,
        outage: OutageDetector,
        common_faults: SharedErrors,
        gate: ShutdownSignal,
        most_requests: int = MOST_REQUESTS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._common_faults = common_faults
        self._api = BatchApi(api, price, outage, common_faults, gate)
        self._price = price
        self._budget = budget
        self._cache = cache
        self._files = files
        self._patience = patience
        self._gate = gate
        gate.on_close(self._tell_all)
        self._most_requests = most_requests
        self._most_bytes = most_bytes
        self._gathered: dict[str, _Question] = {}
        self._joined_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._gathering = False
        # A result is an answer, or why there is none. Exceptions are results here since nobody may ask for them.
        self._results: dict[str, asyncio.Future[Answer | Exception]] = {}
        self._creating: set[str] = set()
        self.open: dict[str, BatchRecord] = {}
        self._missing: dict[str, BatchRecord] = {}

    def take_up(self, batches: Iterable[BatchRecord]) -> None:
        """Goes on with the batches that earlier runs left open."""
        for batch in batches:
            self.open[batch.name] = batch
            self._expect(batch.questions)
            self._start(self._go_on(batch))

    def holds(self, key: str) -> bool:
        """Whether the question is in a batch already."""
        return key in self._results

    async def result(self, key: str) -> Answer:
        """The answer to a question in a batch. Raises MissingFromBatch, RequestFailed, JudgeUsageError or
        JudgeStopped.
        """
        found = await asyncio.shield(self._results[key])
        if isinstance(found, Exception):
            raise found
        return found

    async def ask(self, request: Request, clip_id: str) -> Answer:
        """The answer, stored. Raises RequestFailed, JudgeUsageError or JudgeStopped."""
        fates: list[MissingFromBatch] = []
        while len(fates) < _CREATIONS and sum(not isinstance(fate, NeverCreated) for fate in fates) < _SUBMISSIONS:
            self._gate.check()
            if not self.holds(request.key):
                self._join(_Question(request, clip_id))
            try:
                return await self.result(request.key)
            except MissingFromBatch as fate:
                fates.append(fate)
        raise RequestFailed(JUDGE_ERROR, f"in {len(fates)} batches without an answer; last: {fates[-1]}")

    @property
    def missing(self) -> set[str]:
        """The questions of batches that may exist, although the API does not list them."""
        return {key for batch in self._missing.values() for key in batch.questions}

    def come_back(self) -> JudgeStopped:
        """What ends a run that has nothing else to ask than what is missing."""
        latest = max(map(self._appears_until, self._missing.values()))
        return JudgeStopped(
            f"{len(self.missing):,} questions may be in a batch whose creation broke off, and which the API does not"
            " list yet; the same command looks for it again, and asks them anew after"
            f" {datetime.fromtimestamp(latest, UTC):%Y-%m-%d %H:%M} UTC (see --limits.batch-appear-hours)"
        )

    async def until_created(self, seconds: float) -> None:
        """Return once no creation is under way, or so many seconds have gone by."""
        deadline = time.monotonic() + seconds
        while self._creating and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    # ---- gathering ---------------------------------------------------------------------------------------------

    def _join(self, question: _Question) -> None:
        self._expect([question.request.key])
        self._gathered[question.request.key] = question
        self._joined_at = time.monotonic()
        if not self._gathering:
            self._gathering = True
            self._start(self._gather())

    def _expect(self, keys: Iterable[str]) -> None:
        loop = asyncio.get_running_loop()
        for key in keys:
            self._results.setdefault(key, loop.create_future())

    async def _gather(self) -> None:
        while self._gathered:
            quiet = time.monotonic() - self._joined_at
            if len(self._gathered) < self._most_requests and quiet < self._patience.quiet_seconds:
                await self._gate.sleep(min(0.2, self._patience.quiet_seconds - quiet))
                continue
            questions = self._fill()
            worsts = [worst_cost(self._price, question.request, in_batch=True) for question in questions]
            count = await self._budget.reserve_most(worsts)
            for question in questions[:count]:
                del self._gathered[question.request.key]
            self._start(self._submit(questions[:count], worsts[:count]))
        self._gathering = False

    def _fill(self) -> list[_Question]:
        """As many of those that wait as one batch takes."""
        questions: list[_Question] = []
        size = 0
        for question in self._gathered.values():
            size += question.request.bytes + _BYTES_AROUND_A_REQUEST
            if questions and (size > self._most_bytes or len(questions) == self._most_requests):
                break
            questions.append(question)
        return questions

    # ---- the life of a batch -----------------------------------------------------------------------------------

    async def _submit(self, questions: list[_Question], worsts: list[Decimal]) -> None:
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
            batch = await self._known_as(batch, batch_id)
        except NotCreated as refusal:
            await self._forget(batch)
            raise refusal.reason from refusal
        except MayAppear as doubt:
            _log.warning("a batch of %s questions may have been created: %s", f"{len(questions):,}", doubt)
        finally:
            self._creating.discard(batch.name)
        await self._go_on(batch)

    async def _go_on(self, batch: BatchRecord) -> None:
        if not batch.batch_id:
            batch_id = await self._look_for(batch)
            if not batch_id:
                await self._forget(batch)
                return
            batch = await self._known_as(batch, batch_id)
        await self._collect(batch)

    async def _look_for(self, batch: BatchRecord) -> str:
        """The id of a batch that may have been created, once it is listed; "" when it cannot appear any more."""
        pause = _FIRST_LOOK_SECONDS
        self._budget.hold(batch.worst)
        try:
            while True:
                left = self._appears_until(batch) - time.time()
                batch_id, at_work = await self._api.locate(batch, self._known)
                if batch_id or (left <= 0 and not at_work):
                    return batch_id
                if at_work:
                    self._missing.pop(batch.name, None)
                else:
                    self._missing[batch.name] = batch
                await self._gate.sleep(pause if at_work else min(pause, left))
                pause = min(2 * pause, _LONGEST_LOOK_SECONDS)
        finally:
            self._missing.pop(batch.name, None)
            self._budget.unhold(batch.worst)

    def _appears_until(self, batch: BatchRecord) -> float:
        """In seconds since 1970."""
        return batch.planned_at + 3600 * self._patience.batch_appear_hours

    @property
    def _known(self) -> set[str]:
        return {batch.batch_id for batch in self.open.values()}

    async def _known_as(self, batch: BatchRecord, batch_id: str) -> BatchRecord:
        batch = replace(batch, batch_id=batch_id)
        self.open[batch.name] = batch
        await asyncio.to_thread(batch.write, self._files)
        return batch

    async def _collect(self, batch: BatchRecord) -> None:
        """Store the answers, then forget the batch, then hand them out."""
        await self._api.until_ended(batch.batch_id, batch.path)
        results = {key: _named(batch, key, result) for key, result in (await self._api.results(batch)).items()}
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
            await self._check_common(results)
        self._hand_out(batch, results)
        for result in results.values():
            if isinstance(result, JudgeStopped):
                raise result

    async def _check_common(self, results: Mapping[str, Answer | Exception]) -> None:
        """Raise JudgeStopped where none of many could be answered."""
        for key, result in results.items():
            if isinstance(result, MissingFromBatch):
                kind: Kind = "unreadable" if isinstance(result, UnreadableResult) else "server"
                await self._common_faults.check(ApiError(kind, str(result)), key)

    async def _forget(self, batch: BatchRecord) -> None:
        """It was never created."""
        await asyncio.to_thread(self._files.delete, batch.path)
        self._budget.release_batch(batch.worst)
        self._hand_out(batch, dict.fromkeys(batch.questions, NeverCreated("it was not created")))

    def _hand_out(self, batch: BatchRecord, results: dict[str, Answer | Exception]) -> None:
        del self.open[batch.name]
        for key in batch.questions:
            expected = self._results.pop(key, None)  # it may stand in two batches, of OUTs that were put together
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
            self._gate.close(error)

    def _tell_all(self, reason: Exception) -> None:
        """Nobody waits any longer. What is open stays open, for another run to collect."""
        for result in self._results.values():
            if not result.done():
                result.set_result(reason)


def _named(batch: BatchRecord, key: str, result: Answer | Exception) -> Answer | Exception:
    """Say for whom an answer was bought."""
    if not isinstance(result, Answer):
        return result
    return replace(result, clip_id=batch.questions[key], alias=batch.aliases.get(key, ""))
