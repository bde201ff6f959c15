"""Gathering of questions into batches: size limits, and the budget."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nextscene.judge.api.answer import Answer
from nextscene.judge.errors import JudgeStopped, RequestFailed
from tests.fakes.claude_api import AnswerRules, Batch, ClaudeApi
from tests.judge import api_support
from tests.judge.api.batch_support import assert_settled, lot, questions
from tests.judge.api_support import (
    account,
    ask_all,
    asked_in_batches,
    batch_cost,
    batch_results,
    captions,
    describe,
    paid_for,
    stored_lines,
)

pytestmark = pytest.mark.usefixtures("hurried")


def size(batch: Batch) -> int:
    """Bytes on the wire."""
    items = zip(batch.custom_ids, batch.bodies, strict=True)
    return sum(len(json.dumps({"custom_id": custom_id, "params": body})) for custom_id, body in items)


def fates(custom_id: str, params: dict[str, Any], nth: int) -> str:
    """One in 16 is invalid, one in 16 never ends well, one in 8 ends well only when asked a second or third time."""
    match lot(custom_id) % 16:
        case 0:
            return "invalid"
        case 1:
            return "expired"
        case 2:
            return "errored" if nth == 1 else "succeeded"
        case 3:
            return "expired" if nth <= 2 else "succeeded"
    return "succeeded"


@pytest.mark.slow
def test_10000_questions_fill_batches_within_both_limits_and_each_ends_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [describe(caption) for caption in captions(6000)]
    requests = short + [describe(f"{caption}{' and runs' * 60}") for caption in captions(4000)]
    max_bytes = 1500 * (short[-1].bytes + 150)
    api_support.small_batches(monkeypatch, 1500, max_bytes)
    with ClaudeApi(batch_requests=1500, batch_bytes=max_bytes, batch_fates=fates) as api:
        api_support.reach(monkeypatch, api)
        answers = ask_all(tmp_path, requests, in_batches=True)
        expected = {0: "invalid", 1: "never", 2: "second", 3: "third"}
        submissions = {"invalid": 1, "never": 3, "second": 2, "third": 3, "well": 1}
        times = asked_in_batches(api)
        for request, answer in zip(requests, answers, strict=True):
            fate = expected.get(lot(request.key) % 16, "well")
            assert times[request.key] == submissions[fate]
            if fate in ("invalid", "never"):
                assert isinstance(answer, RequestFailed)
                assert answer.reason == "judge_error"
            else:
                assert isinstance(answer, Answer)
                assert (answer.key, answer.status, answer.shared) == (request.key, "whole", False)
        # Some batches were full by count and some by size, so both limits were met.
        by_count = [batch for batch in api.batches if len(batch.custom_ids) == 1500]
        by_size = [batch for batch in api.batches if batch not in by_count and size(batch) > 0.97 * max_bytes]
        assert by_count
        assert by_size
        succeeded = Counter(custom_id for custom_id, result in batch_results(api) if result["type"] == "succeeded")
        assert set(succeeded.values()) == {1}
        assert set(succeeded) == set(paid_for(tmp_path))
        assert len(stored_lines(tmp_path)) == len(succeeded)
        assert len(api.paid) == len(set(api.paid)) == len(succeeded)
        assert account(tmp_path).lost == 0
        assert_settled(tmp_path, api)


def test_one_question_above_the_size_of_a_batch_still_goes_alone(
    tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api_support.small_batches(monkeypatch, 10, max_bytes=10)
    assert all(isinstance(answer, Answer) for answer in ask_all(tmp_path, questions(3), in_batches=True))
    assert [len(batch.custom_ids) for batch in api.batches] == [1, 1, 1]


def test_a_budget_for_some_questions_pays_for_these_and_more_for_the_rest(tmp_path: Path, api: ClaudeApi) -> None:
    requests = questions(200)
    # Nearly as many tokens as an answer may have: true cost and worst case are close to each other.
    api.rules = AnswerRules(thinking_tokens=900)
    answers = ask_all(tmp_path, requests, budget="0.5", in_batches=True)
    stops = {str(answer) for answer in answers if isinstance(answer, JudgeStopped)}
    paid = [answer for answer in answers if isinstance(answer, Answer)]
    assert 0 < len(api.paid) < 200
    assert batch_cost(api) <= Decimal("0.5")
    assert len(stops) == 1
    assert "`budget_usd`" in stops.pop()
    assert {answer.key for answer in paid} <= paid_for(tmp_path).keys()
    before = asked_in_batches(api)
    answers = ask_all(tmp_path, requests, budget="5", in_batches=True)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert asked_in_batches(api) == dict.fromkeys((request.key for request in requests), 1)
    assert before.keys() < asked_in_batches(api).keys()
    assert_settled(tmp_path, api)


def test_a_budget_below_a_tenth_of_a_batch_is_used_but_for_its_last_tenth(tmp_path: Path, api: ClaudeApi) -> None:
    answers = ask_all(tmp_path, questions(100), budget="0.05", in_batches=True)
    answered = [answer for answer in answers if isinstance(answer, Answer)]
    assert answered and len(api.batches) < len(answered)
    assert all(isinstance(answer, Answer | JudgeStopped) for answer in answers)
    assert account(tmp_path).spent <= Decimal("0.05") and account(tmp_path).lost == 0
