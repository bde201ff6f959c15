"""A finished call: read from whatever came back, kept on one line."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from decimal import Decimal
from typing import Any, get_args

import anthropic
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.judge.api.answer import Answer, InvalidResponse
from nextscene.judge.api.client import read_message
from nextscene.judge.api.errors import classify_exception
from nextscene.judge.spending.prices import Usage
from tests.judge.support import REFUSAL, SONNET, TOKENS, USD, answer, message, price

THOUGHT = {"type": "thinking", "thinking": "What came before?", "signature": "x"}


def of(value: Any, **known: Any) -> Answer:
    return Answer.from_message("k", value, price(), **known)


def test_a_plain_message() -> None:
    assert of(message("A dog barks."), request_id="req_1", tries=3) == Answer(
        key="k",
        status="whole",
        text="A dog barks.",
        stop_reason="end_turn",
        category="",
        explanation="",
        model_asked=SONNET,
        model_served=SONNET,
        message_id="msg_1",
        request_id="req_1",
        batch_id="",
        usage=TOKENS,
        usd=USD,
        tries=3,
        shared=False,
    )


def test_out_of_a_batch_it_costs_half() -> None:
    found = of(message(), batch_id="msgbatch_1")
    assert (found.usd, found.batch_id, found.request_id) == (USD / 2, "msgbatch_1", "")


STATUS = {
    "end_turn": "whole",
    "stop_sequence": "whole",
    "tool_use": "whole",
    "pause_turn": "whole",
    "max_tokens": "truncated",
    "model_context_window_exceeded": "truncated",
    "refusal": "refused",
}


def test_every_stop_reason_that_the_sdk_knows_has_a_status() -> None:
    assert set(STATUS) == set(get_args(anthropic.types.StopReason))


@pytest.mark.parametrize("reason", STATUS)
def test_the_status_follows_from_the_stop_reason_which_is_kept(reason: str) -> None:
    found = of(message("text", stop_reason=reason))
    assert (found.status, found.stop_reason, found.text) == (STATUS[reason], reason, "text")


def test_a_refusal_says_why_as_far_as_the_api_does() -> None:
    found = of(message(**REFUSAL))
    assert (found.status, found.category, found.explanation, found.text) == ("refused", "cyber", "It will not.", "")
    silent: list[Any] = [None, {}, {"category": None, "explanation": None}]
    for details in silent:
        found = of(message(**(REFUSAL | {"stop_details": details})))
        assert (found.status, found.category, found.explanation) == ("refused", "", "")


def test_the_text_is_all_text_blocks_and_no_thought() -> None:
    blocks = [THOUGHT, {"type": "text", "text": "A dog "}, {"type": "redacted_thinking", "data": "x"}]
    found = of(message(content=[*blocks, {"type": "text", "text": "barks.", "citations": None}]))
    assert found.text == "A dog barks."
    assert of(message(content=[])).text == of(message(content=[THOUGHT])).text == ""


def test_tokens_are_told_apart_by_what_they_cost() -> None:
    usage: dict[str, Any] = {
        "input_tokens": 7,
        "output_tokens": 50,
        "cache_read_input_tokens": 30,
        "cache_creation_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
        "output_tokens_details": {"thinking_tokens": 20},
        "service_tier": "standard",
    }
    found = of(message(usage=usage))
    assert found.usage == Usage(7, 50, cache_read=30, cache_write_5m=60, cache_write_1h=40, thinking_tokens=20)
    # (7 × 2 + 50 × 10 + 30 × 0.2 + 60 × 2.5 + 40 × 4) / 1,000,000
    assert found.usd == Decimal("0.000830")
    absent: list[dict[str, Any]] = [{"cache_creation": None, "output_tokens_details": None}, {"cache_creation": {}}]
    for none in absent:
        usage |= none
        assert of(message(usage=usage)).usage == Usage(7, 50, cache_read=30, cache_write_5m=100)


def test_fields_that_are_missing_or_null_count_as_nothing() -> None:
    usage = {"input_tokens": 100, "output_tokens": 10, "cache_creation_input_tokens": None}
    assert of(message(usage={**usage, "cache_read_input_tokens": None})).usage == TOKENS


GARBLED: list[tuple[str, Any]] = [
    ("content", None),
    ("content", 3),
    ("content", "text"),
    ("content", ["text"]),
    ("content", [{}]),
    ("content", [{"type": "text"}]),
    ("content", [{"type": "text", "text": None}]),
    ("usage", None),
    ("usage", {}),
    ("usage", {"input_tokens": 1}),
    ("usage", {"input_tokens": None, "output_tokens": 1}),
    ("usage", {"input_tokens": float("inf"), "output_tokens": 1}),
    ("stop_reason", []),
    ("stop_details", 3),
    ("usage", {"input_tokens": "many", "output_tokens": 1}),
    ("usage", {"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": "x"}),
]


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        [],
        "text",
        3,
        {},
        {"type": "error", "error": {"type": "api_error", "message": "x"}},
        *(message() | {name: value} for name, value in GARBLED),
        *(
            {name: value for name, value in message().items() if name != gone}
            for gone in ("content", "stop_reason", "usage", "model", "id")
        ),
    ],
)
def test_what_is_no_message_is_no_answer(garbage: Any) -> None:
    with pytest.raises(InvalidResponse, match="what came back is not a message"):
        of(garbage)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
USAGE = {"input_tokens": 1, "output_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": 0}}


@given(
    st.dictionaries(st.sampled_from([*message(), "stop_details"]), json_values),
    st.dictionaries(st.sampled_from(["input_tokens", "output_tokens", "cache_read_input_tokens", "x"]), json_values),
)
def test_any_json_is_an_answer_that_can_be_kept_or_no_answer(changes: dict[str, Any], usage: dict[str, Any]) -> None:
    try:
        found = of({**message(usage={**USAGE, **usage}), **changes})
    except InvalidResponse:
        return
    assert Answer.from_line(found.to_line()) == found


texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]))
answers = st.builds(
    Answer,
    key=texts,
    status=st.sampled_from(["whole", "refused", "truncated"]),
    text=texts,
    stop_reason=texts,
    category=st.from_regex(r"[a-z]*", fullmatch=True),
    explanation=texts,
    model_asked=texts,
    model_served=texts,
    message_id=texts,
    request_id=texts,
    batch_id=texts,
    usage=st.builds(Usage, *[st.integers(0, 10**9)] * 6),
    usd=st.decimals(0, 10**6, allow_nan=False),
    tries=st.integers(1),
    shared=st.booleans(),
)


@given(answers)
def test_an_answer_round_trips_through_one_line_for_every_line_reader(found: Answer) -> None:
    line = found.to_line()
    assert Answer.from_line(line) == found
    assert str(Answer.from_line(line).usd) == str(found.usd), "to the last zero"
    assert line.endswith(b"\n") and len(line.splitlines()) == len(line.decode().splitlines()) == 1


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert answer("k", "a \ud83d").text == "a ?"


HOSTILE: dict[str, Any] = {
    "id": "msg \ud83d\x1b[0m" + "x" * 10**6,
    "model": "\0" * 10**6,
    "stop_reason": "\udce9" * 10**6,
    "stop_details": {"category": "bio |\n\ud83d" + "x" * 10**6, "explanation": "\ud83d\x1b" * 10**6},
}


def test_what_else_the_api_says_can_be_written_down_and_is_short() -> None:
    found = answer("k", "a \ud83d\0", **HOSTILE)
    names = {"message_id": HOSTILE["id"], "model_served": HOSTILE["model"], "stop_reason": HOSTILE["stop_reason"]}
    old = replace(found, text="a \ud83d", **names, **HOSTILE["stop_details"])
    assert found.category == f"bio_{'x' * 57}" and found.message_id.startswith("msg \\ud83d\\x1b[0mx")
    assert replace(Answer.from_line(old.to_line()), text="a ??") == found, "also where an older version stored it"
    line = json.dumps(asdict(found), ensure_ascii=False, default=str).encode()
    assert len(line) < 7000 and b"\x1b" not in line and b"\0" not in line


def test_a_response_that_is_nested_without_end_is_no_answer_and_tried_again() -> None:
    with pytest.raises(InvalidResponse, match="not whole"):
        read_message(httpx2.Response(200, content=b'{"content": ' + b"[" * 100_000))
    assert classify_exception(RecursionError("too deep"), str).kind == "lost", "in the results of a batch"


def test_a_text_too_long_to_be_data_is_none_and_says_so() -> None:
    found = answer("k", "é" * (1 << 20))
    assert (found.text, found.explanation) == ("", "an answer of 2,097,152 bytes, 1,048,576 are the most")
    assert answer("k", "é" * (1 << 19)).text == "é" * (1 << 19)


def test_endlessly_nested_details_are_an_invalid_answer_with_a_short_message() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidResponse):
        of(message(stop_details={"category": deep}))
    assert len(classify_exception(InvalidResponse("x" * 10**6), str).message) <= 4096


@pytest.mark.parametrize("name", ["input_tokens", "output_tokens", "cache_read_input_tokens"])
@pytest.mark.parametrize("count", [10**10, 2**63, -(10**400), 1e400, -1, -36_000_000])
def test_tokens_that_no_answer_has_are_no_answer(name: str, count: Any) -> None:
    with pytest.raises(InvalidResponse):
        of(message(usage={"input_tokens": 1, "output_tokens": 1, name: count}))


@pytest.mark.parametrize(
    "usage", [{"input_tokens": 100, "output_tokens": 121}, {"input_tokens": 601, "output_tokens": 10}]
)
def test_usage_far_beyond_what_an_answer_can_cost_is_none(usage: dict[str, int]) -> None:
    # 4 × $0.00035 are 700 tokens at $2 and none at $10 a million, or 140 at $10.
    of(message(usage=usage), worst=Decimal("0.0004"))
    with pytest.raises(InvalidResponse, match="it counts"):
        of(message(usage=usage), worst=Decimal("0.000325"))


@pytest.mark.parametrize(
    ("served", "usd"),
    [
        ("claude-opus-5-5", "0.0006"),
        ("claude-opus-5-5-20261101", "0.0006"),
        ("claude-haiku-5-5", "0.000015"),
        ("claude-sonnet-5-5-20261101", "0.0003"),
        ("claude-sonnet-5-7", "0.0003"),
        ("gpt", "0.0003"),
    ],
)
def test_an_answer_costs_what_the_model_that_gave_it_does(served: str, usd: str) -> None:
    # 100 and 10 tokens: at $4 and $20, at $0.10 and $0.50, at $2 and $10 a million.
    assert of(message(model=served)).usd == Decimal(usd)
    assert of(message(model=served), batch_id="b").usd == Decimal(usd) / 2


@given(st.binary(max_size=20), st.integers(0, 500))
def test_a_line_that_is_no_answer_raises_what_it_says_it_raises(garbage: bytes, end: int) -> None:
    line = answer("k").to_line().rstrip(b"\n")
    for damaged in (garbage, line[: min(end, len(line) - 1)], json.dumps({"key": "k"}).encode()):
        with pytest.raises((ValueError, KeyError, TypeError)):
            Answer.from_line(damaged)


def test_no_other_field_of_an_answer_is_lost_when_it_is_shared() -> None:
    shared = replace(answer("k"), usd=Decimal(0), shared=True)
    assert Answer.from_line(shared.to_line()) == shared
