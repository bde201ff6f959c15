"""The results of a batch: for each question its answer, or the reason why there is none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Iterable

from anthropic.types.messages import MessageBatchIndividualResponse

from nextscene.common.text import readable_text
from nextscene.judge.api.answer import Answer, InvalidResponse, NotFromModel
from nextscene.judge.api.api_key import redact
from nextscene.judge.api.batch_record import BatchRecord
from nextscene.judge.api.errors import ApiError, classify_status, status_of_type
from nextscene.judge.spending.prices import Price


class MissingFromBatch(Exception):
    """The batch has ended without an answer to this question, which may be sent again."""


class BatchNeverCreated(MissingFromBatch):
    """The batch of this question was not created."""


class UnreadableResult(MissingFromBatch):
    """There was an answer, charged for, that cannot be read."""


Result = Answer | ApiError | MissingFromBatch


class TruncatedResults(InvalidResponse):
    """The results end without those of `missing`, and hold no line that could be one of them."""

    def __init__(self, batch: BatchRecord, missing: frozenset[str], results: dict[str, Result]) -> None:
        super().__init__(f"the results of batch {batch.batch_id} end {len(missing):,} too early")
        self.missing = missing
        self.results = results


async def read_results(
    entries: AsyncIterable[MessageBatchIndividualResponse | None], batch: BatchRecord, price: Price
) -> dict[str, Result]:
    """Return key → result. Of several results of one question the paid one counts.

    Raise TruncatedResults, and NotFromModel if no line is a result.
    """
    results: dict[str, Result] = {}
    unreadable = 0
    async for entry in entries:
        if entry is None or not isinstance(entry.custom_id, str):
            unreadable += 1
        elif entry.custom_id in batch.questions and not isinstance(results.get(entry.custom_id), Answer):
            result = _of(entry, batch, price)
            is_worse = isinstance(results.get(entry.custom_id), UnreadableResult) and not isinstance(result, Answer)
            if not is_worse:
                results[entry.custom_id] = result
    if unreadable and not results:
        raise NotFromModel(f"what came for the results of batch {batch.batch_id} holds none")
    missing = frozenset(batch.questions.keys() - results.keys())
    if len(missing) > unreadable:
        raise TruncatedResults(batch, missing, results)
    return results | unread(missing)


def unread(keys: Iterable[str]) -> dict[str, Result]:
    """Return the results of questions whose lines are missing or unreadable."""
    return {key: UnreadableResult("a line of the batch's results cannot be read") for key in keys}


def entry_of(line: str) -> MessageBatchIndividualResponse | None:
    """Return a line of the results as the SDK parses it, without type checks; None if it is not a result."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return (
        MessageBatchIndividualResponse.construct(**value) if isinstance(value, dict) and "custom_id" in value else None
    )


def _of(entry: MessageBatchIndividualResponse, batch: BatchRecord, price: Price) -> Result:
    """Return the result of one question from its entry, whose types the SDK does not check."""
    try:
        result = entry.result
        if result.type == "succeeded":
            message = result.message.to_dict()
            return Answer.from_message(
                entry.custom_id, message, price, worst=batch.dearest or batch.worst, batch_id=batch.batch_id
            )
        if result.type == "errored":
            why = result.error.error
            fault = classify_status(status_of_type(why.type), "", redact(why.message))
            return fault if fault.kind in ("mistake", "stop", "item", "denied") else MissingFromBatch(fault.message)
        return MissingFromBatch(result.type)
    except (ValueError, TypeError, AttributeError, RecursionError) as mistake:
        return UnreadableResult(readable_text(str(mistake)))
