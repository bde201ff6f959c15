"""The results of batches: odd, doubled, unreadable and missing lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nextscene.judge.api.answer import Answer
from nextscene.judge.errors import JudgeStopped, RequestFailed
from tests.fakes.claude_api import ClaudeApi, Question
from tests.judge import api_support
from tests.judge.api.batch_support import questions
from tests.judge.api_support import account, ask_all, batch_cost, open_batches, paid_for, stored_lines

pytestmark = pytest.mark.usefixtures("hurried")


def test_an_item_that_says_what_no_item_says_is_the_end_of_its_question_alone(tmp_path: Path, api: ClaudeApi) -> None:
    odd: dict[str, dict[str, Any]] = {
        "clip 0": {"usage": {"input_tokens": 2**64, "output_tokens": 1}},
        "clip 1": {"usage": None},
        "clip 2": {"content": None},
        "clip 3": {"model": "\ud83d", "id": "\x1b" * 10**5, "stop_details": {"category": [1]}},
    }
    answer = api.answer

    def hostile(question: Question, tier: str) -> dict[str, Any]:
        changes = [changes for caption, changes in odd.items() if caption in question.text]
        return answer(question, tier) | (changes[0] if changes else {})

    api.answer = hostile  # type: ignore[method-assign]
    found = ask_all(tmp_path, questions(8), in_batches=True)
    assert [type(answer) for answer in found[:3]] == [RequestFailed] * 3
    assert all(isinstance(answer, Answer) for answer in found[3:])
    assert open_batches(tmp_path) == []


@pytest.mark.parametrize("fate", ["twice", "errored-too"])
def test_a_result_that_comes_twice_counts_once_the_paid_one(
    fate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ClaudeApi(batch_fates=lambda *_: fate) as api:
        api_support.reach(monkeypatch, api)
        answers = ask_all(tmp_path, questions(20), in_batches=True)
        assert all(isinstance(answer, Answer) for answer in answers)
        assert account(tmp_path).spent == sum(paid_for(tmp_path).values())
        assert (len(stored_lines(tmp_path)), account(tmp_path).lost, len(api.batches)) == (20, 0, 1)


@pytest.mark.parametrize(
    "line", [b'{"custom_id": garbage\n', b"null\n", b"[]\n", b'{"custom_id": 5}\n', b"\xff\n", b"[" * 99_999 + b"\n"]
)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_line_of_the_results_that_nobody_can_read_is_nobodys_fault(
    tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch, line: bytes, place: int
) -> None:
    monkeypatch.setattr("tests.fakes.claude_api.batches._shuffle", lambda lines: lines.insert(place, line))
    answers = ask_all(tmp_path, questions(4), in_batches=True)
    assert all(isinstance(answer, Answer) for answer in answers), answers
    assert (account(tmp_path).answers, open_batches(tmp_path)) == (4, [])


def test_a_line_that_stands_in_the_place_of_a_result_ends_that_question_alone(
    tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(lines: list[bytes]) -> None:
        if len(lines) > 1:
            lines[1] = b"null\n"

    with monkeypatch.context() as once:
        once.setattr("tests.fakes.claude_api.batches._shuffle", damage)
        answers = ask_all(tmp_path, questions(4), in_batches=True)
    assert sum(isinstance(answer, Answer) for answer in answers) >= 3
    assert not any(isinstance(answer, JudgeStopped) for answer in answers), answers


def test_results_that_lack_a_line_for_good_give_what_they_have(
    tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as once:
        once.setattr("tests.fakes.claude_api.batches._shuffle", lambda lines: lines.pop() if len(lines) > 1 else None)
        answers = ask_all(tmp_path, questions(10), in_batches=True)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert (len(api.batches), len(api.paid)) == (2, 11)
    # What was lost counts in full: an answer of a batch tells nothing of it.
    assert account(tmp_path).spent + account(tmp_path).lost >= batch_cost(api)
