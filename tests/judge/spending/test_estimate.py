"""Estimates against closed forms, the real wording, and a server that counts."""

from __future__ import annotations

import asyncio
import math
from dataclasses import fields, replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.common.storage import Storage
from nextscene.curation.stages.describe import DescribedScene, describe_clips
from nextscene.judge.api.backoff import RetryPolicy
from nextscene.judge.api.request import Frame, Request
from nextscene.judge.base import Question
from nextscene.judge.claude import ClaudeJudge
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.errors import JudgeUsageError
from nextscene.judge.request_builder import RequestBuilder
from nextscene.judge.spending.cached_client import CachedClient
from nextscene.judge.spending.call_journal import JOURNALS
from nextscene.judge.spending.estimate import CASES, Assumptions, Bill, Estimator, PendingClip, parse_assumptions
from tests.fakes.claude_api import AnswerRules, ClaudeApi
from tests.fakes.claude_api import Question as Heard
from tests.judge.support import price

pytestmark = pytest.mark.slow

SURE = Assumptions(1.0, 1.0, 20, 30, 25, 4.0, 0)
CAPTION = "a boy ties his shoelaces"
rates = st.floats(0.01, 1)


def bill(clip: PendingClip, settings: ClaudeConfig | None = None, **assumed: float) -> Bill:
    return Estimator(settings or ClaudeConfig(), price(), replace(SURE, **assumed)).bill(clip)


# ---- rounds ----------------------------------------------------------------------------------------------------


@given(rates, st.integers(1, 10))
def test_the_expected_number_of_rounds_is_the_sum_of_a_geometric_series(passes: float, rounds: int) -> None:
    # Σ (1-p)^k for k < n = (1 - (1-p)^n) / p, two calls each
    found = bill(PendingClip(CAPTION), ClaudeConfig(rounds=rounds), pass_rate=passes)
    assert found.calls == pytest.approx(2 * (1 - (1 - passes) ** rounds) / passes)
    assert found.output_tokens == pytest.approx(found.calls / 2 * (20 + 30))


@given(rates, st.integers(0, 3), st.booleans())
def test_what_is_stored_already_is_not_paid_for_again(passes: float, done: int, described: bool) -> None:
    found = bill(PendingClip(CAPTION, rounds_done=done, described=described), pass_rate=passes)
    left = (1 - (1 - passes) ** (3 - done)) / passes
    spared = 1 if described and done < 3 else 0
    assert found.calls == pytest.approx(2 * left - spared)
    assert found.output_tokens == pytest.approx(left * (20 + 30) - spared * 20)


@given(rates, rates)
def test_the_screen_takes_its_share_of_the_clips_that_have_not_passed_it(passes: float, screened: float) -> None:
    for clip in (PendingClip(CAPTION), PendingClip("", 8)):
        whole, part = (bill(clip, pass_rate=passes, screened=share) for share in (1.0, screened))
        assert part == whole * screened
    for clip in (PendingClip(CAPTION, rounds_done=1), PendingClip(CAPTION, described=True)):
        assert bill(clip, pass_rate=passes, screened=screened) == bill(clip, pass_rate=passes)


def test_a_clip_without_a_caption_costs_one_call_more() -> None:
    with_caption, without = bill(PendingClip("x" * 100)), bill(PendingClip("", 8))
    assert without.calls == with_caption.calls + 1
    assert without.output_tokens == with_caption.output_tokens + 25


numbers = st.integers(0, 10**6).map(float)
bills = st.builds(Bill, numbers, numbers, numbers)


@given(bills, bills, st.integers(0, 9))
def test_bills_add_up(one: Bill, other: Bill, times: int) -> None:
    assert one + other == other + one and one + Bill() == one
    assert sum([one] * times, Bill()) == one * times
    both = one + other
    for in_batch in (False, True):
        assert both.usd(price(), in_batch) == one.usd(price(), in_batch) + other.usd(price(), in_batch)


