"""Each error status and each way in which a connection can fail, over real HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest

from nextscene.common.storage import Storage
from nextscene.judge.api import client
from nextscene.judge.api.answer import Answer
from nextscene.judge.api.backoff import RetryPolicy
from nextscene.judge.api.client import Client, connect, worst_cost
from nextscene.judge.api.errors import ApiError, Kind, classify_exception
from nextscene.judge.api.request import Request
from nextscene.judge.api.shutdown import ShutdownSignal
from nextscene.judge.errors import JudgeStopped, JudgeUsageError, RequestFailed
from nextscene.judge.spending.answer_cache import AnswerCache
from nextscene.judge.spending.budget import Budget
from tests.judge.api_support import PRICE, describe

pytestmark = pytest.mark.slow

KEY = "sk-ant-test-0123456789"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)


Script = tuple[bytes, str]
"""The response to a request, and what then happens to the connection: closed, reset, or left open."""


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    """A server that reads each request and does as the script says; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent, then = script
        try:
            if then != "reset at once":
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
            writer.write(sent)
            await writer.drain()
            if then == "hang":
                await reader.read()
            if then.startswith("reset"):
                writer.transport.abort()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def response(status: int, body: bytes, headers: Mapping[str, str] | None = None, length: int | None = None) -> bytes:
    named = {"content-type": "application/json", "content-length": str(len(body) if length is None else length)}
    lines = [
        f"HTTP/1.1 {status} Whatever",
        *(f"{name}: {value}" for name, value in (named | dict(headers or {})).items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def error(kind: str, message: str, code: str = "") -> bytes:
    inner: dict[str, Any] = {"type": kind, "message": message}
    if code:
        inner["details"] = {"error_code": code}
    return json.dumps({"type": "error", "error": inner, "request_id": "req_1"}).encode()


MESSAGE = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Earlier."}],
        "usage": {"input_tokens": 100, "output_tokens": 2},
    }
).encode()


async def fault_of(url: str, seconds: float = 5.0) -> ApiError:
    """Return the error of one request to this server."""
    async with connect(RetryPolicy(call_seconds=seconds)).with_options(base_url=url) as api:
        try:
            await api.messages.create(**describe("a dog runs").body)
        except Exception as met:  # noqa: BLE001
            return classify_exception(met, client.redact)
    raise AssertionError("it was answered")


def met(script: Script, seconds: float = 5.0) -> ApiError:
    async def run() -> ApiError:
        async with serving(script) as url:
            return await fault_of(url, seconds)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, "denied", "HTTP 400: no"),
        (401, "mistake", "set ANTHROPIC_API_KEY"),
        (402, "stop", "billing"),
        (403, "stop", "permissions"),
        (404, "mistake", "ANTHROPIC_BASE_URL"),
        (408, "server", "HTTP 408: no"),
        (409, "server", "HTTP 409: no"),
        (413, "item", "HTTP 413: no"),
        (422, "denied", "HTTP 422: no"),
        (429, "busy", "HTTP 429: no"),
        (500, "server", "HTTP 500: no"),
        (502, "server", "HTTP 502: no"),
        (503, "server", "HTTP 503: no"),
        (504, "server", "HTTP 504: no"),
        (529, "busy", "HTTP 529: no"),
        (599, "server", "HTTP 599: no"),
    ],
)
def test_each_status_has_its_meaning_and_its_words(status: int, kind: Kind, words: str) -> None:
    fault = met((response(status, error("some_error", "no\n  more")), "close"))
    assert fault.kind == kind
    assert words in fault.message
    assert f"HTTP {status}: no more" in fault.message
    assert fault.reached
    assert len(fault.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "words", "reason"),
    [
        (400, "prompt is too long: 1200000 tokens > 1000000 maximum", "caption_too_long"),
        (413, "Request exceeds the maximum size", "caption_too_long"),
        (400, "messages.0.content: Field required", "judge_error"),
        (422, "prompt is too long", "judge_error"),
    ],
)
def test_what_is_too_long_has_a_reason_of_its_own(status: int, words: str, reason: str) -> None:
    fault = met((response(status, error("invalid_request_error", words)), "close"))
    assert (fault.kind, fault.reason) == ("item" if reason == "caption_too_long" else "denied", reason)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("https://login.example/start?session=5ec2e7", "to https://login.example; sign in"),
        ("/elsewhere", "to another place"),
        ("http://[bad", "to another place"),
    ],
)
def test_a_redirect_is_not_followed_stops_the_run_and_shows_no_secret(status: int, location: str, words: str) -> None:
    fault = met((response(status, b"", {"location": location}), "close"))
    assert fault.kind == "stop" and f"HTTP {status}" in fault.message
    assert words in fault.message.replace(")", "") and "5ec2e7" not in fault.message


