"""The paper's reward among ranks: one asks for all, each gets its own, and what ends the asking ends it for all."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.spending.budget_record import ACCOUNT, BudgetRecord
from nextscene.judge.spending.prices import Prices
from nextscene.training.config import RewardConfig
from nextscene.training.distributed.process_group import current_world
from nextscene.training.errors import StopRequested, TrainingStopped
from nextscene.training.rewards.base import RewardVerdict
from nextscene.training.rewards.consistency import CausalConsistency
from nextscene.training.rewards.frames import Pictures
from tests.fakes.claude_api import AnswerRules, ClaudeApi, FaultSchedule, Limits
from tests.judge.api_support import account, hurry, interactive_cost, stored_lines
from tests.training.ranks import run
from tests.training.rewards.candidates import SETTINGS, candidate, reward_of

pytestmark = pytest.mark.slow

RULES = AnswerRules(pass_rate=0.5, marked={"GARBLED": 0.2, "REFUSE-VERIFY": 0.2})
STORMY = FaultSchedule(rates={"429": 0.1, "529": 0.1, "500": 0.1, "drop-before": 0.1})
PRICES = Prices.load()
STEPS, ASKS, AT_ONCE = 2, 3, 2
SCENES = ("A dog barks.", "A man sits.")


def judge(rank: int, world: int, folder: Path, settings: ClaudeConfig = SETTINGS, budget: str | None = None) -> Any:
    """What each step's verdicts are here, or what stopped it. Only the leading process has a key."""
    if rank:
        os.environ["ANTHROPIC_API_KEY"] = ""
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        found: list[list[RewardVerdict]] = []
        reward = None
        try:
            money = None if budget is None else Decimal(budget)
            reward = CausalConsistency(RewardConfig(judge=settings), Storage.at(folder), PRICES, money, current_world())
            for step in range(STEPS):
                for numbers in asked(rank, step):
                    reward.ask([candidate(number, step, SCENES[rank]) for number in numbers])
                found.append(reward.verdicts())
            return found
        except (UsageError, TrainingStopped) as end:
            return f"{type(end).__name__}: {end}"
        finally:
            if reward:
                reward.close()


def asked(rank: int, step: int) -> list[list[int]]:
    """Numbers of candidates, those of each `ask` of a step."""
    first = 100 * rank + 10 * step
    return [list(range(first + AT_ONCE * i, first + AT_ONCE * (i + 1))) for i in range(ASKS)]


def expected(rules: AnswerRules, rank: int) -> list[list[float | None]]:
    return [
        [reward_of(rules, number, SCENES[rank]) for numbers in asked(rank, step) for number in numbers]
        for step in range(STEPS)
    ]


def test_each_rank_gets_its_own_verdicts_in_order_and_nothing_is_paid_for_twice(api: ClaudeApi, tmp_path: Path) -> None:
    api.rules, api.faults = RULES, STORMY
    first = run(judge, 2, tmp_path)
    rewards = [[[verdict.reward for verdict in step] for step in rank] for rank in first]
    assert rewards == [expected(RULES, rank) for rank in range(2)]
    assert {reward for rank in rewards for step in rank for reward in step} == {None, 0.0, 1.0}
    verdicts = [verdict for rank in first for step in rank for verdict in step]
    assert sum(verdict.usd for verdict in verdicts) == account(tmp_path).spent == interactive_cost(api)
    assert all(verdict.reason for verdict in verdicts)

    arrived = len(api.exchanges)
    assert run(judge, 2, tmp_path) == first
    assert len(api.exchanges) == arrived


def test_what_ends_the_asking_is_told_to_every_rank_in_one_line(api: ClaudeApi, tmp_path: Path) -> None:
    first, second = run(ended, 2, tmp_path)
    assert first == second and not any("\n" in end for end in first)
    budget, no_price, retired, no_key = first
    assert budget.startswith("TrainingPaused: the budget of $0.03 is used up") and "Raise `budget_usd`" in budget
    assert no_price.startswith("UsageError: `reward.judge.model` claude-sonnet-9: no price known")
    assert re.match("UsageError: `reward.judge.model` claude-3-7-sonnet-latest was retired", retired)
    assert no_key.startswith("UsageError: the judge claude needs a key") and "ANTHROPIC_API_KEY" in no_key
    assert 0 < interactive_cost(api) == account(tmp_path).spent <= Decimal("0.03")


def ended(rank: int, world: int, folder: Path) -> list[str]:
    given = dict(os.environ)
    ends = [judge(rank, world, folder, SETTINGS, "0.03")]
    ends += [
        judge(rank, world, folder, ClaudeConfig(model=model))
        for model in ("claude-sonnet-9", "claude-3-7-sonnet-latest")
    ]
    os.environ["ANTHROPIC_API_KEY"] = ""
    ends.append(judge(rank, world, folder))
    os.environ.update(given)
    return ends