def test_a_bill_in_dollars_by_hand_and_many_short_prompts_are_no_long_one() -> None:
    total = Bill(1000, 2_000_000, 300_000)
    assert total.usd(price("claude-sonnet-5-5"), False) == Decimal(7)
    assert total.usd(price("claude-sonnet-5-5"), True) == Decimal("3.5")
    assert total.usd(price("claude-haiku-5-5"), False) == Decimal("0.35")


# ---- tokens ----------------------------------------------------------------------------------------------------


def counted(request: Request, chars_per_token: float) -> float:
    """As the server counts, before it rounds up."""
    return Heard(request.body).characters / chars_per_token


@given(st.text(min_size=1), st.integers(1, 60), st.sampled_from([2.0, 4.0]))
def test_the_input_of_each_call_is_that_of_the_real_request(caption: str, scene_tokens: int, chars: float) -> None:
    asked, scene = RequestBuilder(ClaudeConfig(), price()), "x" * round(scene_tokens * chars)
    question = Question("", caption)
    # A Pass is never expected: all three rounds are run.
    found = bill(PendingClip(caption), pass_rate=1e-12, scene_tokens=scene_tokens, chars_per_token=chars)
    tokens = [counted(asked.describe(question, (scene,) * failed), chars) for failed in range(3)]
    verify = counted(asked.verify(question, scene), chars)
    assert found.input_tokens == pytest.approx(sum(tokens) + 3 * verify)
    last = bill(PendingClip(caption, rounds_done=2, described=True), scene_tokens=scene_tokens, chars_per_token=chars)
    assert last.input_tokens == pytest.approx(verify)


def test_schema_tokens_are_added_to_every_verification_and_to_nothing_else() -> None:
    plain, more = (bill(PendingClip(CAPTION), pass_rate=1e-12, schema_tokens=added) for added in (0, 100))
    assert more.input_tokens == pytest.approx(plain.input_tokens + 300)
    assert replace(more, input_tokens=0) == replace(plain, input_tokens=0)


@pytest.mark.parametrize("pictures", [1, 8])
def test_pictures_cost_what_they_cost_on_the_wire(pictures: int) -> None:
    # 832×480 at a height of 336: 582×336, hence 21 × 12 patches.
    frames = tuple(Frame(0.5 * i, 582, 336, b"") for i in range(pictures))
    request = RequestBuilder(ClaudeConfig(), price()).caption(Question("", "", frames=frames))
    captioned = "x" * round(25 * 4.0)
    found = bill(PendingClip("", pictures)).input_tokens - bill(PendingClip(captioned)).input_tokens
    assert found == pytest.approx(counted(request, 4.0) + pictures * 252)


# ---- assumptions -------------------------------------------------------------------------------------------------


def test_what_is_assumed_holds_in_every_case_and_the_rest_stays() -> None:
    cases = parse_assumptions(" pass-rate=0.8, scene_tokens = 40,schema_tokens=0,")
    assert set(cases) == set(CASES) == {"low", "expected", "high"}
    for name, assumed in cases.items():
        assert assumed == replace(CASES[name], pass_rate=0.8, scene_tokens=40.0, schema_tokens=0.0)
    assert parse_assumptions("") == parse_assumptions(" , ") == CASES


@pytest.mark.parametrize("name", [field.name for field in fields(Assumptions)])
def test_everything_that_is_assumed_can_be_fixed(name: str) -> None:
    assert {getattr(assumed, name) for assumed in parse_assumptions(f"{name}=0.25").values()} == {0.25}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pass_rat=0.5", "pass_rat=0.5: there is no assumption of that name; is pass_rate meant?"),
        ("zzz=1", "there are screened, pass_rate, scene_tokens"),
        ("pass_rate", "'' is not a number"),
        ("pass_rate=", "'' is not a number"),
        ("pass_rate=much", "'much' is not a number"),
        ("=1", "no assumption of that name"),
        ("pass_rate=0", "it must lie above 0 and not above 1"),
        ("pass_rate=1.01", "not above 1"),
        ("screened=80", "not above 1"),
        ("pass_rate=-1", "above 0"),
        ("pass_rate=nan", "above 0"),
        ("scene_tokens=inf", "not above 1e+06"),
        ("chars_per_token=0", "above 0"),
        ("schema_tokens=-1", "above 0"),
        ("scene_tokens=40,pass_rate=2", "pass_rate=2:"),
    ],
)
def test_what_cannot_be_assumed_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(JudgeUsageError) as raised:
        parse_assumptions(text)
    assert said in str(raised.value) and "\n" not in str(raised.value)