@pytest.mark.parametrize(
    ("status", "kind", "may_be_done"),
    [
        (429, "pause", False),
        (500, "server", True),
        (502, "server", True),
        (503, "server", False),
        (504, "server", True),
        (529, "busy", False),
    ],
)
@pytest.mark.parametrize("header", ["7", "date"])
def test_a_retry_after_of_any_status_is_heeded(status: int, kind: Kind, may_be_done: bool, header: str) -> None:
    after = format_datetime(datetime.now(UTC) + timedelta(seconds=7), usegmt=True) if header == "date" else header
    fault = met((response(status, error("some_error", "no"), {"retry-after": after}), "close"))
    assert (fault.kind, fault.may_be_done) == (kind, may_be_done)
    assert fault.retry_after == pytest.approx(7, abs=2)


@pytest.mark.parametrize("status", [429, 400, 403])
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("enforced_spend_limit_reached", "You have crossed the limit."),
        ("contract_spend_limit_reached", "no"),
        ("linked_organization_spend_limit_reached", "no"),
        ("organization_on_hold", "no"),
        ("", "You have reached your specified API usage limits. You will regain access on 2099-01-01."),
    ],
)
def test_a_spend_limit_stops_the_run_whatever_its_status(status: int, code: str, message: str) -> None:
    fault = met((response(status, error("rate_limit_error", message, code), {"retry-after": "3600"}), "close"))
    assert fault.kind == "stop"
    assert "spend limit" in fault.message
    assert message.partition(".")[0] in fault.message


@pytest.mark.parametrize("status", [400, 402, 429])
def test_an_empty_purse_stops_the_run_whatever_its_status(status: int) -> None:
    fault = met((response(status, error("invalid_request_error", "Your credit balance is too low to ask.")), "close"))
    assert fault.kind == "stop"
    assert "see its billing" in fault.message


@pytest.mark.parametrize(
    ("header", "kind", "seconds"),
    [
        ("7", "pause", 7),
        ("0.25", "pause", 0.25),
        ("4294967", "pause", 120),
        ("inf", "pause", 120),
        ("0", "busy", 0),
        ("-5", "busy", 0),
        ("nan", "busy", 0),
        ("", "busy", 0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", "pause", 120),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "busy", 0),
        ("soon", "busy", 0),
    ],
)
def test_a_retry_after_is_honored_within_reason(header: str, kind: Kind, seconds: float) -> None:
    fault = met((response(429, error("rate_limit_error", "no"), {"retry-after": header}), "close"))
    assert (fault.kind, fault.retry_after) == (kind, seconds)


@pytest.mark.parametrize("message", [{"a": 1}, ["no"], 5, None, True])
@pytest.mark.parametrize("code", [{"a": 1}, 5])
def test_an_error_whose_words_are_none_is_told_all_the_same(message: Any, code: Any) -> None:
    body = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": message, "code": code}})
    fault = met((response(400, body.encode()), "close"))
    assert fault.kind == "denied" and fault.message.startswith("HTTP 400")


@pytest.mark.parametrize("body", [b"", b"<html>\n<h1>Bad gateway</h1>\n</html>", b"\xff\xfe\x00", b"[1, 2]", b'"no"'])
def test_an_error_that_is_not_the_apis_own_is_told_in_one_line(body: bytes) -> None:
    fault = met((response(502, body, {"content-type": "text/html"}), "close"))
    assert fault.kind == "server"
    assert "HTTP 502" in fault.message
    assert len(fault.message.splitlines()) == 1


WHOLE = response(200, MESSAGE)


@pytest.mark.parametrize(
    "script",
    [
        (b"", "close"),
        (b"", "reset"),
        (b"", "reset at once"),
        (WHOLE[:9], "close"),
        (WHOLE[:60], "reset"),
        (WHOLE[:-1], "close"),
        (WHOLE[:-40], "reset"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "close"),
        (response(200, MESSAGE, {"content-encoding": "gzip"}), "close"),
        (response(200, gzip.compress(MESSAGE)[:-20], {"content-encoding": "gzip"}), "close"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "close"),
    ],
)
def test_a_connection_that_breaks_after_the_request_may_have_cost_an_answer(script: Script) -> None:
    fault = met(script)
    assert fault.kind == "lost"
    assert fault.message
    assert len(fault.message.splitlines()) == 1


@pytest.mark.parametrize("sent", [b"", WHOLE[:30], WHOLE[:-10]])
def test_an_answer_that_does_not_come_in_time_may_have_cost_as_much(sent: bytes) -> None:
    fault = met((sent, "hang"), seconds=1.5)  # enough for a busy machine to send the question
    assert (fault.kind, fault.reached) == ("lost", False)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://nowhere.invalid", "ftp://127.0.0.1", "https://127.0.0.1:1"]
)
def test_what_was_surely_not_sent_costs_nothing(url: str) -> None:
    fault = asyncio.run(fault_of(url))
    assert (fault.kind, fault.reached) == ("server", False)
    assert fault.message