def test_a_larger_budget_goes_on_from_what_was_answered(api: ClaudeApi, tmp_path: Path) -> None:
    api.rules = RULES
    assert all("budget" in end for end in run(judge, 2, tmp_path, SETTINGS, "0.03"))
    before = len(stored_lines(tmp_path))
    found = run(judge, 2, tmp_path, SETTINGS, "5")
    assert [[[verdict.reward for verdict in step] for step in rank] for rank in found] == [
        expected(RULES, rank) for rank in range(2)
    ]
    assert before > 0
    assert len(api.paid) == len(stored_lines(tmp_path)), "what was stored before was not asked again"


def damaged(rank: int, world: int, folder: Path) -> list[str]:
    try:
        CausalConsistency(RewardConfig(judge=SETTINGS), Storage.at(folder), PRICES, None, current_world())
    except TrainingStopped as end:
        return [str(end)]
    return []


def test_stored_answers_that_are_damaged_are_told_to_all_ranks(api: ClaudeApi, tmp_path: Path) -> None:
    Storage.at(tmp_path).write(ACCOUNT, BudgetRecord().to_bytes())
    segment = tmp_path / "calls" / "step-000000" / "0.jsonl.gz"
    segment.parent.mkdir(parents=True)
    segment.write_bytes(b"no gzip")
    ends = run(damaged, 2, tmp_path)
    assert ends[0] == ends[1] and len(ends[0]) == 1
    assert all("is damaged" in end for end in ends[0])


def beside(rank: int, world: int, folder: Path) -> list[float | None]:
    """The answers are there before anybody waits for them."""
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        reward = CausalConsistency(RewardConfig(judge=SETTINGS), Storage.at(folder), PRICES, None, current_world())
        reward.ask([candidate(number) for number in range(3)])
        deadline = time.monotonic() + 30
        while reward._broker and reward._broker.judge.report().answers < 6:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        found = [verdict.reward for verdict in reward.verdicts()]
        reward.close()
        return found


def test_it_is_asked_while_the_next_candidates_are_made(api: ClaudeApi, tmp_path: Path) -> None:
    api.limits = Limits(latency=0.05)
    api.rules = AnswerRules(pass_rate=0.5)
    found = run(beside, 2, tmp_path)
    assert found == [[reward_of(api.rules, number) for number in range(3)]] * 2


def stopped(rank: int, world: int, folder: Path) -> str:
    """How the wait for verdicts ends if the second rank, which does not ask the API, is to stop."""
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        reward = CausalConsistency(
            RewardConfig(judge=SETTINGS), Storage.at(folder), PRICES, None, current_world(), stopping=lambda: rank == 1
        )
        reward.ask([candidate(10 * rank + number) for number in range(3)])
        try:
            return str(reward.verdicts())
        except StopRequested as end:
            return type(end).__name__
        finally:
            reward.close()


def test_a_stop_ends_the_wait_on_all_ranks_and_received_answers_are_stored(api: ClaudeApi, tmp_path: Path) -> None:
    api.limits = Limits(latency=1.0)
    assert run(stopped, 2, tmp_path) == ["StopRequested"] * 2
    assert len(stored_lines(tmp_path)) == len(api.paid) > 0
    assert account(tmp_path).lost == 0
    assert len(api.paid) < 12, "the wait was over before the request"


def told(rank: int, world: int, folder: Path) -> list[RewardVerdict]:
    batches = []

    def captioner(videos: Sequence[Pictures]) -> list[str]:
        batches.append(len(videos))
        return [f"{len(video)} pictures until {video[-1][0]:g} s, of {len(videos)}, by {rank}." for video in videos]

    reward = CausalConsistency(
        RewardConfig(judge=SETTINGS), Storage.at(folder), PRICES, None, current_world(), captioner, 2
    )
    for number in range(3):
        reward.ask([candidate(3 * rank + number)])
    found = reward.verdicts()
    reward.close()
    assert batches == [2, 1]
    return found


def test_a_captioner_of_its_own_spares_the_pictures(api: ClaudeApi, tmp_path: Path) -> None:
    found = run(told, 2, tmp_path)
    assert [[verdict.caption for verdict in rank] for rank in found] == [
        [f"3 pictures until 0.25 s, of {count}, by {rank}." for count in (2, 2, 1)] for rank in (0, 1)
    ]
    assert len(api.exchanges) == 4 and not any("image" in str(exchange.body) for exchange in api.exchanges)
