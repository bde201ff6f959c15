"""The client of the Messages API: sends one question, with retries, within the limits and the budget."""

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
from nextscene.judge.api.api_key import KEYS, check_key, configured_secrets, redact
from nextscene.judge.api.backoff import OutageDetector, RetryPolicy, backoff
from nextscene.judge.api.call_queue import CallQueue
from nextscene.judge.api.errors import ApiError, classify_exception
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
_MAX_FAILURES = 8
_READINGS = 3
"""A question is given up after this many unreadable answers, which are paid for."""
_FEW_CALLS = 16
"""With this few calls left, repeated server errors are blamed on the questions, not on an outage."""


def connect(retry_policy: RetryPolicy) -> anthropic.AsyncAnthropic:
    """Return a client of the SDK. It does not retry by itself: it knows neither the budget nor the other calls."""
    check_key()
    key = configured_secrets()
    connections = httpx2.Limits(max_connections=None, max_keepalive_connections=retry_policy.calls_at_once)
    try:
        return anthropic.AsyncAnthropic(
            api_key=key.get(KEYS[0]),
            auth_token=None if KEYS[0] in key else key.get(KEYS[1]),
            max_retries=0,
            timeout=retry_policy.call_seconds,
            http_client=anthropic.DefaultAsyncHttpxClient(limits=connections, follow_redirects=False),
        )
    except (ValueError, ImportError, httpx2.InvalidURL) as error:
        reason = redact(readable_text(str(error)))
        raise JudgeUsageError(
            f"no connection can be made with ANTHROPIC_BASE_URL and the proxies of this environment: {reason}"
        ) from None


async def check_accepted(retry_policy: RetryPolicy, model: str) -> None:
    """Raise JudgeUsageError if the API rejects the key. Costs nothing.

    Other errors are left to the calls themselves: an address that does not count tokens may answer questions.
    """
    async with connect(retry_policy) as api:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CHECK_SECONDS):
                fault = await SharedErrors(api, model, redact).probe()
                if fault and fault.rejects_key:
                    raise JudgeUsageError(fault.message)


def worst_cost(price: Price, request: Request, in_batch: bool) -> Decimal:
    """Return an upper bound of the cost of the answer, in US dollars."""
    return price.cost(Usage(min(request.max_input_tokens, price.context), request.max_tokens), in_batch)


def check_length(price: Price, request: Request) -> None:
    """Raise RequestFailed for a question whose prompt cannot fit the context of the model."""
    if request.min_input_tokens > price.context:
        raise RequestFailed(
            CAPTION_TOO_LONG,
            f"a prompt of {len(request.text.encode()):,} bytes does not fit the {price.context:,} tokens that"
            f" {price.model} takes; shorten its caption and plan again, into another output folder",
        )


