"""What is asked of the Message Batches API, each thing until it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import anthropic
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

from judge.answer import Answer, NoAnswer
from judge.client import redacted
from judge.errors import JudgeMistake, JudgeStopped, Unanswered
from judge.faults import Fault, read_fault
from judge.open_batch import OpenBatch
from judge.patience import Outage, backoff
from judge.prices import Price
from judge.request import Request

T = TypeVar("T")

_UPLOAD_SECONDS = 600.0
_FIRST_POLL_SECONDS = 1.0
_LONGEST_POLL_SECONDS = 60.0
_SECOND_LOOK_SECONDS = 5.0
# How far the server's clock may be from ours.
_CLOCKS_APART = timedelta(hours=1)


class NotInBatch(Exception):
    """The batch has ended without an answer to this question, which may be asked again."""


class NotCreated(Exception):
    """The batch surely was not created; `reason` is what ends the run."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class BatchApi:
    """Raises JudgeMistake or JudgeStopped from all of its methods."""

    def __init__(self, api: anthropic.AsyncAnthropic, price: Price, outage: Outage) -> None:
        self._api = api
        self._price = price
        self._outage = outage

    async def create(self, batch: OpenBatch, requests: list[Request], known: Collection[str]) -> str:
        """The new batch's id. What may or may not have been created is looked for before it is tried again.

        `known` are ids of other batches. Raises NotCreated too.
        """
        items: Any = [{"custom_id": request.key, "params": request.body} for request in requests]
        tries, outage = 0, self._outage.apart()
        while True:
            tries += 1
            try:
                made = await self._api.messages.batches.create(requests=items, timeout=_UPLOAD_SECONDS)
                self._outage.answered()
                return made.id
            except Exception as error:  # noqa: BLE001
                fault = read_fault(error, redacted)
            # Not in the except block: what is raised here must not lead to the SDK's error, which may quote the key.
            try:
                outage.met(fault)
                self._met(fault, f"the API does not take a batch of {len(requests):,} questions")
            except (JudgeMistake, JudgeStopped) as end:
                if fault.kind in ("mistake", "stop", "item"):
                    raise NotCreated(end) from end
                raise
            if fault.kind in ("lost", "server") and (found := await self.locate(batch, known)):
                return found
            await asyncio.sleep(max(fault.retry_after, backoff(tries)))

    async def locate(self, batch: OpenBatch, known: Collection[str]) -> str:
        """The id under which the account lists this batch, "" if it does not. Looks twice, some seconds apart."""
        for look in (1, 2):
            for candidate in await self._patiently(lambda: self._candidates(batch, known)):
                await self.until_ended(candidate, batch.path)
                if await self._patiently(lambda at=candidate: self._is_ours(batch, at)):  # type: ignore[misc]
                    return candidate
            if look == 1:
                await asyncio.sleep(_SECOND_LOOK_SECONDS)
        return ""

    async def _candidates(self, batch: OpenBatch, known: Collection[str]) -> list[str]:
        """The ids of batches of this size from this time on. What is in them shows once they have ended."""
        earliest = datetime.fromtimestamp(batch.planned_at, UTC) - _CLOCKS_APART
        found = []
        async for listed in self._api.messages.batches.list(limit=100):
            if listed.created_at < earliest:
                break
            if listed.id not in known and _size(listed) == len(batch.questions):
                found.append(listed.id)
        return found

    async def _is_ours(self, batch: OpenBatch, batch_id: str) -> bool:
        # One question alone proves nothing: an earlier batch may have ended without an answer to it.
        held = [entry.custom_id async for entry in await self._api.messages.batches.results(batch_id)]
        return set(held) == batch.questions.keys()

    async def until_ended(self, batch_id: str, record: str) -> None:
        """Returns once the batch has ended, and its results can be read. `record` is our own file about it."""
        pause = _FIRST_POLL_SECONDS
        while True:
            batch = await self._patiently(lambda: self._retrieve(batch_id))
            if batch is None or (batch.processing_status == "ended" and not batch.results_url):
                why = "this account does not know it" if batch is None else "the API keeps its results no longer"
                raise JudgeStopped(
                    f"the batch {batch_id} cannot be collected: {why}; use the key of the workspace that made it,"
                    f" or delete {record} to ask its questions again"
                )
            if batch.processing_status == "ended":
                return
            await asyncio.sleep(pause)
            pause = min(_LONGEST_POLL_SECONDS, 1.5 * pause)

    async def _retrieve(self, batch_id: str) -> MessageBatch | None:
        try:
            return await self._api.messages.batches.retrieve(batch_id)
        except anthropic.NotFoundError:
            return None

    async def results(self, batch: OpenBatch) -> dict[str, Answer | Exception]:
        """Key → answer, or NotInBatch or Unanswered, for what an ended batch tells of."""
        return await self._patiently(lambda: self._read(batch))

    async def _read(self, batch: OpenBatch) -> dict[str, Answer | Exception]:
        results: dict[str, Answer | Exception] = {}
        async for entry in await self._api.messages.batches.results(batch.batch_id):
            if entry.custom_id in batch.questions:
                results[entry.custom_id] = self._of(entry, batch.batch_id)
        return results

    def _of(self, entry: MessageBatchIndividualResponse, batch_id: str) -> Answer | Exception:
        result = entry.result
        if result.type == "succeeded":
            try:
                message = result.message.to_dict(mode="json")
                return Answer.of(entry.custom_id, message, self._price, batch_id=batch_id)
            except NoAnswer as mistake:
                return NotInBatch(str(mistake))
        if result.type == "errored":
            why = result.error.error
            said = redacted(f"{why.type}: {why.message}")
            return Unanswered("judge_error", said) if why.type == "invalid_request_error" else NotInBatch(said)
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
            await asyncio.sleep(max(fault.retry_after, backoff(tries)))

    def _met(self, fault: Fault, what: str) -> None:
        self._outage.met(fault)
        if fault.kind == "item":
            raise JudgeStopped(f"{what}: {fault.said}")


def _size(batch: MessageBatch) -> int:
    counts = batch.request_counts
    return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