def test_what_is_not_of_the_api_is_raised_as_it_is() -> None:
    mine = KeyError("mine")
    with pytest.raises(KeyError) as raised:
        classify_exception(mine, str)
    assert raised.value is mine


UNREADABLE = [
    b"",
    b'{"content": []}',
    MESSAGE.replace(b'"input_tokens": 100, ', b""),
    MESSAGE[:-1],
    MESSAGE.replace(b'"text": "Earlier."', b'"words": "Earlier."'),
    MESSAGE.replace(b": 100", b": -100"),
    MESSAGE.replace(b": 2}", b": -2}"),
    MESSAGE.replace(b": 100", b": 100000000"),
    MESSAGE.replace(b": 2}", b": 99999}"),
]


@pytest.mark.parametrize("body", UNREADABLE)
def test_an_unreadable_message_may_be_charged_and_is_asked_again(body: bytes, tmp_path: Any) -> None:
    found, lost = asyncio.run(answered_second(body, tmp_path))
    # What was cut off has cost about as much as the answer to the same question.
    assert lost == found.usd == Decimal("0.00022")
    assert (found.text, found.tries) == ("Earlier.", 2)


@pytest.mark.parametrize(
    "body", [b"{}", b"null", b"[]", b"Hello", b"<!DOCTYPE html><title>Sign in</title>", b'{"error": "not here"}']
)
def test_what_no_model_made_costs_nothing_and_is_asked_again(body: bytes, tmp_path: Any) -> None:
    found, lost = asyncio.run(answered_second(body, tmp_path))
    assert (found.text, found.tries, lost) == ("Earlier.", 2, 0)


def test_an_answer_that_nobody_can_ever_read_is_asked_for_three_times(tmp_path: Any) -> None:
    async def run() -> Decimal:
        async with serving((response(200, UNREADABLE[1]), "close")) as url:
            files, shutdown = Storage.at(tmp_path), ShutdownSignal()
            budget = Budget(files, None, AnswerCache(files, tmp_path / "journals"), Decimal(0), shutdown)
            api = connect(RetryPolicy()).with_options(base_url=url)
            with pytest.raises(RequestFailed, match="3 times") as end:
                await Client(api, PRICE, budget, RetryPolicy(), shutdown).ask(request, 0)
            assert end.value.reason == "judge_error"
            return budget.lost

    request = describe("a dog runs")
    assert asyncio.run(run()) == 3 * worst_cost(PRICE, request, in_batch=False)


async def answered_second(body: bytes, folder: Any) -> tuple[Answer, Decimal]:
    """The answer to a question to which this body came first, and what was lost by then."""
    async with serving((response(200, body), "close")) as bad, serving((WHOLE, "close")) as good:
        api, sent = connect(RetryPolicy()).with_options(base_url=bad), []

        def may_ask() -> None:
            if sent:
                api.base_url = good
            sent.append(1)

        files, shutdown = Storage.at(folder), ShutdownSignal()
        budget = Budget(files, None, AnswerCache(files, folder / "journals"), Decimal(0), shutdown)
        reserve = budget.reserve

        async def reserved(*given: Any) -> None:
            await reserve(*given)
            may_ask()

        budget.reserve = reserved  # type: ignore[assignment]
        found = await Client(api, PRICE, budget, RetryPolicy(), shutdown).ask(describe("a dog runs"), 0)
        assert (budget.spent, budget.reserved) == (found.usd, 0)
        return found, budget.lost


@pytest.mark.parametrize("status", [401, 403, 400, 500])
def test_what_is_raised_leads_to_nothing_that_quotes_the_key(
    status: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nextscene.judge.api.client._MAX_FAILURES", 1)

    async def run(request: Request) -> None:
        async with serving((response(status, error("some_error", f"not with {KEY}")), "close")) as url:
            files = Storage.at(tmp_path)
            budget = Budget(files, None, AnswerCache(files, tmp_path / "journals"), Decimal(0), ShutdownSignal())
            asker = Client(
                connect(RetryPolicy()).with_options(base_url=url), PRICE, budget, RetryPolicy(), ShutdownSignal()
            )
            await asker.ask(request, 0)

    with pytest.raises((JudgeUsageError, JudgeStopped, RequestFailed)) as raised:
        asyncio.run(run(describe("a dog runs")))
    link: BaseException | None = raised.value
    while link is not None:
        assert KEY not in f"{link} {link!r}"
        link = link.__cause__ or link.__context__
    assert "***" in str(raised.value)