class Client:
    """A client that sends questions in single calls, many at once. For one event loop."""

    def __init__(
        self,
        api: anthropic.AsyncAnthropic,
        price: Price,
        budget: Budget,
        retry_policy: RetryPolicy,
        shutdown: ShutdownSignal,
    ) -> None:
        self._api = api
        self._price = self._dearest = price
        self._budget = budget
        self._retry_policy = retry_policy
        self._shutdown = shutdown
        self._answered = 0
        self._pending_calls = 0
        self._outage_too_long = False
        self._prefix = f"{uuid.uuid4().hex[:8]}-"
        self._numbers = itertools.count()
        self.queue = CallQueue(retry_policy.calls_at_once)
        self.outage = OutageDetector(retry_policy)
        self.shared_errors = SharedErrors(api, price.model, redact)
        shutdown.add_listener(self.queue.close)

    async def ask(self, request: Request, priority: int, clip_id: str = "") -> Answer:
        """Return the answer, which is on the journal by then. `clip_id` is the clip that it is bought for.

        Raise RequestFailed for this question, JudgeUsageError or JudgeStopped for all.
        """
        self._pending_calls += 1
        try:
            return await self._ask(request, priority, clip_id)
        finally:
            self._pending_calls -= 1

    async def _ask(self, request: Request, priority: int, clip_id: str) -> Answer:
        tries, failures, unread, answered_before = 0, 0, 0, -1
        while True:
            tries += 1
            outcome = await self._send(request, priority, clip_id, tries)
            if isinstance(outcome, Answer):
                return outcome
            if outcome.kind in ("item", "denied"):
                raise RequestFailed(outcome.reason, outcome.message)
            unread += outcome.kind == "unreadable"
            if unread >= _READINGS:
                raise RequestFailed(JUDGE_ERROR, f"{unread} times; last: {outcome.message}")
            if outcome.kind in ("server", "lost", "unreadable"):
                # In an outage nothing is answered: an error while others are answered is the question's own.
                failures += answered_before != self._answered
                answered_before = self._answered
                if failures >= _MAX_FAILURES:
                    raise RequestFailed(
                        JUDGE_ERROR, f"{failures} times while others were answered; last: {outcome.message}"
                    )
                if self._outage_too_long and tries >= _MAX_FAILURES:
                    await self._check_shared(outcome, request)
                    raise RequestFailed(
                        JUDGE_ERROR, f"{tries} times when little else was left to ask; last: {outcome.message}"
                    )
            if not outcome.retry_after:
                await self._shutdown.sleep(backoff(tries))

    async def _send(self, request: Request, priority: int, clip_id: str, tries: int) -> Answer | ApiError:
        permit = await self.queue.acquire(priority)
        try:
            call = f"{self._prefix}{next(self._numbers):x}"
            worst = worst_cost(self._dearest, request, in_batch=False)
            await self._budget.reserve(call, request.key, worst, priority)
            outcome = await self._sent(request, clip_id, call, tries)
            # Not in the except block: the exception must not be chained to the SDK's error, which may quote the key.
            if isinstance(outcome, Answer):
                self._budget.settle(call, outcome)
                self._record_success(outcome, permit)
            else:
                charged = outcome.kind in ("lost", "unreadable")
                self._budget.mark_lost(call) if charged else self._budget.release(call)
                self._record_error(outcome, permit)
                if outcome.kind in ("item", "denied", "unreadable"):
                    await self.shared_errors.check(outcome, request.key)
            return outcome
        except (JudgeUsageError, JudgeStopped) as end:
            self._shutdown.trigger(end)
            raise
        finally:
            self.queue.release()

    async def _check_shared(self, fault: ApiError, request: Request) -> None:
        """Raise JudgeStopped if the error is an outage, before the question is given up."""
        try:
            await self.shared_errors.check(fault, request.key)
        except JudgeStopped as end:
            self._shutdown.trigger(end)
            raise

    async def _sent(self, request: Request, clip_id: str, call: str, tries: int) -> Answer | ApiError:
        try:
            return await self._once(request, clip_id, tries)
        except Exception as error:  # noqa: BLE001
            fault = error
        except BaseException:  # canceled
            self._budget.mark_lost(call)
            raise
        try:
            return classify_exception(fault, redact)
        except Exception:
            self._budget.mark_lost(call)
            raise

    def _record_success(self, answer: Answer, permit: Permit) -> None:
        self._answered += 1
        served = self._price.served_by(answer.model_served)  # it may serve others too
        self._dearest = max(self._dearest, served, key=lambda price: price.output)
        self.outage.record_success()
        self.shared_errors.record_success()
        self.queue.concurrency.record_success(permit)
        self.queue.buckets.record_usage(answer.usage.input_tokens, answer.usage.output_tokens)

    def _record_error(self, fault: ApiError, permit: Permit) -> None:
        if fault.kind == "busy":
            self.queue.concurrency.record_rejection(permit)
        if fault.retry_after:
            self.queue.pause(fault.retry_after)
        own_fault = fault.kind in ("server", "lost", "unreadable") and fault.reached
        few = self._pending_calls <= _FEW_CALLS and self._budget.answers > 0
        self._outage_too_long = self.outage.record_error(fault, tolerate_outage=own_fault and few)

    async def _once(self, request: Request, clip_id: str, tries: int) -> Answer:
        try:
            async with asyncio.timeout(self._retry_policy.call_seconds):
                raw = await self._api.messages.with_raw_response.create(**request.body)
        except anthropic.APIStatusError as error:
            self.queue.buckets.update_from_headers(error.response.headers)
            raise
        headers: Mapping[str, str] = raw.headers
        self.queue.buckets.update_from_headers(headers)
        answer = Answer.from_message(
            request.key,
            read_message(raw.http_response),
            self._price,
            tries=tries,
            worst=worst_cost(self._price, request, in_batch=False),
            request_id=headers.get("request-id", ""),
        )
        return replace(answer, clip_id=clip_id, alias=request.alias)


def read_message(response: httpx2.Response) -> dict[str, Any]:
    """Return the object in a response of status 200. Raise NotFromModel or InvalidResponse."""
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
