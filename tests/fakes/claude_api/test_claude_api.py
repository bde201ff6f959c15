"""The loopback API, called through the real SDK: tests of the client are only as good as this server."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import anthropic
import av
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message

from tests.fakes.claude_api import KEY, AnswerRules, ClaudeApi, FaultSchedule, Limits, ServerError, digest
from tests.fakes.claude_api.limits import RateLimiter

pytestmark = pytest.mark.slow

SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "verdict": {"type": "string", "enum": ["Pass", "Fail"]}},
    "required": ["reason", "verdict"],
    "additionalProperties": False,
}


def body(text: str, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": text}]
    return {"model": "claude-haiku-5-5", "max_tokens": 1024, "messages": turns} | more


def describe(caption: str, *turned_down: str, **more: Any) -> dict[str, Any]:
    listed = "".join(f"\n- {scene}" for scene in turned_down)
    task = "Task: Predict the most likely prior event or activity."
    return body(f"{task}\nThe video shows: {caption}\nDescription:{listed}", **more)


def verify(scene: str, caption: str, *, structured: bool = True) -> dict[str, Any]:
    form = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}} if structured else {}
    task = "Determine whether the caption is semantically redundant with the scene description."
    return body(f"{task}\nScene Description: {scene}\nCaption: {caption}", **form)


def consistency(scene: str, caption: str) -> dict[str, Any]:
    task = "Determine whether there is logical causal consistency, and whether the caption is semantically redundant."
    said = f"{task}\nInput:\nScene Description: {scene}\nCaption: {caption}\nOutput:\nVerdict: Pass / Fail"
    return body(said, output_config={"format": {"type": "json_schema", "schema": SCHEMA}})


def captioning(*pictures: bytes) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = []
    for picture in pictures:
        source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(picture).decode()}
        blocks += [{"type": "text", "text": "0.00 s:"}, {"type": "image", "source": source}]
    return body("") | {"messages": [{"role": "user", "content": blocks}]}


def client(api: ClaudeApi, key: str = KEY) -> Anthropic:
    # Without TLS: loading the certificates would take longer than most of these tests.
    http = anthropic.DefaultHttpxClient(verify=False)
    return Anthropic(base_url=api.url, api_key=key, max_retries=0, http_client=http)


def ask(api: ClaudeApi, asked: dict[str, Any]) -> Message:
    with client(api) as claude:
        message: Message = claude.messages.create(**asked)
        return message


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def item(custom_id: str, params: dict[str, Any]) -> Any:
    return {"custom_id": custom_id, "params": params}


@pytest.fixture
def api() -> Iterator[ClaudeApi]:
    with ClaudeApi() as api:
        yield api


def test_an_answer_is_a_message_and_is_logged_and_paid(api: ClaudeApi) -> None:
    asked = describe("a dog runs", system="You are brief.")
    message = ask(api, asked)
    assert Message.model_validate(message.model_dump()) == message
    assert (message.type, message.role, message.model) == ("message", "assistant", "claude-haiku-5-5")
    assert (message.stop_reason, message.usage.service_tier) == ("end_turn", "standard")
    assert message._request_id
    [exchange] = api.exchanges
    assert exchange.body == asked
    assert (exchange.digest, exchange.status, exchange.delivered, exchange.fault) == (digest(asked), 200, True, "")
    assert exchange.in_flight == 1
    assert api.paid == [digest(asked)]
    characters = len(asked["messages"][0]["content"]) + len("You are brief.")
    assert message.usage.input_tokens == -(-characters // 4)
    assert message.usage.output_tokens == -(-len(text_of(message)) // 4)


def test_the_environment_is_enough_to_reach_it(api: ClaudeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in api.env.items():
        monkeypatch.setenv(name, value)
    with Anthropic() as claude:
        assert text_of(claude.messages.create(**describe("a dog runs")))


def test_the_same_question_gets_the_same_answer_from_any_server() -> None:
    answers = []
    for _ in range(2):
        with ClaudeApi() as api:
            answers.append([text_of(ask(api, describe(caption))) for caption in ("a dog runs", "a cat sits")])
    assert answers[0] == answers[1]
    assert len(set(answers[0])) == 2


def test_another_round_gets_another_scene_that_names_its_attempt(api: ClaudeApi) -> None:
    first = text_of(ask(api, describe("a dog runs")))
    second = text_of(ask(api, describe("a dog runs", first)))
    assert first.startswith("Earlier, ")
    assert first.endswith("(attempt 1)")
    assert second.endswith("(attempt 2)")
    assert first.split("(")[0] != second.split("(")[0]


def test_scenes_are_as_long_as_wished_on_average() -> None:
    with ClaudeApi(rules=AnswerRules(scene_words=40)) as api, client(api) as claude:
        lengths = [len(text_of(claude.messages.create(**describe(f"clip {i}"))).split()) for i in range(60)]
    assert 36 < sum(lengths) / len(lengths) < 44
    assert min(lengths) < 35 < 45 < max(lengths)


def test_verdicts_come_as_json_when_a_format_is_asked_and_as_text_when_not(api: ClaudeApi) -> None:
    assert json.loads(text_of(ask(api, verify("A dog sleeps.", "a dog runs"))))["verdict"] == "Pass"
    assert "Verdict: Pass" in text_of(ask(api, verify("A dog sleeps.", "a dog runs", structured=False)))


def test_the_pass_rate_is_kept() -> None:
    with ClaudeApi(rules=AnswerRules(pass_rate=0.3)) as api, client(api) as claude:
        answers = [text_of(claude.messages.create(**verify("A dog.", f"clip {i}"))) for i in range(200)]
    assert 0.2 < sum(json.loads(answer)["verdict"] == "Pass" for answer in answers) / 200 < 0.4


def test_a_video_is_judged_as_a_scene_is_by_the_two_texts_alone() -> None:
    with ClaudeApi(rules=AnswerRules(pass_rate=0.5)) as api, client(api) as claude:
        for number in range(20):
            scene, caption = f"A dog {number}.", f"clip {number}"
            answers = [
                text_of(claude.messages.create(**asked))
                for asked in (verify(scene, caption), consistency(scene, caption))
            ]
            assert answers[0] == answers[1]
        assert claude.messages.create(**consistency("A dog.", "REFUSE-VERIFY")).stop_reason == "refusal"


def test_a_share_of_the_captions_gets_each_marker_always_the_same() -> None:
    marked = {"GARBLED": 0.3, "REFUSE-CAPTION": 0.2}
    pictures = [struct.pack(">16sII", b"\x89PNG\r\n\x1a\n", 28, number) for number in range(1, 101)]
    found = []
    for _ in range(2):
        with ClaudeApi(rules=AnswerRules(marked=marked)) as api, client(api) as claude:
            answers = [claude.messages.create(**captioning(picture)) for picture in pictures]
        found.append([(answer.stop_reason, text_of(answer)) for answer in answers])
    assert found[0] == found[1]
    assert 10 < sum(reason == "refusal" for reason, _ in found[0]) < 30
    assert 20 < sum(text.endswith(" GARBLED") for _, text in found[0]) < 40


@pytest.mark.parametrize(
    ("marker", "verdicts"),
    [
        ("FAIL1", "Fail Pass Pass"),
        ("FAIL2", "Fail Fail Pass"),
        ("FAIL3", "Fail Fail Fail"),
        ("SHOUT", "PASS PASS PASS"),
    ],
)
def test_a_marker_fails_its_attempts_however_often_they_are_judged(api: ClaudeApi, marker: str, verdicts: str) -> None:
    for attempt, verdict in enumerate(verdicts.split(), start=1):
        for _ in range(2):
            answer = text_of(ask(api, verify(f"Earlier, ba. (attempt {attempt})", f"{marker} a dog runs")))
            assert json.loads(answer)["verdict"] == verdict


def test_a_marker_can_make_an_answer_unusable_or_odd(api: ClaudeApi) -> None:
    garbled = text_of(ask(api, verify("A dog.", "GARBLED"))).lower()
    assert "pass" not in garbled
    assert "fail" not in garbled
    assert "```json\n{" in text_of(ask(api, verify("A dog.", "FENCED")))
    assert text_of(ask(api, describe("EMPTY"))) == ""
    thinking = ask(api, describe("THINKS"))
    assert [block.type for block in thinking.content] == ["thinking", "text"]


def test_a_refusal_is_a_message_without_content(api: ClaudeApi) -> None:
    for asked in (describe("REFUSE-DESCRIBE"), verify("A dog.", "REFUSE-VERIFY")):
        message = ask(api, asked)
        assert (message.content, message.stop_reason) == ([], "refusal")
        assert message.stop_details
        assert message.stop_details.category == "frontier_llm"
    assert text_of(ask(api, describe("REFUSE-VERIFY")))


def test_a_cut_answer_is_whole_with_more_room_unless_it_is_always_cut(api: ClaudeApi) -> None:
    reasons = [
        ask(api, describe(f"TRUNCATE-{how}", max_tokens=room)).stop_reason
        for how in ("ONCE", "ALWAYS")
        for room in (1024, 2048)
    ]
    assert reasons == ["max_tokens", "end_turn", "max_tokens", "max_tokens"]


def test_markers_for_errors_are_errors(api: ClaudeApi) -> None:
    with pytest.raises(anthropic.BadRequestError):
        ask(api, describe("BAD-REQUEST"))
    with pytest.raises(anthropic.InternalServerError):
        ask(api, describe("ALWAYS-500"))
    with pytest.raises(anthropic.BadRequestError):
        ask(api, verify("A dog.", "BAD-REQUEST"))
    assert [exchange.status for exchange in api.exchanges] == [400, 500, 400]
    assert api.paid == []


def image(codec: str, pixels: str) -> bytes:
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 560, 337, pixels, Fraction(1)
    return b"".join(
        bytes(packet) for frame in (av.VideoFrame(560, 337, pixels), None) for packet in encoder.encode(frame)
    )


@pytest.mark.parametrize(("form", "codec", "pixels"), [("jpeg", "mjpeg", "yuvj420p"), ("png", "png", "rgb24")])
def test_images_are_captioned_and_counted_by_their_size(api: ClaudeApi, form: str, codec: str, pixels: str) -> None:
    data = base64.b64encode(image(codec, pixels)).decode()
    source = {"type": "base64", "media_type": f"image/{form}", "data": data}
    blocks = [{"type": "text", "text": "t=0.0"}, {"type": "image", "source": source}] * 2
    message = ask(api, body("") | {"messages": [{"role": "user", "content": blocks}]})
    assert text_of(message).startswith("A clip with 2 frames, ")
    assert message.usage.input_tokens == 3 + 2 * 20 * 13


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"temperature": 0.5}, anthropic.BadRequestError),
        ({"colour": "red"}, anthropic.BadRequestError),
        ({"max_tokens": 0}, anthropic.BadRequestError),
        ({"messages": []}, anthropic.BadRequestError),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, anthropic.BadRequestError),
        ({"system": 5}, anthropic.BadRequestError),
        ({"output_config": 5}, anthropic.BadRequestError),
        ({"model": ["x"]}, anthropic.BadRequestError),
        ({"model": "claude-3-7-sonnet-20250219"}, anthropic.NotFoundError),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            anthropic.BadRequestError,
        ),
    ],
)
def test_an_invalid_body_is_told_so(
    api: ClaudeApi, wrong: dict[str, Any], error: type[anthropic.APIStatusError]
) -> None:
    with client(api) as claude, pytest.raises(error) as raised:
        claude.messages.create(**body("hello"), extra_body=wrong)
    assert raised.value.request_id
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["request_id"] == raised.value.request_id


def test_a_wrong_key_is_echoed_and_a_wrong_version_refused(api: ClaudeApi) -> None:
    with client(api, "sk-ant-wrong") as claude, pytest.raises(anthropic.AuthenticationError, match="sk-ant-wrong"):
        claude.messages.create(**body("hello"))
    with client(api) as claude, pytest.raises(anthropic.BadRequestError, match="anthropic-version"):
        claude.messages.create(**body("hello"), extra_headers={"anthropic-version": "2023-06-01"})
    assert [exchange.status for exchange in api.exchanges] == [401, 400]


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("spend_limit", anthropic.RateLimitError, "monthly API usage threshold"),
        ("user_limit", anthropic.BadRequestError, "You have reached your specified API usage limits"),
        ("no_credit", anthropic.PaymentRequiredError, "credit balance"),
        ("forbidden", anthropic.PermissionDeniedError, "permission"),
        ("disabled", anthropic.BadRequestError, "This organization has been disabled"),
        ("overloaded", anthropic.OverloadedError, "Overloaded"),
        ("down", anthropic.ServiceUnavailableError, "unavailable"),
        ("deaf", anthropic.APIConnectionError, "Connection error"),
    ],
)
def test_an_account_in_trouble_gets_no_answer_until_it_is_good_again(
    api: ClaudeApi, state: str, error: type[anthropic.APIError], words: str
) -> None:
    with client(api) as claude:
        api.account = state
        with pytest.raises(error, match=words) as raised:
            claude.messages.create(**body("hello"))
        with pytest.raises(error):
            claude.messages.batches.create(requests=[item("a", body("hello"))])
        api.account = "good"
        assert text_of(claude.messages.create(**body("hello")))
    code = "enforced_spend_limit_reached" if state == "spend_limit" else None
    assert getattr(raised.value, "error_code", None) == code
    if isinstance(raised.value, anthropic.APIStatusError):
        assert "retry-after" not in raised.value.response.headers
    assert [exchange.fault for exchange in api.exchanges] == [state, ""]
    assert len(api.paid) == 1
    assert api.batches == []


@pytest.mark.parametrize(
    ("fault", "error", "logged"),
    [
        ("429", anthropic.RateLimitError, (429, True)),
        ("429-after", anthropic.RateLimitError, (429, True)),
        ("529", anthropic.OverloadedError, (529, True)),
        ("500", anthropic.InternalServerError, (500, True)),
        ("503-after", anthropic.ServiceUnavailableError, (503, True)),
        ("drop-before", anthropic.APIConnectionError, (0, True)),
        ("drop-after", anthropic.APIConnectionError, (200, False)),
    ],
)
def test_a_fault_strikes_and_passes(fault: str, error: type[anthropic.APIError], logged: tuple[int, bool]) -> None:
    with (
        ClaudeApi(faults=FaultSchedule(rates={fault: 1.0}, max_per_body=2, retry_after=3)) as api,
        client(api) as claude,
    ):
        for _ in range(2):
            with pytest.raises(error) as raised:
                claude.messages.create(**body("hello"))
        assert text_of(claude.messages.create(**body("hello")))
        assert [exchange.fault for exchange in api.exchanges] == [fault, fault, ""]
        assert (api.exchanges[0].status, api.exchanges[0].delivered) == logged
        assert len(api.paid) == (3 if fault == "drop-after" else 1)
    if isinstance(raised.value, anthropic.APIStatusError):
        after = raised.value.response.headers.get("retry-after")
        assert after == ("3" if fault.endswith("-after") else None)


@pytest.mark.parametrize("usage", [None, -36_000_000, 1_000_000_000])
def test_the_reported_tokens_of_an_answer_may_differ_from_the_billed_ones(usage: int | None) -> None:
    fault = {None: "no-usage", -36_000_000: "negative-usage"}.get(usage, "huge-usage")
    with ClaudeApi(faults=FaultSchedule(rates={fault: 1.0}, max_per_body=1)) as api, client(api) as claude:
        odd, true = (claude.messages.create(**body("hello")) for _ in range(2))
        assert (odd.usage and odd.usage.input_tokens) == usage
        assert true.usage.input_tokens == 2 and len(api.paid) == 2
        assert [exchange.usage and exchange.usage["input_tokens"] for exchange in api.exchanges] == [2, 2]


def test_a_page_that_no_model_made_comes_with_status_200_and_costs_nothing() -> None:
    with ClaudeApi(faults=FaultSchedule(rates={"page": 1.0}, max_per_body=1)) as api, client(api) as claude:
        assert "Sign in" in str(claude.messages.create(**body("hello")))
        assert text_of(claude.messages.create(**body("hello")))
        assert [(exchange.status, exchange.fault) for exchange in api.exchanges] == [(200, "page"), (200, "")]
        assert len(api.paid) == 1


def test_an_address_that_leads_elsewhere_says_where(api: ClaudeApi) -> None:
    api.account = "redirect"
    http = anthropic.DefaultHttpxClient(verify=False, follow_redirects=False)
    claude = Anthropic(base_url=api.url, api_key=KEY, max_retries=0, http_client=http)
    with claude, pytest.raises(anthropic.APIStatusError) as raised:
        claude.messages.create(**body("hello"))
    assert raised.value.status_code == 302
    assert raised.value.response.headers["location"].startswith("https://login.example/")
    assert [(exchange.status, exchange.fault) for exchange in api.exchanges] == [(302, "redirect")]


def test_the_account_turns_after_so_many_answers_and_another_model_may_serve(api: ClaudeApi) -> None:
    api.account_after = (2, "disabled")
    assert [ask(api, body(text)).model for text in ("hello", "hello DEARER")] == ["claude-haiku-5-5", "claude-opus-5-5"]
    with pytest.raises(anthropic.BadRequestError, match="disabled"):
        ask(api, body("hello"))


def test_a_slow_answer_arrives_whole_or_runs_into_the_clients_timeout() -> None:
    with (
        ClaudeApi(faults=FaultSchedule(rates={"slow": 1.0}, max_per_body=2, slow_seconds=0.3)) as api,
        client(api) as claude,
    ):
        began = time.monotonic()
        assert text_of(claude.messages.create(**body("hello")))
        assert time.monotonic() - began > 0.25
        with pytest.raises(anthropic.APITimeoutError):
            claude.with_options(timeout=0.02).messages.create(**body("hello"))
        assert text_of(claude.messages.create(**body("goodbye, slowly")))
        assert [exchange.delivered for exchange in api.exchanges] == [True, False, True]


def test_the_weather_depends_on_seed_body_and_arrival_alone() -> None:
    faults = FaultSchedule(seed=1, rates={"429": 0.3, "529": 0.3}, max_per_body=3)
    bodies = [digest(body(f"clip {i}")) for i in range(300)]
    met = {name: [faults.fault(name, arrival) for arrival in range(1, 13)] for name in bodies}
    assert met == {name: [faults.fault(name, arrival) for arrival in range(1, 13)] for name in reversed(bodies)}
    assert max(sum(map(bool, faults)) for faults in met.values()) == 3
    assert 0.5 < sum(faults[0] != "" for faults in met.values()) / 300 < 0.7
    assert met != {
        name: [FaultSchedule(seed=2, rates=faults.rates).fault(name, n) for n in range(1, 13)] for name in bodies
    }


async def ask_many(api: ClaudeApi, count: int) -> list[Message | BaseException]:
    async with AsyncAnthropic(base_url=api.url, api_key=KEY, max_retries=0) as claude:
        asked = [claude.messages.create(**describe(f"clip {i}")) for i in range(count)]
        return await asyncio.gather(*asked, return_exceptions=True)


def test_256_are_answered_at_once() -> None:
    with ClaudeApi(limits=Limits(latency=1.0)) as api:
        answers = asyncio.run(ask_many(api, 256))
        assert all(isinstance(answer, Message) for answer in answers)
        # All 256 at once, if this machine can send them fast enough.
        assert api.max_in_flight == max(exchange.in_flight for exchange in api.exchanges) > 128
        assert len({answer._request_id for answer in answers if isinstance(answer, Message)}) == 256


def test_more_at_once_than_allowed_are_turned_away_without_a_time() -> None:
    with ClaudeApi(limits=Limits(latency=1.0, concurrent=4)) as api:
        answers = asyncio.run(ask_many(api, 10))
        turned_away = [answer for answer in answers if isinstance(answer, anthropic.RateLimitError)]
        assert len(turned_away) == 6
        assert all("retry-after" not in error.response.headers for error in turned_away)
        assert sum(exchange.fault == "concurrent" for exchange in api.exchanges) == 6


def test_requests_per_minute_are_limited_and_each_response_says_what_is_left() -> None:
    with ClaudeApi(limits=Limits(requests_per_minute=6, burst=2)) as api, client(api) as claude:
        answered = claude.messages.with_raw_response.create(**body("hello"))
        assert answered.headers["anthropic-ratelimit-requests-limit"] == "6"
        assert answered.headers["anthropic-ratelimit-requests-remaining"] == "3"
        assert answered.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        claude.messages.create(**body("hello"))
        with pytest.raises(anthropic.RateLimitError) as raised:
            claude.messages.create(**body("hello"))
        assert 1 <= int(raised.value.response.headers["retry-after"]) <= 10
        assert raised.value.response.headers["anthropic-ratelimit-requests-remaining"] < "3"
        assert [exchange.fault for exchange in api.exchanges] == ["", "", "requests"]


def test_the_bucket_fills_up_again_and_no_higher() -> None:
    now = 0.0
    rate_limiter = RateLimiter(Limits(requests_per_minute=120, burst=3), clock=lambda: now)
    for moment, let_in in [(0.0, 3), (0.25, 0), (0.5, 1), (1.5, 2), (60.0, 3)]:
        now = moment
        for _ in range(let_in):
            rate_limiter.enter(1, 0)
        with pytest.raises(ServerError, match="120 requests per minute"):
            rate_limiter.enter(1, 0)


def test_tokens_a_minute_are_limited_too() -> None:
    limits = Limits(input_tokens_per_minute=6000, output_tokens_per_minute=60)
    with ClaudeApi(limits=limits) as api, client(api) as claude:
        answered = claude.messages.with_raw_response.create(**describe("a dog runs"))
        assert answered.headers["anthropic-ratelimit-input-tokens-limit"] == "6000"
        assert int(answered.headers["anthropic-ratelimit-output-tokens-remaining"]) == 0
        with pytest.raises(anthropic.RateLimitError, match="output-tokens") as raised:
            claude.messages.create(**describe("a dog runs"))
        assert int(raised.value.response.headers["retry-after"]) >= 1


def test_tokens_can_be_counted_and_models_looked_up(api: ClaudeApi) -> None:
    with client(api) as claude:
        asked = body("hello there")
        del asked["max_tokens"]
        assert claude.messages.count_tokens(**asked).input_tokens == 3
        info = claude.models.retrieve("claude-sonnet-5-5")
        assert (info.id, info.lifecycle, info.line) == ("claude-sonnet-5-5", "active", "sonnet")
        with pytest.raises(anthropic.NotFoundError):
            claude.models.retrieve("claude-3-7-sonnet-20250219")


def test_a_batch_runs_until_ended_and_returns_its_items_in_another_order() -> None:
    captions = ["a dog runs", "BAD-REQUEST", "ALWAYS-500", "a cat sits", "late"]

    def fates(custom_id: str, params: dict[str, Any], nth: int) -> str:
        return "expired" if custom_id == "c4" and nth == 1 else "succeeded"

    requests = [item(f"c{i}", describe(caption)) for i, caption in enumerate(captions)]
    with ClaudeApi(batch_seconds=None, batch_fates=fates) as api, client(api) as claude:
        batch = claude.messages.batches.create(requests=requests)
        assert (batch.processing_status, batch.request_counts.processing) == ("in_progress", 5)
        assert claude.messages.batches.retrieve(batch.id).results_url is None
        api.finish_batches()
        batch = claude.messages.batches.retrieve(batch.id)
        assert batch.processing_status == "ended"
        assert batch.request_counts.model_dump() == {
            "processing": 0,
            "succeeded": 2,
            "errored": 2,
            "canceled": 0,
            "expired": 1,
        }
        lines = list(claude.messages.batches.results(batch.id))
        results = {line.custom_id: line.result for line in lines}
        assert [line.custom_id for line in lines] != api.batches[0].custom_ids == sorted(results)
        assert [results[f"c{i}"].type for i in range(5)] == ["succeeded", "errored", "errored", "succeeded", "expired"]
        kinds = [result.error.error.type for result in results.values() if result.type == "errored"]
        assert sorted(kinds) == ["api_error", "invalid_request_error"]
        assert results["c0"].type == "succeeded"
        assert text_of(results["c0"].message) == text_of(claude.messages.create(**describe("a dog runs")))
        assert results["c0"].message.usage.service_tier == "batch"
        assert sorted(api.paid) == sorted(digest(describe(captions[i])) for i in (0, 0, 3))
        again = claude.messages.batches.create(requests=requests[4:])
        api.finish_batches()
        assert claude.messages.batches.retrieve(again.id).request_counts.succeeded == 1


def test_batches_are_listed_newest_first_in_pages(api: ClaudeApi) -> None:
    with client(api) as claude:
        made = [claude.messages.batches.create(requests=[item("a", body(f"{i}"))]).id for i in range(5)]
        page = claude.messages.batches.list(limit=2)
        assert [batch.id for batch in page.data] == made[:2:-1]
        assert (page.has_more, page.first_id, page.last_id) == (True, made[4], made[3])
        assert [batch.id for batch in claude.messages.batches.list(limit=2)] == made[::-1]
        newer = claude.messages.batches.list(limit=2, before_id=made[1])
        assert ([batch.id for batch in newer.data], newer.has_more) == ([made[3], made[2]], True)


def test_a_canceled_batch_ends_with_nothing_paid() -> None:
    with ClaudeApi(batch_seconds=None) as api, client(api) as claude:
        batch = claude.messages.batches.create(requests=[item("a", body("hello"))])
        assert claude.messages.batches.cancel(batch.id).processing_status == "canceling"
        assert claude.messages.batches.retrieve(batch.id).request_counts.canceled == 1
        assert [line.result.type for line in claude.messages.batches.results(batch.id)] == ["canceled"]
        assert api.paid == []


@pytest.mark.parametrize(
    ("fault", "error", "created"),
    [
        ("429", anthropic.RateLimitError, 0),
        ("500-before", anthropic.InternalServerError, 0),
        ("500-after", anthropic.InternalServerError, 1),
        ("502-before", anthropic.InternalServerError, 0),
        ("drop-before", anthropic.APIConnectionError, 0),
        ("drop-after", anthropic.APIConnectionError, 1),
    ],
)
def test_a_fault_on_creation_leaves_a_batch_or_not(
    api: ClaudeApi, fault: str, error: type[anthropic.APIError], created: int
) -> None:
    api.create_faults = [fault, "slow"]
    api.faults = FaultSchedule(slow_seconds=0.1)
    with client(api) as claude:
        with pytest.raises(error):
            claude.messages.batches.create(requests=[item("a", body("hello"))])
        assert len(api.batches) == created
        claude.messages.batches.create(requests=[item("a", body("hello"))])
        assert len(list(claude.messages.batches.list())) == created + 1


@pytest.mark.parametrize("fault", ["drop-late", "504-late"])
def test_a_batch_may_be_there_before_anybody_is_told_of_it(api: ClaudeApi, fault: str) -> None:
    api.create_faults = [fault]
    with client(api) as claude:
        with pytest.raises(anthropic.APIError):
            claude.messages.batches.create(requests=[item("a", body("hello"))])
        assert len(api.batches) == 1 and list(claude.messages.batches.list()) == []
        api.reveal_batches()
        assert [batch.id for batch in claude.messages.batches.list()] == [api.batches[0].id]


def test_results_may_stand_there_twice_and_are_paid_once() -> None:
    fates = {"a": "twice", "b": "errored-too", "c": "disabled"}
    with ClaudeApi(batch_fates=lambda name, params, nth: fates[name]) as api, client(api) as claude:
        made = claude.messages.batches.create(requests=[item(name, body(name)) for name in fates])
        api.finish_batches()
        found = [(entry.custom_id, entry.result.type) for entry in claude.messages.batches.results(made.id)]
        assert sorted(found) == [*[("a", "succeeded")] * 2, ("b", "errored"), ("b", "succeeded"), ("c", "errored")]
        assert claude.messages.batches.retrieve(made.id).request_counts.succeeded == 2
        assert len(api.paid) == 2


def test_a_batch_that_breaks_the_rules_is_not_created() -> None:
    with ClaudeApi(batch_requests=2, batch_bytes=1000) as api, client(api) as claude:
        twice, many = [item("a", body("1"))] * 2, [item(str(i), body("1")) for i in range(3)]
        for requests in (twice, many, [item("a b", body("1"))], []):
            with pytest.raises(anthropic.BadRequestError):
                claude.messages.batches.create(requests=requests)
        with pytest.raises(anthropic.ContentTooLargeError):
            claude.messages.batches.create(requests=[item("a", body("1" * 1000))])
        assert api.batches == []


def test_it_serves_as_a_process_until_stdin_ends() -> None:
    command = [sys.executable, "-m", "tests.fakes.claude_api", "--latency", "0.01", "--fault", "529=1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        with Anthropic(base_url=url, api_key=KEY, max_retries=0) as claude:
            for _ in range(3):
                with pytest.raises(anthropic.OverloadedError):
                    claude.messages.create(**body("hello"))
            assert text_of(claude.messages.create(**body("hello")))
        said, told = process.communicate(timeout=10)
    assert json.loads(said) == {"statuses": {"200": 1, "529": 3}, "max_in_flight": 1}
    assert told.splitlines() == [f"export ANTHROPIC_API_KEY={KEY}", f"export ANTHROPIC_BASE_URL={url}"]
