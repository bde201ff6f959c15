"""Every question is paid for once: equal ones share a request, and what is stored is never asked again.

What was asked and answered is counted in the server's own log.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from nextscene.curation.stages.describe import DescribedScene, describe_clips
from nextscene.judge.api.answer import Answer
from nextscene.judge.base import Question
from nextscene.judge.claude import ClaudeJudge
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.errors import JudgeStopped
from tests.fakes.claude_api import ClaudeApi, FaultSchedule, Limits
from tests.judge import api_support
from tests.judge.api_support import (
    PRICE,
    RETRY_POLICY,
    account,
    ask_all,
    captions,
    child,
    describe,
    digest_of,
    dollars,
    interactive_cost,
    open_client,
    paid_for,
    stored_lines,
    undelivered,
)

pytestmark = pytest.mark.usefixtures("hurried")


@pytest.fixture
def limits() -> Limits:
    return Limits(latency=0.02)


# ---- 500 clips with faults -------------------------------------------------------------------------------------

STORM = FaultSchedule(
    seed=7,
    retry_after=0.05,
    slow_seconds=0.2,
    rates={
        "429": 0.05,
        "429-after": 0.04,
        "529": 0.05,
        "500": 0.06,
        "drop-before": 0.05,
        "drop-after": 0.06,
        "slow": 0.05,
    },
)

# marker → outcome, reason, rounds that were finished, answers that it takes, and how many different bodies those have
ENDS: dict[str, tuple[str, str, int, int, int]] = {
    "": ("kept", "", 1, 2, 2),
    "FAIL1": ("kept", "", 2, 4, 4),
    "FAIL2": ("kept", "", 3, 6, 6),
    "FAIL3": ("dropped", "no_pass", 3, 6, 6),
    "REFUSE-DESCRIBE": ("refused", "frontier_llm", 0, 1, 1),
    "REFUSE-VERIFY": ("refused", "frontier_llm", 0, 2, 2),
    "TRUNCATE-ONCE": ("kept", "", 1, 3, 3),
    "TRUNCATE-ALWAYS": ("failed", "truncated", 0, 2, 2),
    "SHOUT": ("kept", "", 1, 2, 2),
    "FENCED": ("kept", "", 1, 2, 2),
    "GARBLED": ("failed", "unreadable_answer", 0, 3, 2),
    "EMPTY": ("failed", "unreadable_answer", 0, 2, 1),
    "BAD-REQUEST": ("failed", "judge_error", 0, 0, 0),
    "ALWAYS-500": ("failed", "judge_error", 0, 0, 0),
    "THINKS": ("kept", "", 1, 2, 2),
}


def clips() -> list[tuple[str, str]]:
    """500 markers and captions: 20 of each kind (5 of those that no answer ends), plain ones, 25 captions twice."""
    counts = {marker: 5 if marker == "ALWAYS-500" else 20 for marker in ENDS if marker}
    marked = [marker for marker, count in counts.items() for _ in range(count)]
    kinds = marked + [""] * (475 - len(marked))
    random.Random(1).shuffle(kinds)
    made = [(marker, f"clip {i}: {marker} a dog runs") for i, marker in enumerate(kinds)]
    return made + made[50:75]


@pytest.mark.slow
def test_500_clips_under_faults_end_right_and_nothing_is_asked_or_paid_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = clips()
    assert len(asked) == 500

    async def run() -> tuple[list[DescribedScene], Decimal]:
        retry_policy = replace(RETRY_POLICY, outage_seconds=6.0)
        async with open_client(tmp_path, retry_policy=retry_policy) as client:
            judge = ClaudeJudge(ClaudeConfig(), PRICE, client)
            questions = [Question(str(at), caption, priority=at) for at, (_, caption) in enumerate(asked)]
            scenes = await asyncio.gather(*(describe_clips(judge, question) for question in questions))
            return scenes, client.progress().lost

    with ClaudeApi(faults=STORM, limits=Limits(latency=0.01)) as api:
        api_support.reach(monkeypatch, api)
        scenes, lost = asyncio.run(run())

    for (marker, caption), scene in zip(asked, scenes, strict=True):
        outcome, reason, rounds, answers, _ = ENDS[marker]
        end = scene.outcome
        assert (end.outcome if end else "kept", end.reason if end else "") == (outcome, reason), caption
        assert (scene.rounds, len(scene.calls)) == (rounds, answers), caption
        assert scene.verdict == {"kept": "Pass", "dropped": "Fail"}.get(outcome, "")
        assert bool(scene.text) is (outcome in ("kept", "dropped"))
        assert len(scene.turned_down) == rounds - (outcome == "kept")

    # Every kind of fault occurred.
    assert {exchange.fault for exchange in api.exchanges} >= set(STORM.rates)
    different = {caption: marker for marker, caption in asked}
    once = paid_for(tmp_path)
    assert len(once) == sum(ENDS[marker][3] for marker in different.values())
    # What the server made, without what was cut off, is one answer for each question that was to be asked.
    delivered = Counter(api.paid) - Counter(
        exchange.digest for exchange in api.exchanges if exchange.usage and not exchange.delivered
    )
    assert sum(delivered.values()) == len(once)
    assert len(delivered) == sum(ENDS[marker][4] for marker in different.values())
    assert all(
        times <= 1 or "GARBLED" in str(body) or "EMPTY" in str(body)
        for times, body in ((delivered[exchange.digest], exchange.body) for exchange in api.exchanges)
    )
    # The money: what was delivered is spent, to the last digit, and what was cut off is covered.
    cut_off = sum(map(dollars, undelivered(api)), Decimal(0))
    assert account(tmp_path).spent == sum(once.values()) == interactive_cost(api) - cut_off
    assert account(tmp_path).answers == len(once)
    assert account(tmp_path).lost == lost >= cut_off > 0
    of_clips = [
        call.answer.usd for at, scene in enumerate(scenes) for call in scene.calls if call.answer.clip_id == str(at)
    ]
    assert sum(of_clips) == account(tmp_path).spent
    assert {line["key"] for line in stored_lines(tmp_path)} == once.keys()


# ---- equal questions -------------------------------------------------------------------------------------------


def test_equal_questions_at_once_and_later_make_one_request(tmp_path: Path, api: ClaudeApi) -> None:
    request = describe("a dog runs")

    async def run() -> list[Answer]:
        async with open_client(tmp_path) as client:
            answers = await asyncio.gather(*(client.ask(request, 0, clip_id) for clip_id in "abcd" * 8))
            return [*answers, await client.ask(request, 0, "e")]

    answers = [*asyncio.run(run()), *asyncio.run(run())]
    assert len(api.exchanges) == len(api.paid) == 1
    assert all(answer == answers[0] for answer in answers) and answers[0].clip_id == "a"
    assert [line["key"] for line in stored_lines(tmp_path)] == [request.key]
    assert account(tmp_path).spent == interactive_cost(api) == sum(paid_for(tmp_path).values())


def test_a_failure_reaches_all_who_asked_and_the_question_may_be_asked_again(tmp_path: Path, api: ClaudeApi) -> None:
    async def run() -> list[Answer | BaseException]:
        async with open_client(tmp_path) as client:
            bad = describe("BAD-REQUEST")
            for _ in range(2):
                found = await asyncio.gather(*(client.ask(bad, 0) for _ in range(5)), return_exceptions=True)
            return found

    found = asyncio.run(run())
    assert [str(error) for error in found] == [str(found[0])] * 5
    assert not any(isinstance(answer, Answer) for answer in found)
    assert [exchange.status for exchange in api.exchanges] == [400, 400]
    assert account(tmp_path).spent == account(tmp_path).lost == 0


def test_the_first_to_ask_may_give_up_without_harm_to_those_who_joined(tmp_path: Path, api: ClaudeApi) -> None:
    async def run() -> Answer:
        async with open_client(tmp_path) as client:
            first = asyncio.ensure_future(client.ask(describe("a dog runs"), 0))
            second = asyncio.ensure_future(client.ask(describe("a dog runs"), 0))
            await asyncio.sleep(0.005)
            first.cancel()
            return await second

    assert asyncio.run(run()).status == "whole"
    assert len(api.exchanges) == 1
    assert len(paid_for(tmp_path)) == 1


def test_after_losing_ownership_nothing_is_sent_and_calls_in_flight_are_stored(tmp_path: Path, api: ClaudeApi) -> None:
    def may_ask() -> None:
        if len(api.exchanges) >= 10:
            raise JudgeStopped("the run that asked is gone")

    async def run() -> list[Answer | BaseException]:
        async with open_client(tmp_path, check_ownership=may_ask) as client:
            questions = [client.ask(describe(caption), 0) for caption in captions(50)]
            return await asyncio.gather(*questions, return_exceptions=True)

    found = asyncio.run(run())
    answered = {answer.key for answer in found if isinstance(answer, Answer)}
    assert 10 <= len(api.exchanges) == len(answered) < 50
    assert {str(error) for error in found if not isinstance(error, Answer)} == {"the run that asked is gone"}
    assert answered == paid_for(tmp_path).keys()


def test_closing_while_asking_stores_the_calls_in_flight_and_sends_no_more(tmp_path: Path, api: ClaudeApi) -> None:
    api.rate_limiter.limits = api.limits = Limits(latency=0.2)

    async def run() -> list[Answer | BaseException]:
        async with open_client(tmp_path) as client:
            asked = [asyncio.ensure_future(client.ask(describe(caption), 0)) for caption in captions(50)]
            while not api.in_flight:
                await asyncio.sleep(0.01)
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(run())
    sent = len(api.exchanges)
    assert 1 <= sent < 50
    assert sum(isinstance(answer, Answer) for answer in found) == sent == len(paid_for(tmp_path))
    assert {str(error) for error in found if not isinstance(error, Answer)} == {"the run has ended"}
    time.sleep(0.1)
    assert len(api.exchanges) == sent


# ---- killed ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_ten_times_nothing_that_is_stored_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = 16
    requests = [describe(caption) for caption in captions(400)]
    names = {request.key: digest_of(request) for request in requests}
    moments = random.Random(4)
    with ClaudeApi(limits=Limits(latency=0.03)) as api:
        api_support.reach(monkeypatch, api)
        for _ in range(10):
            before = len(api.exchanges)
            moment = moments.randint(1, 60)
            stored = {names[key] for key in paid_for(tmp_path)}
            with child(tmp_path, "--count", "400", "--at-once", str(at_once), env=api.env) as process:
                while len(api.exchanges) < before + moment:
                    assert process.poll() is None, process.communicate()
                    time.sleep(0.002)
                process.kill()
                process.wait()
            while api.in_flight:
                time.sleep(0.01)
            assert stored.isdisjoint(exchange.digest for exchange in api.exchanges[before:])
        stored = {names[key] for key in paid_for(tmp_path)}
        before = len(api.exchanges)
        answers = ask_all(tmp_path, requests)
        assert stored.isdisjoint(exchange.digest for exchange in api.exchanges[before:])
        assert [answer.key for answer in answers if isinstance(answer, Answer)] == [request.key for request in requests]
        twice = Counter(api.paid).total() - len(requests)
        assert 0 <= twice <= 10 * at_once
        assert len(stored) > 50
        known = account(tmp_path)
        assert known.spent + known.lost >= interactive_cost(api)
        assert known.allowance == known.spent + known.lost
