"""The HTTP routes, and the sending of a response: whole, slowly, or only half of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes.claude_api.account import check_account
from tests.fakes.claude_api.batches import Batch
from tests.fakes.claude_api.checks import check_countable, check_message
from tests.fakes.claude_api.errors import ForeignResponse, Hangup, ServerError
from tests.fakes.claude_api.question import Question

if TYPE_CHECKING:
    from tests.fakes.claude_api.server import ClaudeApi, Exchange

KEY = "sk-ant-loopback-0123456789"
VERSION = "2026-10-21"
CREATE_FAULTS = {
    "429": "too many requests",
    "500-before": "an internal error, and no batch",
    "500-after": "an internal error, and a batch all the same",
    "502-before": "a gateway's error, and no batch",
    "504-late": "a gateway's error, and a batch that nobody is told of before it appears",
    "drop-before": "the connection is cut, and there is no batch",
    "drop-after": "the connection is cut, and there is a batch",
    "drop-late": "the connection is cut, and there is a batch that nobody is told of before it appears",
    "page": "a login page with status 200, and no batch",
    "slow": "the response trickles in",
}

_PAGE = b"<!DOCTYPE html><title>Sign in</title><p>Sign in to continue.</p>"
_MESSAGE_BYTES = 32 << 20
_CHUNK_BYTES = 1 << 16
_TRICKLES = 8

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Routes:
    def __init__(self, api: ClaudeApi) -> None:
        self._api = api

    def application(self) -> web.Application:
        # The size of a body is checked here, with the API's message, and not by aiohttp.
        application = web.Application(client_max_size=0)
        router = application.router
        router.add_post("/v1/messages", self._guarded(self.messages))
        router.add_post("/v1/messages/count_tokens", self._guarded(self.count_tokens))
        router.add_get("/v1/models/{id}", self._guarded(self.model))
        router.add_post("/v1/messages/batches", self._guarded(self.create_batch))
        router.add_get("/v1/messages/batches", self._guarded(self.list_batches))
        router.add_get("/v1/messages/batches/{id}", self._guarded(self.batch))
        router.add_get("/v1/messages/batches/{id}/results", self._guarded(self.batch_results))
        router.add_post("/v1/messages/batches/{id}/cancel", self._guarded(self.cancel_batch))
        router.add_route("*", "/{path:.*}", self._guarded(self.nothing))
        return application

    async def messages(self, request: web.Request) -> web.StreamResponse:
        api = self._api
        api.in_flight += 1
        try:
            raw = await request.read()
            exchange = api.log(_parsed(raw))
            try:
                self._admit(request)
                _check_size(raw, _MESSAGE_BYTES)
                return await self._answer(request, exchange)
            except ServerError as error:
                exchange.status, exchange.fault = error.status, error.cause
                raise
            except ForeignResponse as foreign:
                exchange.status, exchange.fault = foreign.status, foreign.cause
                raise
            except Hangup as hangup:
                exchange.fault = hangup.cause
                raise
            finally:
                api.tally[exchange.status] += 1
        finally:
            api.in_flight -= 1

    async def _answer(self, request: web.Request, exchange: Exchange) -> web.StreamResponse:
        api, question = self._api, Question(exchange.body)
        check_message(exchange.body, api.models)
        api.rate_limiter.enter(api.in_flight, api.rules.input_tokens(question))
        exchange.fault = api.fault(question)
        api.faults.raise_fault(exchange.fault)
        if api.limits.latency:
            await asyncio.sleep(api.limits.latency)
        message = api.answer(question, "standard")
        exchange.status, exchange.usage, exchange.message_id = 200, message["usage"], message["id"]
        api.rate_limiter.answered(message["usage"]["output_tokens"])
        sent = api.faults.sent_message(message, exchange.fault)
        response, exchange.delivered = await self._send(request, sent, exchange.fault)
        exchange.last_byte_at = monotonic() if exchange.delivered else 0.0
        return response

    async def count_tokens(self, request: web.Request) -> web.StreamResponse:
        body = _parsed(await request.read())
        self._admit(request)
        check_countable(body, self._api.models)
        return self._json({"input_tokens": self._api.rules.input_tokens(Question(body))})

    async def model(self, request: web.Request) -> web.StreamResponse:
        self._admit(request)
        name = request.match_info["id"]
        if name not in self._api.models:
            raise ServerError(404, f"model: {name}")
        return self._json(_model_info(name))

    async def create_batch(self, request: web.Request) -> web.StreamResponse:
        api = self._api
        raw = await request.read()
        self._admit(request)
        fault = api.create_faults.pop(0) if api.create_faults else ""
        if fault and fault not in CREATE_FAULTS:
            raise ValueError(f"no such fault: {fault!r}")
        if fault == "502-before":
            raise ServerError(502, "Bad gateway", cause=fault)
        api.faults.raise_fault("500" if fault == "500-before" else fault)
        _check_size(raw, api.batch_bytes)
        batch = api.batch_store.create(_parsed(raw), hidden=fault.endswith("-late"))
        view = self._view(batch)
        if api.batch_seconds is not None:
            asyncio.get_running_loop().call_later(api.batch_seconds, api.batch_store.end, batch)
        if fault == "500-after":
            raise ServerError(500, "Internal server error", cause=fault)
        if fault == "504-late":
            raise ServerError(504, "Gateway timeout", cause=fault)
        if fault == "drop-late":
            raise Hangup(fault)
        response, _ = await self._send(request, view, fault)
        return response

    async def list_batches(self, request: web.Request) -> web.StreamResponse:
        self._admit(request)
        limit = request.query.get("limit", "20")
        if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
            raise ServerError(400, "limit: Input should be between 1 and 1000")
        after, before = request.query.get("after_id"), request.query.get("before_id")
        page, more = self._api.batch_store.page(int(limit), after, before)
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        data = [self._view(batch) for batch in page]
        return self._json({"data": data, "has_more": more, "first_id": first, "last_id": last})

    async def batch(self, request: web.Request) -> web.StreamResponse:
        return self._json(self._view(self._found(request)))

    async def batch_results(self, request: web.Request) -> web.StreamResponse:
        batch = self._found(request)
        if batch.state != "ended":
            raise ServerError(404, f"The results of {batch.id} are not available yet.")
        response = web.StreamResponse(headers=self._headers() | {"content-type": "application/x-jsonl"})
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            for chunk in _chunks(batch.results):
                await response.write(chunk)
            await response.write_eof()
        return response

    async def cancel_batch(self, request: web.Request) -> web.StreamResponse:
        batch = self._found(request)
        self._api.batch_store.cancel(batch)
        view = self._view(batch)
        asyncio.get_running_loop().call_soon(self._api.batch_store.end, batch)
        return self._json(view)

    async def nothing(self, request: web.Request) -> web.StreamResponse:
        raise ServerError(404, f"Not found: {request.method} {request.path}")

    def _guarded(self, handler: _Handler) -> _Handler:
        """Return the handler, with ServerError and ForeignResponse as responses, and Hangup closing the connection."""

        @functools.wraps(handler)
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except ServerError as error:
                headers = self._headers() | error.headers()
                body = error.payload(headers["request-id"])
                return web.Response(status=error.status, body=body, headers=headers)
            except ForeignResponse as foreign:
                headers = {"content-type": "text/html"} | ({"location": foreign.location} if foreign.location else {})
                return web.Response(status=foreign.status, body=_PAGE, headers=headers)
            except Hangup:
                _hang_up(request)
                return web.Response()

        return guarded

    def _admit(self, request: web.Request) -> None:
        """Check key, version and, for a POST, the account. Call it after the body of a POST is read."""
        bearer = request.headers.get("Authorization", "")
        if bearer != f"Bearer {KEY}":
            sent = bearer.removeprefix("Bearer ") or request.headers.get("x-api-key", "")
            raise ServerError(401, f"invalid x-api-key: {sent}")
        if request.headers.get("anthropic-version") != VERSION:
            raise ServerError(400, f"anthropic-version: {VERSION} is required")
        if request.method == "POST":
            check_account(self._api.account)

    def _found(self, request: web.Request) -> Batch:
        self._admit(request)
        return self._api.batch_store.get(request.match_info["id"])

    def _view(self, batch: Batch) -> dict[str, Any]:
        return batch.view(f"{self._api.url}/v1/messages/batches/{batch.id}/results")

    def _headers(self) -> dict[str, str]:
        fixed = {"content-type": "application/json", "request-id": self._api.new_id("req_")}
        return fixed | self._api.rate_limiter.headers()

    def _json(self, value: Any) -> web.Response:
        return web.Response(body=json.dumps(value).encode(), headers=self._headers())

    async def _send(self, request: web.Request, value: Any, fault: str) -> tuple[web.StreamResponse, bool]:
        """Return the response, and whether it is delivered, as far as that is known before the client has read it."""
        if fault not in ("drop-after", "slow"):
            return self._json(value), _connected(request)
        body = json.dumps(value).encode()
        response = web.StreamResponse(headers=self._headers() | {"content-length": str(len(body))})
        try:
            await response.prepare(request)
            if fault == "slow":
                await _trickle(request, response, body, self._api.faults.slow_seconds)
                return response, True
            await response.write(body[: len(body) // 2])
            _hang_up(request)
        except ConnectionError:
            pass
        return response, False


async def _trickle(request: web.Request, response: web.StreamResponse, body: bytes, seconds: float) -> None:
    step = -(-len(body) // _TRICKLES)
    for start in range(0, len(body), step):
        await asyncio.sleep(seconds / _TRICKLES)
        if not _connected(request):
            raise ConnectionError
        await response.write(body[start : start + step])
    await response.write_eof()


def _parsed(raw: bytes) -> dict[str, Any]:
    """Return the body; {} if it is not a JSON object, so that all required fields are missing."""
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _check_size(raw: bytes, max_bytes: int) -> None:
    if len(raw) > max_bytes:
        raise ServerError(413, "Request exceeds the maximum size")


def _connected(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _chunks(lines: Iterable[bytes]) -> Iterable[bytes]:
    """Yield the lines, joined into chunks that are large enough for one write."""
    chunk = bytearray()
    for line in lines:
        chunk += line
        if len(chunk) >= _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)


def _model_info(name: str) -> dict[str, Any]:
    yes = {"supported": True}
    features = ("batch", "image_input", "pdf_input", "structured_outputs", "thinking", "citations", "effort")
    return {
        "id": name,
        "type": "model",
        "display_name": name.replace("-", " ").title(),
        "created_at": "2026-10-07T00:00:00Z",
        "lifecycle": "active",
        "line": name.split("-")[1],
        "max_input_tokens": 1_000_000,
        "max_tokens": 128_000,
        "deprecated_at": None,
        "retires_at": None,
        "capabilities": dict.fromkeys(features, yes),
    }