@given(st.text(), st.integers(0, 8), st.integers(0, 2), st.booleans())
def test_the_expected_case_lies_between_low_and_high_for_every_clip(
    caption: str, pictures: int, done: int, described: bool
) -> None:
    clip = PendingClip(caption, pictures, done, described)
    low, expected, high = (
        Estimator(ClaudeConfig(), price(), CASES[case]).bill(clip) for case in ("low", "expected", "high")
    )
    for name in ("calls", "input_tokens", "output_tokens"):
        assert getattr(low, name) <= getattr(expected, name) <= getattr(high, name)


# ---- against a run -----------------------------------------------------------------------------------------------

CLIPS, PASS_RATE = 200, 0.6
# By the rules of the server, in letters: "Earlier, ", 9 words of 4, 8 spaces, ". (attempt 1)"; and the two verdicts.
SCENE_LETTERS = 9 + 36 + 8 + 13
PASS_LETTERS = len('{"reason": "The caption shows a later moment.", "verdict": "Pass"}')
FAIL_LETTERS = len('{"reason": "The caption tells of the same moment.", "verdict": "Fail"}')


def test_a_run_costs_what_was_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, terms = ClaudeConfig(), price()
    questions = [Question(f"id{i}", f"clip {i} shows a boy who ties his shoelaces") for i in range(CLIPS)]

    async def run() -> list[DescribedScene]:
        client = await CachedClient.open(Storage.at(tmp_path), tmp_path / JOURNALS, terms, RetryPolicy(), None)
        try:
            judge = ClaudeJudge(settings, terms, client)
            return await asyncio.gather(*(describe_clips(judge, question) for question in questions))
        finally:
            await client.close()

    with ClaudeApi(rules=AnswerRules(pass_rate=PASS_RATE, chars_per_token=4)) as api:
        for name, value in api.env.items():
            monkeypatch.setenv(name, value)
        scenes = asyncio.run(run())
        usages = [exchange.usage for exchange in api.exchanges if exchange.usage]
    calls = [call for scene in scenes for call in scene.calls]
    actual = Bill(
        len(usages), sum(usage["input_tokens"] for usage in usages), sum(usage["output_tokens"] for usage in usages)
    )
    assert len(calls) == len(usages) == len(api.paid)
    spent = sum((call.answer.usd for call in calls), Decimal(0))
    assert spent == actual.usd(terms, False), "what the records say is what the server charged"

    verdict_letters = PASS_RATE * PASS_LETTERS + (1 - PASS_RATE) * FAIL_LETTERS
    assumed = parse_assumptions(
        f"screened=1,pass_rate={PASS_RATE},scene_tokens={math.ceil(SCENE_LETTERS / 4)},"
        f"verdict_tokens={verdict_letters / 4},chars_per_token=4,schema_tokens=0"
    )
    told, low, high = (
        sum((Estimator(settings, terms, case).bill(PendingClip(question.caption)) for question in questions), Bill())
        for case in (assumed["expected"], CASES["low"], CASES["high"])
    )
    for name in ("calls", "input_tokens", "output_tokens"):
        assert getattr(told, name) == pytest.approx(getattr(actual, name), rel=0.1)
        assert getattr(low, name) < getattr(actual, name) < getattr(high, name)
    assert float(told.usd(terms, False)) == pytest.approx(float(spent), rel=0.1)
    assert low.usd(terms, False) < spent < high.usd(terms, False)
