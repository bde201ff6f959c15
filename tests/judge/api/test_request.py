"""A question's body, its key, and the bounds on its size."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any, Literal

import av
import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextscene.common.text import MAX_TEXT_BYTES
from nextscene.judge.api.backoff import RetryPolicy
from nextscene.judge.api.batch_gatherer import MAX_BYTES
from nextscene.judge.api.client import connect, worst_cost
from nextscene.judge.api.request import Frame, Request, Task
from nextscene.judge.base import Question
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.request_builder import RequestBuilder
from nextscene.judge.verdict_parser import SCHEMA
from tests.fakes.claude_api import AnswerRules, ClaudeApi
from tests.fakes.claude_api import Question as Heard
from tests.judge.api_support import listen
from tests.judge.support import price

texts = st.text(st.characters(exclude_categories=["Cs"]))
frames = st.builds(Frame, st.floats(0, 600), st.integers(1, 2000), st.integers(1, 2000), st.binary(max_size=50))
requests = st.builds(
    Request,
    task=st.sampled_from(["caption", "describe", "verify", "consistency"]),
    prompt=texts,
    prompt_sha256=texts,
    model=st.just("claude-sonnet-5-5"),
    effort=st.sampled_from(["", "low", "high"]),
    max_tokens=st.integers(1, 10**6),
    system=texts,
    text=texts.filter(bool),
    frames=st.lists(frames, max_size=3).map(tuple),
    schema=st.sampled_from([None, SCHEMA]),
    attempt=st.integers(0, 3),
    repeat=st.integers(0, 1),
)
TASK: Task = "describe"
PLAIN = Request(TASK, "p", "0", "claude-sonnet-5-5", "low", 1024, "Be brief.", "A dog barks.")
PICTURED = replace(PLAIN, frames=(Frame(0.0, 582, 336, b"one"), Frame(1.5, 582, 336, b"two")))


def jpeg(width: int, height: int) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        picture = av.VideoFrame.from_ndarray(numpy.zeros((height, width, 3), "uint8"), format="rgb24")
        container.mux(stream.encode(picture.reformat(format="yuvj420p")))
        container.mux(stream.encode())
    return out.getvalue()


# ---- the body --------------------------------------------------------------------------------------------------


def test_a_question_without_pictures_is_one_text() -> None:
    assert PLAIN.body == {
        "model": "claude-sonnet-5-5",
        "max_tokens": 1024,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "A dog barks."}],
        "output_config": {"effort": "low"},
    }


def test_pictures_stand_before_the_text_each_after_its_time() -> None:
    content = PICTURED.body["messages"][0]["content"]
    assert [block.get("text") for block in content] == ["0.00 s:", None, "1.50 s:", None, "A dog barks."]
    sources = [block["source"] for block in content if block["type"] == "image"]
    assert [base64.b64decode(source["data"]) for source in sources] == [b"one", b"two"]
    assert {(source["type"], source["media_type"]) for source in sources} == {("base64", "image/jpeg")}


def test_what_is_not_asked_for_is_not_in_the_body() -> None:
    bare = replace(PLAIN, effort="", system="")
    assert set(bare.body) == {"model", "max_tokens", "messages"}
    assert replace(bare, schema=SCHEMA).body["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}


# ---- the key ---------------------------------------------------------------------------------------------------


@given(requests)
def test_the_key_is_that_of_an_equal_question_made_anew(request: Request) -> None:
    twin = replace(request, frames=tuple(replace(frame) for frame in request.frames))
    assert twin.key == request.key
    assert len(bytes.fromhex(request.key)) == 32


@given(st.lists(requests, min_size=2, max_size=2))
def test_two_questions_have_one_key_just_if_body_sample_and_again_are_the_same(pair: list[Request]) -> None:
    one, other = pair
    same = (one.body, one.attempt, one.repeat) == (other.body, other.attempt, other.repeat)
    assert (one.key == other.key) is same


@pytest.mark.parametrize(
    "change",
    [
        {"model": "claude-opus-5-5"},
        {"effort": "high"},
        {"effort": ""},
        {"max_tokens": 2048},
        {"system": ""},
        {"system": "Be brief"},
        {"text": "A dog barks"},
        {"schema": SCHEMA},
        {"attempt": 1},
        {"repeat": 1},
        {"system": "A dog barks.", "text": "Be brief."},
        {"frames": PICTURED.frames[:1]},
        {"frames": PICTURED.frames[::-1]},
        {"frames": (PICTURED.frames[0], replace(PICTURED.frames[1], seconds=1.6))},
        {"frames": (PICTURED.frames[0], replace(PICTURED.frames[1], jpeg=b"twO"))},
    ],
)
def test_any_change_of_what_is_asked_changes_the_key(change: dict[str, Any]) -> None:
    assert replace(PICTURED, **change).key != PICTURED.key
    assert replace(PLAIN, **change).key != PLAIN.key


def test_each_retry_and_each_repetition_has_a_key_of_its_own() -> None:
    keys = {replace(PLAIN, attempt=attempt, repeat=repeat).key for attempt in range(3) for repeat in range(3)}
    assert len(keys) == 9


def test_a_picture_counts_in_the_key_by_its_sha256_and_time_alone() -> None:
    other = tuple(replace(frame, width=1, height=1) for frame in PICTURED.frames)
    assert replace(PICTURED, frames=other).key == PICTURED.key
    # Who has the sum of a picture can work out the key without the picture.
    sums = [hashlib.sha256(frame.jpeg).digest() for frame in PICTURED.frames]
    stand_in = tuple(replace(frame, jpeg=digest) for frame, digest in zip(PICTURED.frames, sums, strict=True))
    body = replace(PICTURED, frames=stand_in).body
    for block, digest in zip(body["messages"][0]["content"][1::2], sums, strict=True):
        block["source"]["data"] = digest.hex()
    assert replace(PICTURED).key == key_of(body)


def key_of(body: dict[str, Any]) -> str:
    text = json.dumps([body, 0, 0], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def test_names_of_templates_are_no_part_of_the_key() -> None:
    assert replace(PLAIN, task="verify", prompt="other", prompt_sha256="1").key == PLAIN.key


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        (1, ["1c06954674329279", "1d8705345b1e370c", "b6dd59aec52b45e7", "4c598a6b8572cc50"]),
        (2, ["b3c89e4c87098e7d", "3eb4603b91fff1fd", "f4726dfe1117e345", "4c598a6b8572cc50"]),
    ],
)
def test_the_keys_of_stored_answers_never_change(version: Literal[1, 2], keys: list[str]) -> None:
    # Another key would mean to pay for everything again.
    asked = RequestBuilder(ClaudeConfig(prompt_version=version), price())
    question = Question("id", "a café at night")
    assert [
        asked.describe(question, ()).key[:16],
        asked.describe(question, ("a scene",)).key[:16],
        asked.verify(question, "a scene").key[:16],
        asked.caption(replace(question, frames=PICTURED.frames)).key[:16],
    ] == keys


# ---- bounds ----------------------------------------------------------------------------------------------------


@given(requests, st.floats(1, 8))
def test_the_upper_bound_of_tokens_holds_for_tokens_of_a_letter_or_more(
    request: Request, chars_per_token: float
) -> None:
    heard = Heard(replace(request, frames=()).body)
    pictures = sum(-(-frame.width // 28) * -(-frame.height // 28) for frame in request.frames)
    times = sum(len(f"{frame.seconds:.2f} s:") for frame in request.frames)
    counted = AnswerRules(chars_per_token=chars_per_token).input_tokens(heard) + pictures + times
    assert counted <= request.max_input_tokens


@given(requests, st.floats(1, 5))
def test_the_lower_bound_of_tokens_holds_for_tokens_of_at_most_five_bytes(
    request: Request, chars_per_token: float
) -> None:
    ascii_only = replace(request, frames=(), text=ascii(request.text), system=ascii(request.system))
    assert ascii_only.min_input_tokens <= AnswerRules(chars_per_token=chars_per_token).input_tokens(
        Heard(ascii_only.body)
    )
    assert request.min_input_tokens <= request.max_input_tokens


def test_the_longest_texts_that_there_are_fit_a_request_and_a_batch() -> None:
    longest = "\x01" * MAX_TEXT_BYTES  # of which each byte has six on the wire
    asked = RequestBuilder(ClaudeConfig(), price())
    again = asked.describe(
        Question("id", longest), ("\x01" * (8 * ClaudeConfig().max_tokens),) * (ClaudeConfig().rounds - 1)
    )
    verify = asked.verify(Question("id", longest), longest)
    assert max(again.bytes, verify.bytes) < 32_000_000 < MAX_BYTES


def test_a_prompt_costs_no_more_than_the_context_holds() -> None:
    long, small = replace(PLAIN, text="x" * 50_000), replace(price(), context=20_000)
    # 20,000 tokens in at $2 a million, 1,024 out at $10
    assert worst_cost(small, long, in_batch=False) == Decimal("0.05024")
    assert worst_cost(price(), long, in_batch=True) > Decimal("0.05")
    assert worst_cost(small, PLAIN, in_batch=False) == worst_cost(price(), PLAIN, in_batch=False)


@given(texts)
def test_the_worst_case_covers_a_token_for_every_byte(text: str) -> None:
    assert replace(PLAIN, text=text).max_input_tokens >= len(text.encode()) + len(PLAIN.system)


@pytest.mark.parametrize(("width", "height"), [(582, 336), (336, 336), (29, 28), (1, 1)])
def test_the_worst_case_covers_real_pictures_as_the_server_counts_them(width: int, height: int) -> None:
    picture = Frame(1.25, width, height, jpeg(max(2, width), max(2, height)))
    request = replace(PLAIN, frames=(picture,) * 3)
    counted = AnswerRules(chars_per_token=1).input_tokens(Heard(request.body))
    assert 3 * picture.tokens < counted <= request.max_input_tokens


@pytest.fixture(scope="module")
def wire() -> Iterator[tuple[ClaudeApi, list[bytes]]]:
    """A server, and the bodies that it was sent, as bytes."""
    with pytest.MonkeyPatch.context() as patch, ClaudeApi() as api:
        heard = listen(patch)
        for name, value in api.env.items():
            patch.setenv(name, value)
        yield api, heard


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(asked=st.lists(requests, min_size=1, max_size=3))
def test_the_size_is_not_below_that_on_the_wire(wire: tuple[ClaudeApi, list[bytes]], asked: list[Request]) -> None:
    _, heard = wire
    heard.clear()

    async def send() -> None:
        async with connect(RetryPolicy()) as api:
            for request in asked:
                try:
                    await api.messages.create(**request.body)
                except Exception as refused:  # noqa: BLE001 - pictures of noise are; they were sent all the same
                    assert "Could not process image" in str(refused)

    asyncio.run(send())
    assert len(heard) == len(asked)
    for request, raw in zip(asked, heard, strict=True):
        assert len(raw) <= request.bytes
