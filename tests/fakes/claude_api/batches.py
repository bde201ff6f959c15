"""Message batches: their states, their results, and their listing."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.fakes.claude_api.errors import ServerError
from tests.fakes.claude_api.question import digest

# (custom_id, params, how often this body was submitted, including this time) -> succeeded, errored, invalid, disabled,
# expired, or: twice, for the same result on two lines; errored-too, for an additional line with an error
Fates = Callable[[str, dict[str, Any], int], str]
# params -> the Message, or a ServerError
Answering = Callable[[dict[str, Any]], dict[str, Any]]

_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_STATES = ("succeeded", "errored", "canceled", "expired")
_TWICE = {"twice": ("succeeded", "succeeded"), "errored-too": ("succeeded", "errored")}


def all_succeed(custom_id: str, params: dict[str, Any], nth: int) -> str:
    return "succeeded"


@dataclass
class Batch:
    """A batch. `state` is in_progress, canceling or ended.

    `counts` and `results` (JSON lines, shuffled) are set when it ends. A `hidden` batch exists but is not listed.
    """

    id: str
    custom_ids: list[str]
    bodies: list[dict[str, Any]]
    nths: list[int]
    created_at: datetime
    hidden: bool = False
    state: str = "in_progress"
    cancel_initiated_at: datetime | None = None
    ended_at: datetime | None = None
    counts: Counter[str] = field(default_factory=Counter)
    results: list[bytes] = field(default_factory=list)

    def view(self, results_url: str) -> dict[str, Any]:
        """Return the JSON of a MessageBatch."""
        ended = self.state == "ended"
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": self.state,
            "request_counts": {
                "processing": 0 if ended else len(self.custom_ids),
                **{state: self.counts[state] for state in _STATES},
            },
            "created_at": self.created_at.isoformat(),
            "expires_at": (self.created_at + timedelta(hours=24)).isoformat(),
            "ended_at": self.ended_at and self.ended_at.isoformat(),
            "cancel_initiated_at": self.cancel_initiated_at and self.cancel_initiated_at.isoformat(),
            "archived_at": None,
            "results_url": results_url if ended else None,
        }


class BatchStore:
    """All batches of one server, in the order of their creation."""

    def __init__(self, answering: Answering, fates: Fates, max_requests: int, prefix: str) -> None:
        self.batches: list[Batch] = []
        self._answering = answering
        self._fates = fates
        self._max_requests = max_requests
        self._prefix = prefix
        self._numbers = itertools.count(1)
        self._submitted: Counter[str] = Counter()

    def create(self, body: dict[str, Any], hidden: bool = False) -> Batch:
        requests = _checked(body.get("requests"), self._max_requests)
        bodies = [request["params"] for request in requests]
        batch = Batch(
            id=f"msgbatch_{self._prefix}{next(self._numbers):08x}",
            custom_ids=[request["custom_id"] for request in requests],
            bodies=bodies,
            nths=[self._count(body) for body in bodies],
            created_at=datetime.now(UTC),
            hidden=hidden,
        )
        self.batches.append(batch)
        return batch

    def get(self, batch_id: str) -> Batch:
        for batch in self.batches:
            if batch.id == batch_id and not batch.hidden:
                return batch
        raise ServerError(404, f"No message batch was found with the id {batch_id!r}.")

    def page(self, limit: int, after_id: str | None, before_id: str | None) -> tuple[list[Batch], bool]:
        """Return a page of batches, the newest first, and whether there are more.

        They follow `after_id`, or end just before `before_id`.
        """
        newest = [batch for batch in self.batches[::-1] if not batch.hidden]
        if before_id is not None:
            newer = newest[: newest.index(self.get(before_id))]
            return newer[-limit:], len(newer) > limit
        start = newest.index(self.get(after_id)) + 1 if after_id is not None else 0
        return newest[start : start + limit], len(newest) > start + limit

    def cancel(self, batch: Batch) -> None:
        if batch.state == "ended":
            raise ServerError(400, f"Batch {batch.id} has ended already and cannot be canceled.")
        batch.state = "canceling"
        batch.cancel_initiated_at = datetime.now(UTC)

    def end(self, batch: Batch) -> None:
        if batch.state == "ended":
            return
        for custom_id, params, nth in zip(batch.custom_ids, batch.bodies, batch.nths, strict=True):
            fate = "canceled" if batch.state == "canceling" else self._fates(custom_id, params, nth)
            first, *further = _TWICE.get(fate, (fate,))
            result = self._result(first, params)
            batch.counts[result["type"]] += 1
            results = [result, *(result if again == first else self._result(again, params) for again in further)]
            batch.results += [json.dumps({"custom_id": custom_id, "result": one}).encode() + b"\n" for one in results]
        _shuffle(batch.results)
        batch.ended_at = datetime.now(UTC)
        batch.state = "ended"

    def _result(self, fate: str, params: dict[str, Any]) -> dict[str, Any]:
        try:
            match fate:
                case "succeeded":
                    return {"type": "succeeded", "message": self._answering(params)}
                case "errored":
                    raise ServerError(500, "Internal server error")
                case "invalid":
                    raise ServerError(400, "messages: this request is invalid")
                case "disabled":
                    raise ServerError(400, "This organization has been disabled.")
                case "expired" | "canceled":
                    return {"type": fate}
            raise ValueError(f"no such fate: {fate!r}")
        except ServerError as error:
            return {"type": "errored", "error": error.body(None)}

    def _count(self, params: dict[str, Any]) -> int:
        name = digest(params)
        self._submitted[name] += 1
        return self._submitted[name]


def _checked(requests: Any, max_requests: int) -> list[dict[str, Any]]:
    if not isinstance(requests, list) or not requests:
        raise ServerError(400, "requests: at least one request is required")
    if len(requests) > max_requests:
        raise ServerError(400, f"requests: at most {max_requests} requests are allowed in a batch")
    seen = set()
    for request in requests:
        if not isinstance(request, dict) or not isinstance(request.get("params"), dict):
            raise ServerError(400, "requests: Input should be a custom_id and params")
        custom_id = request.get("custom_id")
        if not isinstance(custom_id, str) or not _CUSTOM_ID.fullmatch(custom_id):
            raise ServerError(400, "requests: custom_id should match ^[a-zA-Z0-9_-]{1,64}$")
        if custom_id in seen:
            raise ServerError(400, f"requests: custom_id {custom_id!r} is not unique in the batch")
        seen.add(custom_id)
    return requests


def _shuffle(lines: list[bytes]) -> None:
    """Shuffle the lines into another order in any case: a client that relies on the order must never pass by luck."""
    order = list(lines)
    random.Random(len(lines)).shuffle(lines)
    if lines == order:
        lines.reverse()
