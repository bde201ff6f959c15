"""Message batches: half the price, answers within a day.

A batch is written down before it is created, with the questions it holds; its id is added after. What is cut off
between the two is looked for in the account's list of batches, so no batch is created twice. It stands as open until
its answers are stored and its cost is in the account.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import anthropic

from judge.answer import Answer
from judge.answer_cache import AnswerCache
from judge.batch_api import BatchApi, NotCreated, NotInBatch, Unreadable
from judge.budget import Budget
from judge.client import worst_cost
from judge.errors import JUDGE_ERROR, JudgeStopped, Unanswered
from judge.gate import Gate
from judge.open_batch import OpenBatch
from judge.patience import Outage, Patience
from judge.prices import Price
from judge.request import Request
from judge.segments import Files

# The API takes 100,000 requests and 256 MB; less is lost where less is sent at once.
MOST_REQUESTS = 10_000
MOST_BYTES = 64 << 20
_BYTES_AROUND_A_REQUEST = 100
_SUBMISSIONS = 3


@dataclass(frozen=True)
class _Question:
    request: Request
    clip_id: str


class Batches:
    """Gathers questions into batches and hands out their answers. For one event loop."""

    def __init__(
        self, api: anthropic.AsyncAnthropic, price: Price, budget: Budget, cache: AnswerCache, files: Files,
        patience: Patience, outage: Outage, gate: Gate,
        most_requests: int = MOST_REQUESTS, most_bytes: int = MOST_BYTES,
    ) -> None:  # fmt: skip
        self._api = BatchApi(api, price, outage, gate)
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
        self.open: dict[str, OpenBatch] = {}

    def take_up(self, batches: Iterable[OpenBatch]) -> None:
        """Goes on with the batches that earlier runs left open."""
        for batch in batches:
            self.open[batch.name] = batch
            self._expect(batch.questions)
            self._start(self._go_on(batch))

    def holds(self, key: str) -> bool:
        """Whether the question is in a batch already."""
        return key in self._results

    async def result(self, key: str) -> Answer:
        """The answer to a question in a batch. Raises NotInBatch, Unanswered, JudgeMistake or JudgeStopped."""
        found = await asyncio.shield(self._results[key])
        if isinstance(found, Exception):
            raise found
        return found

    async def ask(self, request: Request, clip_id: str) -> Answer:
        """The answer, stored. Raises Unanswered, JudgeMistake or JudgeStopped."""
        last = ""
        for _ in range(_SUBMISSIONS):
            self._gate.check()
            if not self.holds(request.key):
                self._join(_Question(request, clip_id))
            try:
                return await self.result(request.key)
            except NotInBatch as fate:
                last = str(fate)
        raise Unanswered(JUDGE_ERROR, f"in {_SUBMISSIONS} batches without an answer; last: {last}")

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
            self._start(self._submit(questions[:count], sum(worsts[:count], Decimal(0))))
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

    async def _submit(self, questions: list[_Question], worst: Decimal) -> None:
        clips = {question.request.key: question.clip_id for question in questions}
        aliases = {question.request.key: question.request.alias for question in questions if question.request.alias}
        batch = OpenBatch(uuid.uuid4().hex, time.time(), worst, clips, aliases=aliases)
        self.open[batch.name] = batch
        await asyncio.to_thread(batch.write, self._files)
        try:
            batch_id = await self._api.create(batch, [question.request for question in questions], self._known)
        except NotCreated as refusal:
            await self._forget(batch)
            raise refusal.reason from refusal
        await self._collect(await self._known_as(batch, batch_id))

    async def _go_on(self, batch: OpenBatch) -> None:
        if not batch.batch_id:
            batch_id = await self._api.locate(batch, self._known)
            if not batch_id:
                await self._forget(batch)
                return
            batch = await self._known_as(batch, batch_id)
        await self._collect(batch)

    @property
    def _known(self) -> set[str]:
        return {batch.batch_id for batch in self.open.values()}

    async def _known_as(self, batch: OpenBatch, batch_id: str) -> OpenBatch:
        batch = replace(batch, batch_id=batch_id)
        self.open[batch.name] = batch
        await asyncio.to_thread(batch.write, self._files)
        return batch

    async def _collect(self, batch: OpenBatch) -> None:
        """Store the answers, then forget the batch, then hand them out."""
        await self._api.until_ended(batch.batch_id, batch.path)
        results = {key: _named(batch, key, result) for key, result in (await self._api.results(batch)).items()}
        answers = [result for result in results.values() if isinstance(result, Answer)]
        self._cache.add_new(answers)
        await self._cache.store()
        unreadable = sum(isinstance(result, Unreadable) for result in results.values())
        self._budget.settle_batch(batch.worst, answers, lost=batch.worst * unreadable / len(results))
        await self._budget.write()
        await asyncio.to_thread(self._files.delete, batch.path)
        self._hand_out(batch, results)
        for result in results.values():
            if isinstance(result, JudgeStopped):
                raise result

    async def _forget(self, batch: OpenBatch) -> None:
        """It was never created."""
        await asyncio.to_thread(self._files.delete, batch.path)
        self._budget.release_batch(batch.worst)
        self._hand_out(batch, {})

    def _hand_out(self, batch: OpenBatch, results: dict[str, Answer | Exception]) -> None:
        del self.open[batch.name]
        for key in batch.questions:
            expected = self._results.pop(key)
            if not expected.done():
                expected.set_result(results.get(key) or NotInBatch("the batch holds no result for it"))

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


def _named(batch: OpenBatch, key: str, result: Answer | Exception) -> Answer | Exception:
    """Say for whom an answer was bought."""
    if not isinstance(result, Answer):
        return result
    return replace(result, clip_id=batch.questions[key], alias=batch.aliases.get(key, ""))
