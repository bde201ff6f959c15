"""The account, the key and the outage: what no question can help ends the run, at once and in one clear line."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nextscene.judge.api.answer import Answer
from nextscene.judge.api.api_key import check_key, redact
from nextscene.judge.api.backoff import OutageDetector
from nextscene.judge.api.errors import ApiError
from nextscene.judge.errors import JudgeStopped, JudgeUsageError, RequestFailed
from tests.fakes.claude_api import KEY, ClaudeApi, FaultSchedule, Limits, Question, ServerError
from tests.judge import api_support
from tests.judge.api_support import (
    RETRY_POLICY,
    account,
    ask_all,
    captions,
    child,
    describe,
    digest_of,
    interactive_cost,
    open_client,
    paid_for,
)

WRONG = "sk-ant-wrong-9876543210"
SHORT_RETRY_POLICY = replace(RETRY_POLICY, outage_seconds=0.5)


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hurried")]


@pytest.fixture
def limits() -> Limits:
    return Limits(latency=0.01)


def the_end(found: list[Answer | BaseException], kind: type[Exception]) -> str:
    """The one line with which all that have no answer ended."""
    ends = [end for end in found if not isinstance(end, Answer)]
    assert {type(end) for end in ends} == {kind}
    lines = {str(end) for end in ends}
    assert len(lines) == 1
    [line] = lines
    assert len(line.splitlines()) == 1
    return line


ENDS: dict[str, tuple[type[Exception], str]] = {
    "spend_limit": (JudgeStopped, "spend limit"),
    "user_limit": (JudgeStopped, "You will regain access on 2099-01-01"),
    "no_credit": (JudgeStopped, "billing"),
    "forbidden": (JudgeStopped, "permission"),
    "disabled": (JudgeStopped, "denies every question (HTTP 400: This organization has been disabled.)"),
    "redirect": (JudgeStopped, "leads elsewhere (HTTP 302: to https://login.example)"),
}


@pytest.mark.parametrize("state", ENDS)
@pytest.mark.parametrize("in_batches", [False, True])
def test_an_account_that_may_not_ask_ends_the_run_after_a_handful_of_requests(
    state: str, in_batches: bool, tmp_path: Path, api: ClaudeApi
) -> None:
    kind, words = ENDS[state]
    api.account = state
    found = ask_all(tmp_path, [describe(caption) for caption in captions(200)], in_batches=in_batches)
    assert len(found) == 200
    assert words in the_end(found, kind)
    assert len(api.exchanges) <= 4
    assert api.paid == []
    assert account(tmp_path).spent == account(tmp_path).lost == account(tmp_path).allowance == 0
    assert api_support.open_batches(tmp_path) == []


@pytest.mark.parametrize("state", ENDS)
def test_an_account_that_runs_dry_in_the_midst_keeps_what_was_answered(
    state: str, tmp_path: Path, api: ClaudeApi
) -> None:
    requests = [describe(caption) for caption in captions(200)]

    async def run() -> list[Answer | BaseException]:
        async with open_client(tmp_path, retry_policy=replace(RETRY_POLICY, calls_at_once=8)) as client:
            asked = [asyncio.ensure_future(client.ask(request, 0)) for request in requests]
            while len(api.paid) < 50:
                await asyncio.sleep(0.005)
            api.account = state
            return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(run())
    kind, words = ENDS[state]
    assert words in the_end(found, kind)
    # Those that were under way when the first was turned away.
    assert 1 <= sum(exchange.fault == state for exchange in api.exchanges) <= 8
    assert {answer.key for answer in found if isinstance(answer, Answer)} == paid_for(tmp_path).keys()
    assert len(paid_for(tmp_path)) == len(api.paid) < 200
    assert account(tmp_path).spent == interactive_cost(api)
    api.account = "good"
    before = len(api.exchanges)
    assert all(isinstance(answer, Answer) for answer in ask_all(tmp_path, requests))
    answered_before = {exchange.digest for exchange in api.exchanges[:before] if exchange.usage}
    assert len(api.exchanges) - before == 200 - len(answered_before)


@pytest.mark.parametrize("in_batches", [False, True])
def test_a_wrong_key_ends_the_run_and_is_never_shown(
    in_batches: bool, tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("ANTHROPIC_API_KEY", WRONG)
    found = ask_all(tmp_path, [describe(caption) for caption in captions(100)], in_batches=in_batches)
    assert "set ANTHROPIC_API_KEY" in the_end(found, JudgeUsageError)
    assert len(api.exchanges) <= 4
    assert caplog.records
    assert_not_shown(WRONG, tmp_path, caplog, found)


def test_a_good_key_is_never_shown_either(tmp_path: Path, api: ClaudeApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    api.faults = FaultSchedule(rates={"500": 0.2, "drop-after": 0.2, "429": 0.1}, seed=3)
    found = ask_all(tmp_path, [describe(caption) for caption in [*captions(30), "BAD-REQUEST"]])
    assert sum(isinstance(answer, Answer) for answer in found) == 30
    assert_not_shown(KEY, tmp_path, caplog, found)


def assert_not_shown(
    key: str, out: Path, caplog: pytest.LogCaptureFixture, found: list[Answer | BaseException]
) -> None:
    """Neither in messages, tracebacks and logs, nor in any file."""
    said = [caplog.text, *(f"{record.__dict__}" for record in caplog.records)]
    for end in found:
        said += [str(end), repr(end), *(traceback.format_exception(end) if isinstance(end, BaseException) else ())]
    assert not any(key in text for text in said)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert key.encode() not in (api_support.unpacked(path) if path.suffix == ".gz" else path.read_bytes())


@pytest.mark.parametrize("key", [KEY, WRONG])
def test_the_sdks_own_debug_log_does_not_show_the_key(key: str, tmp_path: Path, api: ClaudeApi) -> None:
    env = api.env | {"ANTHROPIC_API_KEY": key, "ANTHROPIC_LOG": "debug"}
    with child(tmp_path, "--count", "3", env=env) as process:
        said, _ = process.communicate(timeout=60)
    assert "DEBUG" in said
    assert ("done" if key == KEY else "JudgeUsageError: the API does not accept the key") in said
    assert key not in said


@pytest.mark.parametrize("around", ["{}\n", " {} ", "\t{}\r\n"])
@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_stray_space_around_a_key_does_no_harm(
    around: str, name: str, tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv(name, around.format(KEY))
    [answer] = ask_all(tmp_path, [describe("a dog runs")])
    assert isinstance(answer, Answer)


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_key_is_none_and_leaves_the_place_to_a_token(
    empty: str, tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", empty)
    with pytest.raises(JudgeUsageError, match=r"ANTHROPIC_API_KEY is not set; set it$"):
        ask_all(tmp_path, [describe("a dog runs")])
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", KEY)
    [answer] = ask_all(tmp_path, [describe("a dog runs")])
    assert isinstance(answer, Answer)


@pytest.mark.parametrize("inside", ["sk ant", "sk\nant", "sk-änt", "sk\u200bant", "“sk-ant”"])
def test_a_key_that_cannot_be_one_is_named_and_not_shown(inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", inside)
    with pytest.raises(JudgeUsageError, match=r"^ANTHROPIC_API_KEY holds a space or a letter") as raised:
        check_key()
    assert inside not in str(raised.value)


def test_secrets_are_taken_out_of_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", f"{KEY}\n")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", WRONG)
    assert redact(f"x{KEY}y {WRONG}{WRONG}") == "x***y ******"


def test_an_unknown_model_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ClaudeApi(models=frozenset({"claude-haiku-5-5"})) as api:
        api_support.reach(monkeypatch, api)
        found = ask_all(tmp_path, [describe(caption) for caption in captions(100)])
        line = the_end(found, JudgeUsageError)
        assert "choose another model" in line
        assert "claude-sonnet-5-5" in line
        assert len(api.exchanges) <= 4


# ---- what one question meets, and what all do -----------------------------------------------------------------


def test_a_question_that_is_denied_ends_alone(tmp_path: Path, api: ClaudeApi) -> None:
    bad = [number % 5 == 0 for number in range(60)]
    asked = [describe(f"{caption}{' BAD-REQUEST' * is_bad}") for caption, is_bad in zip(captions(60), bad, strict=True)]
    found = ask_all(tmp_path, asked)
    assert [isinstance(end, RequestFailed) for end in found] == bad
    [again] = ask_all(tmp_path, asked[:1])
    assert isinstance(again, RequestFailed) and again.reason == "judge_error"


@pytest.mark.parametrize("counts_tokens", [False, True])
def test_many_in_a_row_that_are_denied_for_the_same_reason_stop_the_run(
    counts_tokens: bool, tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> None:
        raise ServerError(404, "no such address")

    if not counts_tokens:  # some proxies do not
        monkeypatch.setattr("tests.fakes.claude_api.routes.check_countable", missing)
    ask_all(tmp_path, [describe("a dog runs")])
    found = ask_all(tmp_path, [describe(f"{caption} BAD-REQUEST") for caption in captions(100)])
    stopped = [end for end in found if isinstance(end, JudgeStopped)]
    assert len(stopped) >= 60
    assert all("the API denies every question (last: HTTP 400" in str(end) for end in stopped)
    assert all(isinstance(end, JudgeStopped | RequestFailed) for end in found)


def test_answers_that_nobody_can_read_stop_the_run_before_many_are_paid_for(tmp_path: Path, api: ClaudeApi) -> None:
    api.faults = FaultSchedule(rates={"no-usage": 1.0}, max_per_body=10**6)
    found = ask_all(tmp_path, [describe(caption) for caption in captions(100)])
    assert any("gives no answer that can be read" in str(end) for end in found)
    assert len(api.paid) <= 64
    assert account(tmp_path).spent == 0


@pytest.mark.parametrize("fault", ["page", "no-usage", "negative-usage", "huge-usage", "503-after"])
def test_the_account_is_right_whatever_is_said_of_the_tokens(fault: str, tmp_path: Path, api: ClaudeApi) -> None:
    api.faults = FaultSchedule(rates={fault: 0.3}, max_per_body=1, retry_after=0.05)
    found = ask_all(tmp_path, [describe(caption) for caption in captions(60)])
    assert all(isinstance(answer, Answer) for answer in found)
    met = sum(exchange.fault == fault for exchange in api.exchanges)
    assert met > 5
    unread = [exchange for exchange in api.exchanges if exchange.fault == fault and exchange.usage]
    assert len(unread) == (0 if fault in ("page", "503-after") else met)
    # An answer that cannot be read counts as much as the one that could be.
    assert account(tmp_path).spent + account(tmp_path).lost == interactive_cost(api)
    assert account(tmp_path).spent == sum(paid_for(tmp_path).values())


def test_what_a_dearer_model_answers_is_reserved_at_its_price(tmp_path: Path, api: ClaudeApi) -> None:
    answer = api.answer

    def dearer(question: Question, tier: str) -> dict[str, Any]:
        # As many tokens as an answer may have.
        return answer(question, tier) | {
            "model": "claude-opus-5-5",
            "usage": {"input_tokens": 700, "output_tokens": 1024},
        }

    api.answer = dearer  # type: ignore[method-assign]
    retry_policy = replace(RETRY_POLICY, calls_at_once=2)
    found = ask_all(tmp_path, [describe(caption) for caption in captions(60)], budget="0.5", retry_policy=retry_policy)
    cost = Decimal(4 * 700 + 20 * 1024) / 1_000_000
    assert account(tmp_path).spent == cost * sum(isinstance(end, Answer) for end in found)
    # Only those that were under way before the first answer told of it may go beyond.
    assert account(tmp_path).spent <= Decimal("0.5") + 2 * cost


@pytest.mark.parametrize(
    ("name", "value"), [("ANTHROPIC_BASE_URL", "http://[::1"), ("ALL_PROXY", "socks9://nowhere:1")]
)
def test_an_address_that_is_none_is_a_mistake(
    name: str, value: str, tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(JudgeUsageError, match="no connection can be made with ANTHROPIC_BASE_URL and the proxies"):
        ask_all(tmp_path, [describe("a dog runs")])


# ---- outages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "last", "in_batches"),
    [
        ("overloaded", "HTTP 529", False),
        ("overloaded", "HTTP 529", True),
        ("down", "HTTP 503", False),
        ("down", "HTTP 503", True),
        ("page", "text/html, not JSON; is there a login page", False),
        ("page", "text/html, not JSON; is there a login page", True),
        ("deaf", "disconnected", False),
    ],
)
def test_an_outage_beyond_patience_stops_the_run_and_nothing_is_lost_by_it(
    state: str, last: str, in_batches: bool, tmp_path: Path, api: ClaudeApi
) -> None:
    requests = [describe(caption) for caption in captions(60)]
    ask_all(tmp_path, requests[:20])
    api.account = state
    found = ask_all(tmp_path, requests, retry_policy=SHORT_RETRY_POLICY, in_batches=in_batches)
    line = the_end(found, JudgeStopped)
    assert "the Claude API gave no answer for" in line
    assert last in line
    assert sum(isinstance(answer, Answer) for answer in found) == 20
    assert state == "deaf" or account(tmp_path).lost == 0
    api.account = "good"
    found = ask_all(tmp_path, requests, in_batches=in_batches)
    assert all(isinstance(answer, Answer) for answer in found)
    assert len(api.paid) == len(set(api.paid)) == 60


def test_an_api_that_was_never_there_stops_the_run_sooner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextscene.judge.api.backoff._FIRST_CONTACT_SECONDS", 0.3)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
    found = ask_all(tmp_path, [describe(caption) for caption in captions(20)])
    assert "ConnectError" in the_end(found, JudgeStopped)
    assert account(tmp_path).lost == account(tmp_path).allowance == 0


def test_an_outage_that_ends_in_time_is_only_a_wait(tmp_path: Path, api: ClaudeApi) -> None:
    async def run() -> list[Answer | BaseException]:
        async with open_client(tmp_path) as client:
            asked = [asyncio.ensure_future(client.ask(describe(caption), 0)) for caption in captions(40)]
            for state in ("down", "overloaded", "deaf"):
                api.account = state
                await asyncio.sleep(0.3)
                assert client.progress().trouble
            api.account = "good"
            return await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(answer, Answer) for answer in asyncio.run(run()))
    assert len(api.paid) == 40


@pytest.mark.parametrize(("fault", "tries"), [("ALWAYS-500", 8), ("an answer that counts too many tokens", 3)])
def test_the_last_questions_may_fail_by_themselves_without_other_answers(
    tmp_path: Path, api: ClaudeApi, fault: str, tries: int
) -> None:
    """Or else one question that never gets an answer would stop this run and every later one."""
    answer = api.answer

    def absurd(question: Question, tier: str) -> dict[str, Any]:
        usage = {"usage": {"input_tokens": 2**64, "output_tokens": 1}} if fault in question.text else {}
        return answer(question, tier) | usage

    api.answer = absurd  # type: ignore[method-assign]
    bad = [describe(f"{i} {fault}") for i in range(3)]
    good = [describe(caption) for caption in captions(5)]
    for asked in (good + bad, bad):
        found = ask_all(tmp_path, asked, retry_policy=SHORT_RETRY_POLICY)
        assert [type(answer) for answer in found[-3:]] == [RequestFailed] * 3
        assert all(isinstance(answer, Answer) for answer in found[:-3])
    names = {digest_of(request) for request in bad}
    assert min(sum(exchange.digest == name for exchange in api.exchanges) for name in names) >= tries


def test_an_outage_with_few_calls_at_once_is_not_blamed_on_the_questions(tmp_path: Path, api: ClaudeApi) -> None:
    """As with few calls at once, or when little of the budget is left."""
    requests = [describe(caption) for caption in captions(10)]
    ask_all(tmp_path, requests[:5])
    api.account = "down"
    found = ask_all(tmp_path, requests[5:], retry_policy=SHORT_RETRY_POLICY)
    assert "the Claude API gives no answer (last: HTTP 503" in the_end(found, JudgeStopped)


def test_a_denial_long_ago_makes_no_outage_of_one_rejection() -> None:
    watch = OutageDetector(replace(RETRY_POLICY, outage_seconds=0.01))
    watch.record_success()
    watch.record_error(ApiError("denied", "HTTP 400"))
    time.sleep(0.05)
    watch.record_error(ApiError("busy", "HTTP 529"))


def test_but_where_nothing_was_ever_answered_that_is_an_outage(tmp_path: Path, api: ClaudeApi) -> None:
    found = ask_all(tmp_path, [describe("ALWAYS-500")], retry_policy=SHORT_RETRY_POLICY)
    assert "HTTP 500" in the_end(found, JudgeStopped)
