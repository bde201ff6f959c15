"""Gathering of questions into batches: sent off when full, or when no further question arrives."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from nextscene.judge.api.client import worst_cost
from nextscene.judge.api.request import Request
from nextscene.judge.api.shutdown import ShutdownSignal
from nextscene.judge.spending.budget import Budget
from nextscene.judge.spending.prices import Price

# The API takes 100,000 requests and 256 MB. Smaller batches lose less when one of them is lost.
MAX_REQUESTS = 10_000
MAX_BYTES = 64 << 20
_BYTES_AROUND_A_REQUEST = 100
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class BatchQuestion:
    """A question that goes into a batch, and the clip that it is bought for."""

    request: Request
    clip_id: str


class BatchGatherer:
    """A buffer of questions until a batch is full, or none has arrived for `quiet_seconds`. For one event loop."""

    def __init__(
        self,
        price: Price,
        budget: Budget,
        shutdown: ShutdownSignal,
        quiet_seconds: float,
        max_requests: int,
        max_bytes: int,
    ) -> None:
        self._price = price
        self._budget = budget
        self._shutdown = shutdown
        self._quiet_seconds = quiet_seconds
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._gathered: dict[str, BatchQuestion] = {}
        self._last_arrival = 0.0
        self._is_running = False

    def add(self, question: BatchQuestion) -> bool:
        """Hold a question until it is in a batch. Return whether `run` must be started for it."""
        self._gathered[question.request.key] = question
        self._last_arrival = time.monotonic()
        must_start, self._is_running = not self._is_running, True
        return must_start

    async def run(self, submit: Callable[[list[BatchQuestion], list[Decimal]], None]) -> None:
        """Pass every batch to `submit`, with the worst-case cost of each question, reserved, in US dollars.

        Return once nothing is gathered. Raise JudgeStopped when the budget has no room.
        """
        while self._gathered:
            quiet = time.monotonic() - self._last_arrival
            if len(self._gathered) < self._max_requests and quiet < self._quiet_seconds:
                await self._shutdown.sleep(min(_POLL_SECONDS, self._quiet_seconds - quiet))
                continue
            questions = self._next_batch()
            worsts = [worst_cost(self._price, question.request, in_batch=True) for question in questions]
            count = await self._budget.reserve_as_many(worsts)
            for question in questions[:count]:
                del self._gathered[question.request.key]
            submit(questions[:count], worsts[:count])
        self._is_running = False

    def _next_batch(self) -> list[BatchQuestion]:
        """Return as many of the gathered questions, the oldest first, as one batch takes."""
        questions: list[BatchQuestion] = []
        size = 0
        for question in self._gathered.values():
            size += question.request.bytes + _BYTES_AROUND_A_REQUEST
            if questions and (size > self._max_bytes or len(questions) == self._max_requests):
                break
            questions.append(question)
        return questions
