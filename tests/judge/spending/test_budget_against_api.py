"""The budget is never passed: counted on the server's side, over all answers that it made, delivered or not."""

from __future__ import annotations

import asyncio
import random
import time
from decimal import Decimal
from pathlib import Path

import pytest

from nextscene.judge.api.answer import Answer
from nextscene.judge.errors import JudgeStopped
from tests.fakes.claude_api import AnswerRules, ClaudeApi, FaultSchedule, Limits
from tests.judge import api_support
from tests.judge.api_support import (
    account,
    ask_all,
    batch_cost,
    captions,
    child,
    describe,
    digest_of,
    interactive_cost,
    open_client,
    paid_for,
)

# Answers nearly as long as they may be: what is reserved for a call and what it costs are close to each other.
LONG_ANSWERS = AnswerRules(thinking_tokens=900)
SLOW = pytest.mark.slow
QUESTIONS = [describe(caption) for caption in captions(150)]


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hurried")]


@pytest.fixture
def rules() -> AnswerRules:
    return LONG_ANSWERS


@pytest.fixture
def limits() -> Limits:
    return Limits(latency=0.05)


@pytest.mark.parametrize(
    "budget", ["0.02", "0.1", "0.35", pytest.param("0.8", marks=SLOW), pytest.param("1.37", marks=SLOW)]
)
@pytest.mark.parametrize("faults", [{}, {"drop-after": 0.15, "drop-before": 0.1, "500": 0.1, "429": 0.1}])
def test_all_that_the_server_made_costs_no_more_than_the_budget(
    budget: str, faults: dict[str, float], tmp_path: Path, api: ClaudeApi
) -> None:
    api.faults = FaultSchedule(seed=5, rates=faults)
    found = ask_all(tmp_path, QUESTIONS, budget=budget)
    cost = interactive_cost(api)
    assert cost <= Decimal(budget)
    # It stops only where the next call's worst case, about $0.0123, does not fit.
    known = account(tmp_path)
    assert known.spent + known.lost > Decimal(budget) - Decimal("0.0124")
    assert known.spent + known.lost <= Decimal(budget)
    assert known.spent == sum(paid_for(tmp_path).values()) <= cost <= known.spent + known.lost
    assert known.allowance == known.spent + known.lost and not known.is_open
    [said] = {str(end) for end in found if not isinstance(end, Answer)}
    assert all(isinstance(end, (Answer, JudgeStopped)) for end in found)
    assert "Raise `budget_usd`" in said
    assert f"${budget}" in said
    assert len(said.splitlines()) == 1


def test_as_many_are_under_way_at_once_as_are_allowed(tmp_path: Path, api: ClaudeApi) -> None:
    """Or else the test above would show little."""
    api.rate_limiter.limits = api.limits = Limits(latency=0.3)
    ask_all(tmp_path, [describe(caption) for caption in captions(300)], budget="20")
    assert api.max_in_flight > 32


def test_a_larger_budget_goes_on_from_there(tmp_path: Path, api: ClaudeApi) -> None:
    names = {request.key: digest_of(request) for request in QUESTIONS}
    seen = 0
    for budget in ("0.2", "0.2", "0.5", "5"):
        stored = {names[key] for key in paid_for(tmp_path)}
        found = ask_all(tmp_path, QUESTIONS, budget=budget)
        assert interactive_cost(api) <= Decimal(budget)
        assert stored.isdisjoint(exchange.digest for exchange in api.exchanges[seen:])
        # The same budget again buys nothing more.
        assert (len(api.exchanges) > seen) is (budget != "0.2" or seen == 0)
        seen = len(api.exchanges)
    assert all(isinstance(answer, Answer) for answer in found)
    assert len(api.paid) == len(set(api.paid)) == len(QUESTIONS)
    assert account(tmp_path).lost == 0


def test_a_budget_for_less_than_one_call_asks_nothing(tmp_path: Path, api: ClaudeApi) -> None:
    found = ask_all(tmp_path, QUESTIONS, budget="0.01")
    assert all(isinstance(end, JudgeStopped) for end in found)
    assert api.exchanges == []
    assert ask_all(tmp_path, QUESTIONS[:0], budget="0") == []


def test_both_ways_of_asking_draw_on_one_budget(tmp_path: Path, api: ClaudeApi) -> None:
    ask_all(tmp_path, QUESTIONS[:60], budget="0.3")
    ask_all(tmp_path, QUESTIONS, budget="0.6", in_batches=True)
    assert len(api.batches) > 0
    assert interactive_cost(api) + batch_cost(api) == account(tmp_path).spent <= Decimal("0.6")
    ask_all(tmp_path, QUESTIONS, budget="0.6")
    assert interactive_cost(api) + batch_cost(api) == account(tmp_path).spent <= Decimal("0.6")


def test_an_open_batch_holds_its_share_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [describe(caption) for caption in captions(90)]
    with ClaudeApi(rules=LONG_ANSWERS, batch_seconds=None) as api:
        api_support.reach(monkeypatch, api)
        # Thirty questions in a batch, for $0.1824 at worst.
        with child(tmp_path, "--batches", "--budget", "0.4", "--die", "while it waits", env=api.env) as process:
            process.communicate(timeout=60)
        held = account(tmp_path)

        async def run() -> list[Answer | BaseException]:
            async with open_client(tmp_path, budget="0.6") as client:
                asked = [asyncio.ensure_future(client.ask(request, 0)) for request in requests]
                while len(api.exchanges) < 10:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.5)
                assert interactive_cost(api) <= Decimal("0.6") - Decimal("0.18")
                api.finish_batches()
                return await asyncio.gather(*asked, return_exceptions=True)

        found = asyncio.run(run())
        assert held.allowance >= Decimal("0.18")
        assert sum(isinstance(answer, Answer) for answer in found) >= 30
        assert interactive_cost(api) + batch_cost(api) == account(tmp_path).spent <= Decimal("0.6")
        assert len(api.paid) == len(set(api.paid))


@pytest.mark.parametrize("faults", [{}, {"drop-after": 0.2}])
def test_killed_again_and_again_all_lives_together_keep_to_the_budget(
    faults: dict[str, float], tmp_path: Path, api: ClaudeApi
) -> None:
    budget = Decimal("0.5")
    api.faults = FaultSchedule(seed=8, rates=faults)
    moments = random.Random(2)
    lives = 0
    for _ in range(8):
        before, moment = len(api.exchanges), moments.randint(1, 25)
        with child(tmp_path, "--count", "150", "--at-once", "64", "--budget", str(budget), env=api.env) as process:
            while len(api.exchanges) < before + moment and process.poll() is None:
                time.sleep(0.002)
            lives += process.poll() is None
            process.kill()
            process.wait()
        while api.in_flight:
            time.sleep(0.01)
        assert interactive_cost(api) <= budget
        known = account(tmp_path)
        assert interactive_cost(api) <= known.allowance <= budget
    assert lives >= 2
    ask_all(tmp_path, QUESTIONS, budget=str(budget))
    assert interactive_cost(api) <= budget
    stored = {digest_of(request) for request in QUESTIONS if request.key in paid_for(tmp_path)}
    before = len(api.exchanges)
    found = ask_all(tmp_path, QUESTIONS, budget="10")
    assert all(isinstance(answer, Answer) for answer in found)
    assert stored
    assert stored.isdisjoint(exchange.digest for exchange in api.exchanges[before:])
    known = account(tmp_path)
    # Also an answer that a kill kept from the store was paid for.
    assert sum(paid_for(tmp_path).values()) <= interactive_cost(api) <= known.spent + known.lost
    assert known.spent <= interactive_cost(api)
