"""The judge `claude` without a network: every answer by script, every call reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.stages.describe import DescribedScene, RejectedScene, describe_clips
from nextscene.judge.api.answer import Answer
from nextscene.judge.api.request import Frame, Request
from nextscene.judge.base import Call, JudgeText, NoVerdict, Question, Verdict
from nextscene.judge.claude import ClaudeJudge
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.errors import JudgeStopped, RequestFailed
from nextscene.prompts import load
from tests.judge.support import REFUSAL, SONNET, USD, message, price

QUESTION = Question("id", "a boy ties his shoelaces", priority=17)
PASS = '{"reason": "It is new.", "verdict": "Pass"}'
FAIL = '{"reason": "The same.", "verdict": "Fail"}'
CUT = {"stop_reason": "max_tokens"}
Reply = str | dict[str, Any] | Exception


class Scripted:
    """Answers by its script, and remembers what it was asked."""

    def __init__(self, *script: Reply) -> None:
        self.script = list(script)
        self.asked: list[Request] = []
        self.given: list[Answer] = []
        self.ways: set[tuple[int, str]] = set()

    async def ask(self, request: Request, priority: int, clip_id: str) -> Answer:
        self.asked.append(request)
        self.ways.add((priority, clip_id))
        reply = self.script.pop(0)
        if isinstance(reply, Exception):
            raise reply
        told = message(reply) if isinstance(reply, str) else message(**reply)
        self.given.append(Answer.from_message(request.key, told | {"id": f"msg_{len(self.asked)}"}, price()))
        return self.given[-1]


def judge(asker: Scripted, **settings: Any) -> ClaudeJudge:
    return ClaudeJudge(replace(ClaudeConfig(), **settings), price(), asker)


def asked(asker: Scripted, work: Callable[[ClaudeJudge], Coroutine[Any, Any, Any]]) -> Any:
    found = asyncio.run(work(judge(asker)))
    assert asker.script == [], "all of the script was played"
    assert asker.ways == {(17, "id")}
    return found


def declined(asker: Scripted, work: Callable[[ClaudeJudge], Coroutine[Any, Any, Any]]) -> NoVerdict:
    with pytest.raises(NoVerdict) as raised:
        asked(asker, work)
    assert [call.answer for call in raised.value.calls] == asker.given, "every call is reported, in order"
    return raised.value


def describe(claude: ClaudeJudge) -> Coroutine[Any, Any, JudgeText]:
    return claude.describe(QUESTION, ())


def verify(claude: ClaudeJudge) -> Coroutine[Any, Any, Verdict]:
    return claude.verify(QUESTION, "He was in a hurry.")


def caption(claude: ClaudeJudge) -> Coroutine[Any, Any, JudgeText]:
    frame = Frame(0.0, 28, 28, b"jpeg")
    return claude.caption(replace(QUESTION, caption="", frames=(frame,)))


def check_consistency(claude: ClaudeJudge) -> Coroutine[Any, Any, Verdict]:
    return claude.check_consistency(QUESTION, "He was in a hurry.")


EACH = pytest.mark.parametrize(
    ("task", "work", "good"),
    [
        ("describe", describe, "A scene."),
        ("verify", verify, PASS),
        ("caption", caption, "A."),
        ("consistency", check_consistency, PASS),
    ],
)


# ---- answers ---------------------------------------------------------------------------------------------------


def test_a_description_is_one_line_without_its_label() -> None:
    asker = Scripted(" **Description:** He was\n in a  hurry. ")
    said = asked(asker, describe)
    template = load("preceding_description")
    call = Call("describe", "preceding_description", template.sha256, asker.given[0])
    assert said == JudgeText("He was in a hurry.", (call,))


@given(st.text(alphabet="aB:é -\n\t'", min_size=1).filter(str.strip))
def test_a_text_without_a_label_loses_nothing_but_its_line_breaks(text: str) -> None:
    assert asked(Scripted(text), describe).text == " ".join(text.split())


@pytest.mark.parametrize(
    ("task", "work", "template"),
    [("verify", verify, "verification"), ("consistency", check_consistency, "causal_consistency")],
)
def test_a_verdict_comes_with_its_reason_and_the_model_that_served_it(
    task: str, work: Callable[[ClaudeJudge], Coroutine[Any, Any, Verdict]], template: str
) -> None:
    asker = Scripted({"content": message(FAIL)["content"], "model": "claude-sonnet-5-5-20261001"})
    opinion = asked(asker, work)
    assert (opinion.verdict, opinion.reason, opinion.model) == ("Fail", "The same.", "claude-sonnet-5-5-20261001")
    assert [(call.task, call.prompt, call.answer) for call in opinion.calls] == [(task, template, asker.given[0])]


def test_a_clip_of_which_nothing_is_known_and_nothing_seen_is_not_asked_about() -> None:
    with pytest.raises(NoVerdict) as raised:
        asyncio.run(judge(Scripted()).caption(replace(QUESTION, caption="")))
    assert (raised.value.outcome, raised.value.reason, raised.value.calls) == ("rejected", "no_caption", ())


# ---- answers that do not do --------------------------------------------------------------------------------------


def test_a_question_that_cannot_be_sent_ends_its_clip_and_asks_nobody() -> None:
    for question in (replace(QUESTION, caption="a \ud83d"), replace(QUESTION, caption="\udce9")):
        asker = Scripted()
        scene = asyncio.run(describe_clips(judge(asker), question))
        assert scene.outcome == ClipOutcome("failed", "bad_caption", "describe: its question is not Unicode text")
        assert not asker.asked


@EACH
def test_what_was_cut_off_is_asked_again_with_twice_the_tokens(
    task: str, work: Callable[[ClaudeJudge], Coroutine[Any, Any, JudgeText | Verdict]], good: str
) -> None:
    asker = Scripted({**message(good[:-3]), **CUT}, good)
    found = asked(asker, work)
    assert [request.max_tokens for request in asker.asked] == [1024, 2048]
    assert asker.asked[1] == replace(asker.asked[0], max_tokens=2048)
    assert [call.answer for call in found.calls] == asker.given
    assert {call.task for call in found.calls} == {task}


@EACH
def test_what_is_cut_off_twice_has_failed_with_both_calls_recorded(
    task: str, work: Callable[[ClaudeJudge], Coroutine[Any, Any, Any]], good: str
) -> None:
    end = declined(Scripted(CUT, {"stop_reason": "model_context_window_exceeded"}), work)
    assert (end.outcome, end.reason) == ("failed", "truncated")
    assert end.detail == f"{task}: model_context_window_exceeded at 2048 tokens"
    assert len(end.calls) == 2


@EACH
def test_a_refusal_is_not_asked_again_and_says_its_category(
    task: str, work: Callable[[ClaudeJudge], Coroutine[Any, Any, Any]], good: str
) -> None:
    end = declined(Scripted(REFUSAL), work)
    assert (end.outcome, end.reason, end.detail) == ("refused", "cyber", f"{task}: It will not.")
    end = declined(Scripted({**REFUSAL, "stop_details": None}), work)
    assert (end.outcome, end.reason, end.detail) == ("refused", "unspecified", task)
    end = declined(Scripted(CUT, REFUSAL), work)
    assert (end.outcome, len(end.calls)) == ("refused", 2)


@pytest.mark.parametrize(
    ("work", "bad", "good"),
    [
        (describe, "", "A scene."),
        (describe, "Description: \n", "A."),
        (verify, "Pass or Fail?", FAIL),
        (check_consistency, "Verdict: Pass / Fail", FAIL),
        (caption, " ", "A."),
    ],
)
def test_what_nobody_can_read_is_asked_once_more_as_another_question(
    work: Callable[[ClaudeJudge], Coroutine[Any, Any, Any]], bad: str, good: str
) -> None:
    asker = Scripted(bad, good)
    assert [call.answer for call in asked(asker, work).calls] == asker.given
    assert [request.repeat for request in asker.asked] == [0, 1]
    assert asker.asked[0].body == asker.asked[1].body and asker.asked[0].key != asker.asked[1].key


def test_what_nobody_can_read_twice_has_failed_with_the_evidence() -> None:
    end = declined(Scripted("Hm.", "I cannot decide." + "." * 500), verify)
    assert (end.outcome, end.reason) == ("failed", "unreadable_answer")
    assert end.detail.startswith("verify: 'I cannot decide.") and len(end.detail) < 250
    end = declined(Scripted("", {"content": []}), describe)
    assert (end.outcome, end.reason, end.detail) == ("failed", "unreadable_answer", "describe: ''")


def test_each_repetition_may_be_cut_off_once() -> None:
    asker = Scripted(CUT, "Hm.", {**message(PASS[:-2]), **CUT}, PASS)
    assert len(asked(asker, verify).calls) == 4
    assert [(request.repeat, request.max_tokens) for request in asker.asked] == [
        (0, 1024),
        (0, 2048),
        (1, 1024),
        (1, 2048),
    ]


@EACH
def test_an_unanswered_question_fails_and_its_earlier_costs_are_reported(
    task: str, work: Callable[[ClaudeJudge], Coroutine[Any, Any, Any]], good: str
) -> None:
    end = declined(Scripted(CUT, RequestFailed("judge_error", "500 again and again")), work)
    assert (end.outcome, end.reason, end.detail) == ("failed", "judge_error", f"{task}: 500 again and again")
    assert len(end.calls) == 1


@EACH
def test_what_ends_the_run_is_no_outcome_of_the_clip(
    task: str, work: Callable[[ClaudeJudge], Coroutine[Any, Any, Any]], good: str
) -> None:
    with pytest.raises(JudgeStopped, match="the budget"):
        asked(Scripted(JudgeStopped("the budget")), work)


# ---- rounds ----------------------------------------------------------------------------------------------------


def decided(asker: Scripted, question: Question = QUESTION, **settings: Any) -> DescribedScene:
    scene = asyncio.run(describe_clips(judge(asker, **settings), question))
    assert [call.answer for call in scene.calls] == asker.given, "every call is reported, in order"
    assert asker.script == []
    return scene


def test_a_fail_leads_to_another_description_that_is_told_of_the_first() -> None:
    asker = Scripted("One.", FAIL, "Two.", PASS)
    scene = decided(asker)
    assert (scene.text, scene.verdict, scene.rounds, scene.outcome) == ("Two.", "Pass", 2, None)
    assert scene.turned_down == (RejectedScene("One.", "The same."),)
    assert (scene.judge_model, scene.prompt_sha256) == (SONNET, load("preceding_description").sha256)
    assert [request.task for request in asker.asked] == ["describe", "verify"] * 2
    assert "\n- One.\n" in asker.asked[2].text and "One." not in asker.asked[3].text


@pytest.mark.parametrize("rounds", [1, 2, 3, 5])
def test_after_the_last_fail_the_clip_is_dropped(rounds: int) -> None:
    asker = Scripted(*["A scene.", FAIL] * rounds)
    scene = decided(asker, rounds=rounds)
    assert scene.outcome == ClipOutcome("dropped", "no_pass", f"{rounds} of {rounds} rounds failed; last: The same.")
    assert scene.rounds == len(scene.turned_down) == rounds
    assert asker.asked[-2].text.count("\n- A scene.") == rounds - 1


def test_a_clip_without_a_caption_is_judged_by_the_one_it_is_given() -> None:
    question = replace(QUESTION, caption="", frames=(Frame(0.0, 28, 28, b"jpeg"),))
    asker = Scripted("A cat\nsits.", "A scene.", PASS)
    scene = decided(asker, question)
    assert scene.caption == "A cat sits."
    assert "The video shows: A cat sits.\n" in asker.asked[1].text
    assert asker.asked[2].text.endswith("\nCaption: A cat sits.")
    assert [len(request.frames) for request in asker.asked] == [1, 0, 0]


def test_a_judge_that_declines_late_leaves_the_record_of_all_that_was_paid() -> None:
    scene = decided(Scripted("One.", FAIL, "Two.", "Hm.", "Hm?"))
    assert scene.outcome is not None and scene.outcome.reason == "unreadable_answer"
    assert (scene.text, scene.verdict, scene.rounds, len(scene.calls)) == ("", "", 1, 5)


def test_a_record_of_a_call_is_flat_and_tells_everything_but_the_text() -> None:
    asker = Scripted("A secret scene.")
    (call,) = asked(asker, describe).calls
    record = call.record()
    assert Decimal(record["usd"]) == USD and record["key"] == asker.asked[0].key
    assert (record["task"], record["input_tokens"], record["output_tokens"]) == ("describe", 100, 10)
    assert all(isinstance(value, str | int | bool) for value in record.values())
    assert "secret" not in str(record)
