"""The server: its state, its log, and its thread."""

from __future__ import annotations

import asyncio
import itertools
import threading
import uuid
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.fakes.claude_api.account import GOOD, STATES
from tests.fakes.claude_api.answer_rules import AnswerRules
from tests.fakes.claude_api.batches import Batch, BatchStore, Fates, all_succeed
from tests.fakes.claude_api.checks import check_message
from tests.fakes.claude_api.errors import ServerError
from tests.fakes.claude_api.fault_schedule import FaultSchedule
from tests.fakes.claude_api.limits import Limits, RateLimiter
from tests.fakes.claude_api.question import Question, digest
from tests.fakes.claude_api.routes import KEY, Routes

MODELS = frozenset({"claude-sonnet-5-5", "claude-haiku-5-5", "claude-opus-5-5"})


@dataclass
class Exchange:
    """One POST /v1/messages. It is logged on arrival, and updated until its end.

    `status` is 0 until something is sent, and stays 0 if the connection is closed before. An answer that was made but
    never reached the client has status 200 and is not `delivered`. `fault` names the cause if the answer was prevented
    or disturbed: a scheduled fault, a limit, or the account's state. `in_flight` includes this request. `at`, and
    `last_byte_at`, the time when the whole answer was sent, are times of the monotonic clock.
    """

    body: dict[str, Any]
    digest: str
    at: float
    in_flight: int
    status: int = 0
    delivered: bool = True
    fault: str = ""
    usage: dict[str, Any] | None = None
    message_id: str = ""
    last_byte_at: float = 0.0


class ClaudeApi:
    """The API on a port of 127.0.0.1, for the time of a `with` block.

    With `batch_seconds` None a batch ends when `finish_batches` is called. With `remember` False there is no log, only
    `tally` and `batches`, so that a benchmark neither spends time on it nor fills the memory. `rules`, `faults`,
    `account`, `account_after` and `create_faults` may be changed while it runs. `account_after` is a number of answers,
    and the state of the account from then on.
    """

    def __init__(
        self,
        *,
        rules: AnswerRules | None = None,
        faults: FaultSchedule | None = None,
        limits: Limits | None = None,
        models: frozenset[str] = MODELS,
        batch_seconds: float | None = 0.0,
        batch_requests: int = 100_000,
        batch_bytes: int = 256 << 20,
        batch_fates: Fates = all_succeed,
        context: int = 1_000_000,
        remember: bool = True,
        port: int = 0,
    ) -> None:
        self.rules = rules or AnswerRules()
        self.faults = faults or FaultSchedule()
        self.limits = limits or Limits()
        self.models = models
        self.batch_seconds = batch_seconds
        self.batch_bytes = batch_bytes
        self.context = context
        self.create_faults: list[str] = []
        self.account_after: tuple[int, str] | None = None
        self.exchanges: list[Exchange] = []
        self.paid: list[str] = []
        self.tally: Counter[int] = Counter()  # number of responses to POST /v1/messages, by status
        self.in_flight = 0
        self.max_in_flight = 0
        self.rate_limiter = RateLimiter(self.limits)
        self._remember = remember
        self._account = GOOD
        self._answers = 0
        self._arrivals: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._prefix = uuid.uuid4().hex[:12]
        self.batch_store = BatchStore(self._answer_item, batch_fates, batch_requests, self._prefix)
        self._port = port
        self._bound: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="claude-api", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def env(self) -> dict[str, str]:
        return {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": self.url}

    @property
    def account(self) -> str:
        return self._account

    @account.setter
    def account(self, state: str) -> None:
        if state not in STATES:
            raise ValueError(f"no such state of an account: {state!r}, only {sorted(STATES)}")
        self._account = state

    @property
    def batches(self) -> list[Batch]:
        return self.batch_store.batches

    def reveal_batches(self) -> None:
        """List every batch from now on."""
        for batch in self.batches:
            batch.hidden = False

    def finish_batches(self) -> None:
        """End every batch that has not ended."""
        done: Future[None] = Future()

        def finish() -> None:
            try:
                for batch in self.batches:
                    self.batch_store.end(batch)
                done.set_result(None)
            except Exception as error:  # noqa: BLE001 - raised again in the calling thread
                done.set_exception(error)

        self._loop.call_soon_threadsafe(finish)
        done.result()

    def __enter__(self) -> Self:
        self._thread.start()
        self._port = self._bound.result()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def new_id(self, kind: str) -> str:
        return f"{kind}{self._prefix}{next(self._numbers):010x}"

    def log(self, body: dict[str, Any]) -> Exchange:
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        exchange = Exchange(body, digest(body) if self._remember else "", monotonic(), self.in_flight)
        if self._remember:
            self.exchanges.append(exchange)
        return exchange

    def fault(self, question: Question) -> str:
        """Return the scheduled fault of this arrival. Requests that a limit rejected do not count as arrivals."""
        if not self.faults.rates:
            return ""
        self._arrivals[question.digest] += 1
        return self.faults.fault(question.digest, self._arrivals[question.digest])

    def answer(self, question: Question, tier: str) -> dict[str, Any]:
        """Return the JSON of the Message, and count it as paid. Raise ServerError for a question without an answer."""
        if (tokens := self.rules.input_tokens(question)) > self.context:
            raise ServerError(400, f"prompt is too long: {tokens} tokens > {self.context} maximum")
        message = self.rules.message(question, message_id=self.new_id("msg_"), tier=tier)
        if self._remember:
            self.paid.append(question.digest)
        self._answers += 1
        if self.account_after and self._answers == self.account_after[0]:
            self.account = self.account_after[1]
        return message

    def _answer_item(self, params: dict[str, Any]) -> dict[str, Any]:
        check_message(params, self.models)
        return self.answer(Question(params), "batch")

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._bound.done():
                raise
            self._bound.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        # Idle connections of clients must stay open: closing them would be a fault that is not scheduled.
        runner = web.AppRunner(
            Routes(self).application(), access_log=None, keepalive_timeout=3600.0, shutdown_timeout=0.1
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", self._port, backlog=1024)
            await site.start()
            self._bound.set_result(runner.addresses[0][1])
            await self._stop.wait()
        finally:
            await runner.cleanup()
