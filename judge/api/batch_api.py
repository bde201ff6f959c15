"""Calls to the Message Batches API, each retried until it is answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import anthropic
import httpx2
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

from nextscene.judge.api.answer import Answer, InvalidResponse, NotFromModel
from nextscene.judge.api.api_key import redact
from nextscene.judge.api.backoff import OutageDetector, backoff
from nextscene.judge.api.batch_record import BatchRecord
from nextscene.judge.api.batch_results import Result, TruncatedResults, entry_of, read_results, unread
from nextscene.judge.api.client import read_message
from nextscene.judge.api.errors import ApiError, classify_exception
from nextscene.judge.api.request import Request
from nextscene.judge.api.shared_errors import SharedErrors
from nextscene.judge.api.shutdown import ShutdownSignal
from nextscene.judge.errors import JudgeStopped, RequestFailed
from nextscene.judge.spending.prices import Price

T = TypeVar("T")

_UPLOAD_SECONDS = 600.0
_FIRST_POLL_SECONDS = 1.0
_LONGEST_POLL_SECONDS = 60.0
_MAX_NOT_FOUND = 3
"""A batch that is unknown this many times in a row does not exist."""
_READINGS = 5
_STATES = ("in_progress", "canceling", "ended")
# The largest difference between the clock of the server and ours.
_CLOCKS_APART = timedelta(hours=1)


class CreationUncertain(Exception):
    """It is unknown whether the batch was created. It may be listed later."""


class CreationFailed(Exception):
    """The batch was certainly not created; `reason` is what ends the run."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class BatchApi:
    """The Message Batches API. All methods raise JudgeUsageError or JudgeStopped."""

    def __init__(
        self,
        api: anthropic.AsyncAnthropic,
        price: Price,
        outage: OutageDetector,
        shared_errors: SharedErrors,
        shutdown: ShutdownSignal,
    ) -> None:
        self._api = api
        self._price = price
        self._outage = outage
        self._shared_errors = shared_errors
        self._shutdown = shutdown
        self._short: Counter[frozenset[str]] = Counter()

    async def create(self, batch: BatchRecord, requests: list[Request]) -> str:
        """Return the id of the new batch. Retry if it was certainly not created.

        Raise CreationFailed or CreationUncertain, and nothing else.
        """
        items: Any = [{"custom_id": request.key, "params": request.body} for request in requests]
        tries, outage = 0, self._outage.child()
        while True:
            tries += 1
            try:
                self._shutdown.check()
            except Exception as end:
                raise CreationFailed(end) from end
            try:
                made = await self._api.messages.batches.with_raw_response.create(
                    requests=items, timeout=_UPLOAD_SECONDS
                )
                batch_id = _id(made.http_response)
                self._outage.record_success()
                return batch_id
            except Exception as error:  # noqa: BLE001
                fault = classify_exception(error, redact)
            # Not in the except block: the exception must not be chained to the SDK's error, which may quote the key.
            if fault.may_be_done:
                raise CreationUncertain(fault.message)
            try:
                if fault.kind == "denied":
                    await self._shared_errors.check(fault, batch.name)
                outage.record_error(fault)
                self._record_error(
                    fault, f"the API does not take a batch of {len(requests):,} questions; ask without batches"
                )
                await self._shutdown.sleep(max(fault.retry_after, backoff(tries)))
            except Exception as end:
                raise CreationFailed(end) from end

    async def locate(self, batch: BatchRecord, known: Collection[str]) -> tuple[str, bool]:
        """Return the id under which the account lists this batch, "" if it does not.

        Return too whether a batch that is still being processed may be this one: its content is visible once it has
        ended. `known` are the ids of other batches.
        """
        at_work = False
        for candidate in await self._retry_read(lambda: self._candidates(batch, known)):
            if candidate.processing_status != "ended":
                at_work = True
            elif candidate.results_url:
                is_ours = await self._retry_read(partial(self._has_our_questions, batch, candidate.id))
                if is_ours:
                    return candidate.id, False
        return "", at_work

    async def _candidates(self, batch: BatchRecord, known: Collection[str]) -> list[MessageBatch]:
        """Return the batches of this size that were created since this one was planned."""
        earliest = datetime.fromtimestamp(batch.planned_at, UTC) - _CLOCKS_APART
        found = []
        async for listed in self._api.messages.batches.list(limit=100):
            if listed.created_at < earliest:
                break
            if listed.id not in known and _size(listed) == len(batch.questions):
                found.append(listed)
        return found

    async def _has_our_questions(self, batch: BatchRecord, batch_id: str) -> bool:
        # A single question proves nothing: an earlier batch may have ended without an answer to it.
        held = {
            entry.custom_id async for entry in self._entries(batch_id) if entry and isinstance(entry.custom_id, str)
        }
        return held == batch.questions.keys()

    async def until_ended(self, batch_id: str, record: str) -> None:
        """Return once the batch has ended and its results can be read. `record` is the path of our record of it."""
        if await self._ended(batch_id) is None:
            raise JudgeStopped(
                f"the batch {batch_id} cannot be collected: this account does not know it, or the API keeps its results"
                f" no longer; use the key of the workspace that made it, or delete {record} to ask its questions again"
            )

    async def _ended(self, batch_id: str) -> MessageBatch | None:
        """Return the batch once it has ended; None if it or its results no longer exist."""
        pause, gone = _FIRST_POLL_SECONDS, 0
        while True:
            batch = await self._retry_read(lambda: self._retrieve(batch_id))
            if batch and batch.processing_status == "ended":
                return batch if batch.results_url else None
            gone = 0 if batch else gone + 1
            if gone >= _MAX_NOT_FOUND:
                return None
            await self._shutdown.sleep(pause)
            pause = min(_LONGEST_POLL_SECONDS, 1.5 * pause)

    async def _retrieve(self, batch_id: str) -> MessageBatch | None:
        try:
            batch = await self._api.messages.batches.retrieve(batch_id)
        except anthropic.NotFoundError:
            return None
        if batch.id != batch_id or batch.processing_status not in _STATES:
            raise NotFromModel(f"what came for the batch {batch_id} is another thing")
        return batch

    async def results(self, batch: BatchRecord) -> dict[str, Answer | Exception]:
        """Return key → answer, or why there is none: MissingFromBatch, RequestFailed, or what ends the run."""
        read = await self._retry_read(lambda: self._read(batch))
        some_answered = any(isinstance(result, Answer) for result in read.values())
        faults = {key: result for key, result in read.items() if isinstance(result, ApiError)}
        ends = await asyncio.gather(*(self._end_of(fault, key, some_answered) for key, fault in faults.items()))
        return {key: result for key, result in read.items() if not isinstance(result, ApiError)} | dict(
            zip(faults, ends, strict=True)
        )

    async def _read(self, batch: BatchRecord) -> dict[str, Result]:
        """Return all results. A result that is missing in several reads does not exist."""
        try:
            return await read_results(self._entries(batch.batch_id), batch, self._price)
        except TruncatedResults as short:
            self._short[short.missing] += 1
            if self._short[short.missing] < _READINGS:
                raise
            return short.results | unread(short.missing)

    async def _end_of(self, fault: ApiError, key: str, some_answered: bool) -> Exception:
        """Return the exception for a question with an error in its place in the batch."""
        if fault.kind in ("mistake", "stop"):
            return JudgeStopped(fault.message)
        if some_answered:
            self._shared_errors.record_success()
        try:
            await self._shared_errors.check(fault, key)
        except JudgeStopped as end:
            return end
        return RequestFailed(fault.reason, fault.message)

    async def _entries(self, batch_id: str) -> AsyncIterator[MessageBatchIndividualResponse | None]:
        """Yield the results of a batch; None for an invalid line, at which the reader of the SDK would stop."""
        async with self._api.messages.batches.with_streaming_response.results(batch_id) as response:
            last = ""
            async for line in response.iter_lines():
                if last:
                    yield entry_of(last)
                last = line
            if last and (entry := entry_of(last)):  # else it may have broken off
                yield entry

    async def _retry_read(self, action: Callable[[], Awaitable[T]]) -> T:
        """Retry an operation that only reads until it succeeds."""
        tries = 0
        while True:
            tries += 1
            try:
                found = await action()
                self._outage.record_success()
                return found
            except Exception as error:  # noqa: BLE001
                # The SDK does not check types: an error within it means that the response is not from the API.
                stumbled = type(error) in (AttributeError, TypeError, anthropic.AnthropicError)
                odd = NotFromModel(f"what came back is nothing of the Claude API ({type(error).__name__})")
                fault = classify_exception(odd if stumbled else error, redact)
            self._record_error(fault, "the batches of this account cannot be read")
            await self._shutdown.sleep(max(fault.retry_after, backoff(tries)))

    def _record_error(self, fault: ApiError, what: str) -> None:
        self._outage.record_error(fault)
        if fault.kind in ("item", "denied"):
            raise JudgeStopped(f"{what}: {fault.message}")


def _id(created: httpx2.Response) -> str:
    """Return the id of the created batch. Raise NotFromModel or InvalidResponse if the response has none."""
    value = read_message(created)
    if not isinstance(value.get("id"), str):
        raise InvalidResponse("what came back has no batch's id")
    return str(value["id"])


def _size(batch: MessageBatch) -> int:
    counts = batch.request_counts
    return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
