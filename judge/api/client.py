"""One question to the API, asked until it is answered, within the limits and the budget."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

import anthropic
import httpx2

from nextscene.common.text import readable_text
from nextscene.judge.api.answer import Answer, InvalidResponse, NotFromModel
from nextscene.judge.api.api_key import KEYS, check_key, redacted, secrets_here
from nextscene.judge.api.backoff import OutageDetector, RetryPolicy, backoff
from nextscene.judge.api.call_queue import CallQueue
from nextscene.judge.api.errors import ApiError, read_fault
from nextscene.judge.api.rate_limiter import Permit
from nextscene.judge.api.request import Request
from nextscene.judge.api.shared_errors import SharedErrors
from nextscene.judge.api.shutdown import ShutdownSignal
from nextscene.judge.errors import CAPTION_TOO_LONG, JUDGE_ERROR, JudgeStopped, JudgeUsageError, RequestFailed
from nextscene.judge.spending.budget import Budget
from nextscene.judge.spending.prices import Price, Usage

_MESSAGE_FIELDS = {"id", "content", "usage", "stop_reason"}
_BETWEEN = "; is there a login page or a proxy between, or another server at ANTHROPIC_BASE_URL?"
_CHECK_SECONDS = 15.0
_STRIKES = 8
_READINGS = 3
"""So many answers to one question are paid for that nobody can read."""
_STRAGGLERS = 16
"""So few questions, the last of many, may each be at fault themselves when they alone are left and fail."""


def connect(patience: RetryPolicy) -> anthropic.AsyncAnthropic:
    """The SDK's client. It never tries again by itself: it knows neither the budget nor the other calls.

    Raises JudgeUsageError.
    """
    check_key()
    key = secrets_here()
    connections = httpx2.Limits(max_connections=None, max_keepalive_connections=patience.calls_at_once)
    try:
        return anthropic.AsyncAnthropic(
            api_key=key.get(KEYS[0]),
            auth_token=None if KEYS[0] in key else key.get(KEYS[1]),
            max_retries=0,
            timeout=patience.call_seconds,
            http_client=anthropic.DefaultAsyncHttpxClient(limits=connections, follow_redirects=False),
        )
    except (ValueError, ImportError, httpx2.InvalidURL) as error:
        said = redacted(readable_text(str(error)))
        raise JudgeUsageError(
            f"no connection can be made with ANTHROPIC_BASE_URL and the proxies of this environment: {said}"
        ) from None


async def check_accepted(patience: RetryPolicy, model: str) -> None:
    """Raise JudgeUsageError where the API says that it does not accept the key. Costs nothing.

    Whatever else it meets is left to those who ask: an address that counts no tokens may answer all the same.
    """
    async with connect(patience) as api:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CHECK_SECONDS):
                fault = await SharedErrors(api, model, redacted).probe()
                if fault and fault.rejects_key:
                    raise JudgeUsageError(fault.said)


def worst_cost(price: Price, request: Request, in_batch: bool) -> Decimal:
    """More than the answer can cost, in US dollars."""
    return price.cost(Usage(min(request.worst_input_tokens, price.context), request.max_tokens), in_batch)


def check_length(price: Price, request: Request) -> None:
    """Raise RequestFailed for a question that cannot be answered, since its prompt cannot fit the model's context."""
    if request.least_input_tokens > price.context:
        raise RequestFailed(
            CAPTION_TOO_LONG,
            f"a prompt of {len(request.text.encode()):,} bytes does not fit the {price.context:,} tokens that"
            f" {price.model} takes; shorten its caption and plan anew, into another --out",
        )


