"""What is asked of the Message Batches API, each thing until it is answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import anthropic
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

from judge.answer import Answer, NoAnswer
from judge.client import redacted
from judge.errors import JudgeMistake, JudgeStopped, Unanswered
from judge.faults import Fault, read_fault, sort, status_of
from judge.gate import Gate
from judge.open_batch import OpenBatch
from judge.patience import Outage, backoff
from judge.prices import Price
from judge.request import Request
from judge.text import evidence

T = TypeVar("T")

_UPLOAD_SECONDS = 600.0
_FIRST_POLL_SECONDS = 1.0
_LONGEST_POLL_SECONDS = 60.0
_SECOND_LOOK_SECONDS = 5.0
# How far the server's clock may be from ours.
_CLOCKS_APART = timedelta(hours=1)


class NotInBatch(Exception):
    """The batch has ended without an answer to this question, which may be asked again."""


class Unreadable(NotInBatch):
    """There was an answer, charged for, that nobody can read."""


class NotCreated(Exception):
    """The batch surely was not created; `reason` is what ends the run."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class BatchApi:
    """Raises JudgeMistake or JudgeStopped from all of its methods."""

    def __init__(self, api: anthropic.AsyncAnthropic, price: Price, outage: Outage, gate: Gate) -> None:
        self._api = api
        self._price = price
        self._outage = outage
        self._gate = gate

    async def create(self, batch: OpenBatch, requests: list[Request], known: Collection[str]) -> str:
        """The new batch's id. What may or may not have been created is looked for before it is tried again.

        `known` are ids of other batches. Raises NotCreated too.
        """
        items: Any = [{"custom_id": request.key, "params": request.body} for request in requests]
        tries, outage = 0, self._outage.apart()
        while True:
            tries += 1
            self._gate.check()
            try:
                made = await self._api.messages.batches.create(requests=items, timeout=_UPLOAD_SECONDS)
                self._outage.answered()
                return made.id
            except Exception as error:  # noqa: BLE001
                fault = read_fault(error, redacted)
            # Not in the except block: what is raised here must not lead to the SDK's error, which may quote the key.
            try:
                outage.met(fault)
                self._met(fault, f"the API does not take a batch of {len(requests):,} questions; ask without --batches")
            except (JudgeMistake, JudgeStopped) as end:
                if fault.kind in ("mistake", "stop", "item"):
                    raise NotCreated(end) from end
                raise
            if fault.kind in ("lost", "server") and (found := await self.locate(batch, known)):
                return found
            await self._gate.sleep(max(fault.retry_after, backoff(tries)))

    async def locate(self, batch: OpenBatch, known: Collection[str]) -> str:
        """The id under which the account lists this batch, "" if it does not. Looks twice, some seconds apart."""
        for look in (1, 2):
            for candidate in await self._patiently(lambda: self._candidates(batch, known)):
                if await self._ended(candidate) is None:
                    continue  # not a batch of these days: what it held can be read no more
                if await self._patiently(lambda at=candidate: self._is_ours(batch, at)):  # type: ignore[misc]
                    return candidate
            if look == 1:
                await self._gate.sleep(_SECOND_LOOK_SECONDS)
        return ""

    async def _candidates(self, batch: OpenBatch, known: Collection[str]) -> list[str]:
        """The ids of batches of this size from about this time. What is in them shows once they have ended."""
        planned = datetime.fromtimestamp(batch.planned_at, UTC)
        earliest, latest = planned - _CLOCKS_APART, planned + _CLOCKS_APART + timedelta(seconds=_UPLOAD_SECONDS)
        found = []
        async for listed in self._api.messages.batches.list(limit=100):
            if listed.created_at < earliest:
                break
            if listed.created_at <= latest and listed.id not in known and _size(listed) == len(batch.questions):
                found.append(listed.id)
        return found

    async def _is_ours(self, batch: OpenBatch, batch_id: str) -> bool:
        # One question alone proves nothing: an earlier batch may have ended without an answer to it.
        held = {
            entry.custom_id async for entry in self._entries(batch_id) if entry and isinstance(entry.custom_id, str)
        }
        return held == batch.questions.keys()

    async def until_ended(self, batch_id: str, record: str) -> None:
        """Returns once the batch has ended, and its results can be read. `record` is our own file about it."""
        if await self._ended(batch_id) is None:
            raise JudgeStopped(
                f"the batch {batch_id} cannot be collected: this account does not know it, or the API keeps its results"
                f" no longer; use the key of the workspace that made it, or delete {record} to ask its questions again"
            )

    async def _ended(self, batch_id: str) -> MessageBatch | None:
        """The batch once it has ended; None if it, or what it held, is not there any more."""
        pause = _FIRST_POLL_SECONDS
        while True:
            batch = await self._patiently(lambda: self._retrieve(batch_id))
            if batch is None or batch.processing_status == "ended":
                return batch if batch and batch.results_url else None
            await self._gate.sleep(pause)
            pause = min(_LONGEST_POLL_SECONDS, 1.5 * pause)

    async def _retrieve(self, batch_id: str) -> MessageBatch | None:
        try:
            return await self._api.messages.batches.retrieve(batch_id)
        except anthropic.NotFoundError:
            return None

    async def results(self, batch: OpenBatch) -> dict[str, Answer | Exception]:
        """Key → answer, or why there is none: NotInBatch, Unanswered, or what ends the run."""
        return await self._patiently(lambda: self._read(batch))

    async def _read(self, batch: OpenBatch) -> dict[str, Answer | Exception]:
        results: dict[str, Answer | Exception] = {}
        unreadable = 0
        async for entry in self._entries(batch.batch_id):
            if entry is None or not isinstance(entry.custom_id, str):
                unreadable += 1
            elif entry.custom_id in batch.questions:
                results[entry.custom_id] = self._of(entry, batch.batch_id)
        missing = batch.questions.keys() - results.keys()
        if len(missing) > unreadable:
            raise NoAnswer(f"the results of batch {batch.batch_id} end {len(missing):,} too early")
        return results | {key: Unreadable("a line of the batch's results cannot be read") for key in missing}

    async def _entries(self, batch_id: str) -> AsyncIterator[MessageBatchIndividualResponse | None]:
        """The lines of a batch's results; None for one that is no result, at which the SDK's own reader would end."""
        async with self._api.messages.batches.with_streaming_response.results(batch_id) as response:
            last = ""
            async for line in response.iter_lines():
                if last:
                    yield _entry(last)
                last = line
            if last and (entry := _entry(last)):  # else it may have broken off
                yield entry

    def _of(self, entry: MessageBatchIndividualResponse, batch_id: str) -> Answer | Exception:
        """Whatever stands there is the one question's own end. The SDK checks no types."""
        try:
            return self._result(entry, batch_id)
        except (ValueError, TypeError, AttributeError, RecursionError) as mistake:
            return Unreadable(evidence(str(mistake)))

    def _result(self, entry: MessageBatchIndividualResponse, batch_id: str) -> Answer | Exception:
        result = entry.result
        if result.type == "succeeded":
            return Answer.of(entry.custom_id, result.message.to_dict(), self._price, batch_id=batch_id)
        if result.type == "errored":
            why = result.error.error
            fault = sort(status_of(why.type), "", redacted(why.message))
            if fault.kind in ("mistake", "stop"):
                return JudgeStopped(fault.said)
            return Unanswered(fault.reason, fault.said) if fault.kind == "item" else NotInBatch(fault.said)
        return NotInBatch(result.type)

    async def _patiently(self, action: Callable[[], Awaitable[T]]) -> T:
        """What only reads may be done again and again."""
        tries = 0
        while True:
            tries += 1
            try:
                found = await action()
                self._outage.answered()
                return found
            except Exception as error:  # noqa: BLE001
                fault = read_fault(error, redacted)
            self._met(fault, "the batches of this account cannot be read")
            await self._gate.sleep(max(fault.retry_after, backoff(tries)))

    def _met(self, fault: Fault, what: str) -> None:
        self._outage.met(fault)
        if fault.kind == "item":
            raise JudgeStopped(f"{what}: {fault.said}")


def _entry(line: str) -> MessageBatchIndividualResponse | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    # As the SDK makes it; it checks no types.
    return (
        MessageBatchIndividualResponse.construct(**value) if isinstance(value, dict) and "custom_id" in value else None
    )


def _size(batch: MessageBatch) -> int:
    counts = batch.request_counts
    return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
