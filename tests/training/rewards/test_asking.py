"""The judge in its thread: what it says, what that cost, and that it always comes to an end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from nextscene.common.storage import Storage
from nextscene.judge.errors import JudgeStopped, JudgeUsageError
from nextscene.judge.spending.answer_segments import write_segments
from nextscene.training.rewards.asking import JudgeThread, RewardResult, _combined, to_verdicts
from nextscene.training.rewards.base import RewardVerdict
from tests.fakes.claude_api import AnswerRules, ClaudeApi, FaultSchedule, Limits
from tests.judge.api_support import PRICE, account, dollars, interactive_cost, stored_lines
from tests.judge.support import answer
from tests.training.rewards.candidates import SETTINGS, caption_of, question, reward_of

pytestmark = pytest.mark.slow

SCENE = "A dog barks."
RULES = AnswerRules(
    pass_rate=0.5, marked={"GARBLED": 0.15, "REFUSE-VERIFY": 0.15, "REFUSE-CAPTION": 0.15, "BAD-REQUEST": 0.15}
)
STORMY = FaultSchedule(rates={"429": 0.1, "529": 0.1, "500": 0.1, "drop-before": 0.1, "slow": 0.1}, slow_seconds=0.02)


@contextmanager
def asking(folder: Path, budget: str | None = None) -> Iterator[JudgeThread]:
    asking = JudgeThread(SETTINGS, PRICE, Storage.at(folder), None if budget is None else Decimal(budget))
    try:
        yield asking
    finally:
        asking.close()


def judged(folder: Path, numbers: range | list[int], verdicts: int = 1) -> list[RewardVerdict]:
    with asking(folder) as asker:
        futures = [asker.submit(question(number), SCENE, verdicts) for number in numbers]
        found = to_verdicts(future.result() for future in futures)
        asker.flush()
        return found


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline, "the moment did not come"
        time.sleep(0.01)


def test_a_pass_is_1_a_fail_0_and_no_answer_is_no_reward(api: ClaudeApi, tmp_path: Path) -> None:
    api.rules = RULES
    numbers = range(30)
    found = judged(tmp_path, numbers)
    assert [verdict.reward for verdict in found] == [reward_of(RULES, number) for number in numbers]
    assert {verdict.reward for verdict in found} == {None, 0.0, 1.0}
    assert [verdict.caption or None for verdict in found] == [caption_of(RULES, number) for number in numbers]
    reasons = {(verdict.reward, *verdict.reason.split(":")[:1]) for verdict in found if verdict.reward is None}
    assert reasons == {
        (None, "failed, unreadable_answer"),
        (None, "refused, frontier_llm"),
        (None, "failed, judge_error"),
    }
    assert {verdict.model for verdict in found} == {"", "claude-sonnet-5-5"}
    assert all((verdict.model == "") == (verdict.reward is None) for verdict in found)


def test_the_captioner_is_not_told_the_scene(api: ClaudeApi, tmp_path: Path) -> None:
    judged(tmp_path, [1])
    captioning, judging = (str(exchange.body) for exchange in api.exchanges)
    assert SCENE not in captioning and "image" in captioning
    assert SCENE in judging and "image/jpeg" not in judging


def test_every_dollar_is_in_one_verdict_and_equal_videos_are_paid_for_once(api: ClaudeApi, tmp_path: Path) -> None:
    api.rules = RULES
    found = judged(tmp_path, [*range(12), *range(12), 3])
    assert sum(verdict.usd for verdict in found) == interactive_cost(api) == account(tmp_path).spent
    assert all(verdict.usd > 0 for verdict in found[:12])
    assert [verdict.usd for verdict in found[12:]] == [0] * 13
    assert [verdict.reward for verdict in found[12:24]] == [verdict.reward for verdict in found[:12]]
    assert len(api.paid) == len(set(api.paid)) + sum("GARBLED" in verdict.caption for verdict in found[:12])


def test_a_second_run_through_a_storm_asks_nothing_that_was_answered(api: ClaudeApi, tmp_path: Path) -> None:
    api.faults = STORMY
    first = judged(tmp_path, range(16))
    arrived = len(api.exchanges)
    assert arrived > len(api.paid) == 32, "there was a storm"
    assert judged(tmp_path, range(16)) == first
    assert len(api.exchanges) == arrived


class EveryThirdPasses(AnswerRules):
    """Of the verdicts on the same video."""

    def passes(self, scene: str, caption: str) -> bool:
        ASKED[caption] += 1
        return ASKED[caption] % 3 == 0


ASKED: Counter[str] = Counter()


def test_several_verdicts_grade_a_reward_and_each_is_paid_for_and_stored_once(api: ClaudeApi, tmp_path: Path) -> None:
    ASKED.clear()
    api.rules = EveryThirdPasses()
    first = judged(tmp_path, range(4), verdicts=3)
    assert [verdict.reward for verdict in first] == [1 / 3] * 4
    assert {verdict.reason.count("Fail: ") for verdict in first} == {2}
    assert len(api.paid) == len({line["key"] for line in stored_lines(tmp_path)}) == 4 + 12, "each is captioned once"
    assert sum(verdict.usd for verdict in first) == interactive_cost(api) == account(tmp_path).spent
    arrived = len(api.exchanges)
    assert judged(tmp_path, range(4), verdicts=3) == first
    assert len(api.exchanges) == arrived, "a run that continues asks none twice"


def test_the_first_of_several_verdicts_is_the_one_that_is_asked_for_alone(api: ClaudeApi, tmp_path: Path) -> None:
    alone = judged(tmp_path, range(3))
    paid = len(api.paid)
    several = judged(tmp_path, range(3), verdicts=2)
    assert len(api.paid) == paid + 3
    assert [verdict.reward for verdict in several] == [verdict.reward for verdict in alone]


@pytest.mark.parametrize(
    ("given", "reward", "retryable"),
    [([1.0, None, 0.0, 1.0], 2 / 3, False), ([None, 0.0], 0.0, False), ([None, None], None, True)],
)
def test_a_verdict_that_is_missing_leaves_the_others(
    given: list[float | None], reward: float | None, retryable: bool
) -> None:
    found = _combined([RewardResult(one, "a reason", "a caption", "", (), retryable=one is None) for one in given])
    assert (found.reward, found.retryable) == (reward, retryable)


def test_a_caption_that_is_given_needs_no_pictures(api: ClaudeApi, tmp_path: Path) -> None:
    with asking(tmp_path) as asker:
        found = asker.submit(question(1, caption="A cat runs away.", frames=()), SCENE).result()
    assert (found.reward, found.caption, len(found.calls), len(api.exchanges)) == (1.0, "A cat runs away.", 1, 1)


def test_a_budget_that_is_used_up_ends_all_asking_and_is_never_passed(api: ClaudeApi, tmp_path: Path) -> None:
    with asking(tmp_path, budget="0.05") as asker:
        futures = [asker.submit(question(number), SCENE) for number in range(60)]
        ends = [future.exception() for future in futures]
    stops = [end for end in ends if end]
    assert stops and all(isinstance(end, JudgeStopped) and "Raise `budget_usd`" in str(end) for end in stops)
    spent = interactive_cost(api)
    assert 0 < spent <= Decimal("0.05")
    assert account(tmp_path).spent == spent
    assert sum((dollars(line["usage"]) for line in stored_lines(tmp_path)), Decimal(0)) == spent


def test_without_a_key_nothing_is_begun(api: ClaudeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    before = threading.active_count()
    with pytest.raises(JudgeUsageError, match="ANTHROPIC_API_KEY is not set"), asking(tmp_path):
        pass
    until(lambda: threading.active_count() == before)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_key_is_told_of_every_question(api: ClaudeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-wrong")
    with asking(tmp_path) as asker:
        ends = [asker.submit(question(number), SCENE).exception() for number in range(3)]
    assert all(isinstance(end, JudgeUsageError) and "sk-ant" not in str(end) for end in ends)


def test_what_is_under_way_at_the_end_is_stored_and_nothing_else_is_asked(tmp_path: Path, api: ClaudeApi) -> None:
    api.limits = Limits(latency=0.3)
    with asking(tmp_path) as asker:
        futures = [asker.submit(question(number), SCENE) for number in range(3)]
        until(lambda: api.in_flight == 3)
    assert all(future.done() for future in futures)
    assert [line["text"] for line in stored_lines(tmp_path)] and len(stored_lines(tmp_path)) == len(api.paid) == 3
    assert account(tmp_path).spent == interactive_cost(api) and account(tmp_path).lost == 0


def test_the_end_comes_again_and_after_a_failure(api: ClaudeApi, tmp_path: Path) -> None:
    api.account = "no_credit"
    with asking(tmp_path) as asker:
        assert isinstance(asker.submit(question(1), SCENE).exception(), JudgeStopped)
        asker.close()
    asker.close()
    assert not any(thread.name == "judge" for thread in threading.enumerate())


def test_a_run_that_has_answers_of_the_first_prompts_goes_on_with_them(api: ClaudeApi, tmp_path: Path) -> None:
    write_segments(Storage.at(tmp_path), [answer("a" * 64)])
    judged(tmp_path, range(2))
    judged(tmp_path / "new", range(2, 4))
    assert ["system" in exchange.body for exchange in api.exchanges].count(True) == 2
    assert not any("system" in exchange.body for exchange in api.exchanges[:4])