class Client:
    """Sends questions one by one, many at once. For one event loop."""

    def __init__(
        self, api: anthropic.AsyncAnthropic, price: Price, budget: Budget, patience: RetryPolicy, gate: ShutdownSignal
    ) -> None:
        self._api = api
        self._price = self._dearest = price
        self._budget = budget
        self._patience = patience
        self._gate = gate
        self._answered = 0
        self._asking = 0
        self._given_up = False
        self._prefix = f"{uuid.uuid4().hex[:8]}-"
        self._numbers = itertools.count()
        self.flow = CallQueue(patience.calls_at_once)
        self.outage = OutageDetector(patience)
        self.common_faults = SharedErrors(api, price.model, redacted)
        gate.on_close(self.flow.close)

    async def ask(self, request: Request, priority: int, clip_id: str = "") -> Answer:
        """Return the answer, whatever it says, on the journal by then. `clip_id` is whom it is bought for.

        Raises RequestFailed for this question, JudgeUsageError or JudgeStopped for all.
        """
        self._asking += 1
        try:
            return await self._ask(request, priority, clip_id)
        finally:
            self._asking -= 1

    async def _ask(self, request: Request, priority: int, clip_id: str) -> Answer:
        tries, strikes, unread, answered_before = 0, 0, 0, -1
        while True:
            tries += 1
            outcome = await self._send(request, priority, clip_id, tries)
            if isinstance(outcome, Answer):
                return outcome
            if outcome.kind in ("item", "denied"):
                raise RequestFailed(outcome.reason, outcome.said)
            unread += outcome.kind == "unreadable"
            if unread >= _READINGS:
                raise RequestFailed(JUDGE_ERROR, f"{unread} times; last: {outcome.said}")
            if outcome.kind in ("server", "lost", "unreadable"):
                # In an outage nobody is answered; what fails while others are answered fails by itself.
                strikes += answered_before != self._answered
                answered_before = self._answered
                if strikes >= _STRIKES:
                    raise RequestFailed(
                        JUDGE_ERROR, f"{strikes} times while others were answered; last: {outcome.said}"
                    )
                if self._given_up and tries >= _STRIKES:
                    await self._check_common(outcome, request)
                    raise RequestFailed(
                        JUDGE_ERROR, f"{tries} times when little else was left to ask; last: {outcome.said}"
                    )
            if not outcome.retry_after:
                await self._gate.sleep(backoff(tries))

    async def _send(self, request: Request, priority: int, clip_id: str, tries: int) -> Answer | ApiError:
        permit = await self.flow.enter(priority)
        try:
            call = f"{self._prefix}{next(self._numbers):x}"
            worst = worst_cost(self._dearest, request, in_batch=False)
            await self._budget.reserve(call, request.key, worst, priority)
            outcome = await self._sent(request, clip_id, call, tries)
            # Not in the except block: what is raised here must not lead to the SDK's error, which may quote the key.
            if isinstance(outcome, Answer):
                self._budget.settle(call, outcome)
                self._took(outcome, permit)
            else:
                charged = outcome.kind in ("lost", "unreadable")
                self._budget.lose(call) if charged else self._budget.release(call)
                self._met(outcome, permit)
                if outcome.kind in ("item", "denied", "unreadable"):
                    await self.common_faults.check(outcome, request.key)
            return outcome
        except (JudgeUsageError, JudgeStopped) as end:
            self._gate.close(end)
            raise
        finally:
            self.flow.leave()

    async def _check_common(self, fault: ApiError, request: Request) -> None:
        """Before a question is given up: in an outage it is not at fault."""
        try:
            await self.common_faults.check(fault, request.key)
        except JudgeStopped as end:
            self._gate.close(end)
            raise

    async def _sent(self, request: Request, clip_id: str, call: str, tries: int) -> Answer | ApiError:
        try:
            return await self._once(request, clip_id, tries)
        except Exception as error:  # noqa: BLE001
            fault = error
        except BaseException:  # called off
            self._budget.lose(call)
            raise
        try:
            return read_fault(fault, redacted)
        except Exception:
            self._budget.lose(call)
            raise

    def _took(self, answer: Answer, turn: Permit) -> None:
        self._answered += 1
        served = self._price.served_by(answer.model_served)  # others may be served by it too
        self._dearest = max(self._dearest, served, key=lambda price: price.output)
        self.outage.answered()
        self.common_faults.answered()
        self.flow.window.accepted(turn)
        self.flow.buckets.used(answer.usage.input_tokens, answer.usage.output_tokens)

    def _met(self, fault: ApiError, turn: Permit) -> None:
        if fault.kind == "busy":
            self.flow.window.rejected(turn)
        if fault.retry_after:
            self.flow.pause(fault.retry_after)
        own_fault = fault.kind in ("server", "lost", "unreadable") and fault.reached
        few = self._asking <= _STRAGGLERS and self._budget.answers > 0
        self._given_up = self.outage.met(fault, bearable=own_fault and few)

    async def _once(self, request: Request, clip_id: str, tries: int) -> Answer:
        try:
            async with asyncio.timeout(self._patience.call_seconds):
                raw = await self._api.messages.with_raw_response.create(**request.body)
        except anthropic.APIStatusError as error:
            self.flow.buckets.heard(error.response.headers)
            raise
        headers: Mapping[str, str] = raw.headers
        self.flow.buckets.heard(headers)
        answer = Answer.of(
            request.key,
            read_message(raw.http_response),
            self._price,
            tries=tries,
            worst=worst_cost(self._price, request, in_batch=False),
            request_id=headers.get("request-id", ""),
        )
        return replace(answer, clip_id=clip_id, alias=request.alias)


def read_message(response: httpx2.Response) -> dict[str, Any]:
    """The object that a response of status 200 holds. Raises NotFromModel or InvalidResponse."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    try:
        value = response.json()
    except (ValueError, RecursionError) as error:
        if response.content.lstrip()[:1] in (b"{", b""):  # cut short, it may have been a message
            raise InvalidResponse(f"what came back is not whole: {error}") from error
        raise NotFromModel(f"what came back is {kind or 'text'}, not JSON{_BETWEEN}") from error
    if not (isinstance(value, dict) and value.keys() & _MESSAGE_FIELDS):
        raise NotFromModel(f"what came back is not an object of the Claude API{_BETWEEN}")
    return value
