"""The results of a batch, as the API lists them: for each question its answer, or why there is none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable

from anthropic.types.messages import MessageBatchIndividualResponse

from judge.answer import Answer, NoAnswer
from judge.client import redacted
from judge.faults import Fault, sort, status_of
from judge.open_batch import OpenBatch
from judge.prices import Price
from judge.text import evidence


class NotInBatch(Exception):
    """The batch has ended without an answer to this question, which may be asked again."""


class NeverCreated(NotInBatch):
    """The batch that should have held this question does not exist."""


class Unreadable(NotInBatch):
    """There was an answer, charged for, that nobody can read."""


Result = Answer | Fault | NotInBatch


async def read_results(
    entries: AsyncIterable[MessageBatchIndividualResponse | None], batch: OpenBatch, price: Price
) -> dict[str, Result]:
    """Key → result. Of several results of one question the one that was paid for counts.

    Raises NoAnswer where the results end too early.
    """
    results: dict[str, Result] = {}
    unreadable = 0
    async for entry in entries:
        if entry is None or not isinstance(entry.custom_id, str):
            unreadable += 1
        elif entry.custom_id in batch.questions and not isinstance(results.get(entry.custom_id), Answer):
            result = _of(entry, batch, price)
            is_worse = isinstance(results.get(entry.custom_id), Unreadable) and not isinstance(result, Answer)
            if not is_worse:
                results[entry.custom_id] = result
    missing = batch.questions.keys() - results.keys()
    if len(missing) > unreadable:
        raise NoAnswer(f"the results of batch {batch.batch_id} end {len(missing):,} too early")
    return results | {key: Unreadable("a line of the batch's results cannot be read") for key in missing}


def entry_of(line: str) -> MessageBatchIndividualResponse | None:
    """A line of the results as the SDK makes it, which checks no types; None for one that is no result."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return (
        MessageBatchIndividualResponse.construct(**value) if isinstance(value, dict) and "custom_id" in value else None
    )


def _of(entry: MessageBatchIndividualResponse, batch: OpenBatch, price: Price) -> Result:
    """Whatever stands there is the one question's own end. The SDK checks no types."""
    try:
        result = entry.result
        if result.type == "succeeded":
            message = result.message.to_dict()
            return Answer.of(
                entry.custom_id, message, price, worst=batch.dearest or batch.worst, batch_id=batch.batch_id
            )
        if result.type == "errored":
            why = result.error.error
            fault = sort(status_of(why.type), "", redacted(why.message))
            return fault if fault.kind in ("mistake", "stop", "item", "denied") else NotInBatch(fault.said)
        return NotInBatch(result.type)
    except (ValueError, TypeError, AttributeError, RecursionError) as mistake:
        return Unreadable(evidence(str(mistake)))
