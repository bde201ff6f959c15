"""Message batches over HTTP: no batch is made twice, no item is paid twice, and the account knows the true cost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from anthropic import Anthropic

from nextscene.common.storage import Storage
from nextscene.judge.api.answer import Answer
from nextscene.judge.api.batch_record import BatchRecord
from nextscene.judge.api.client import worst_cost
from nextscene.judge.api.request import Request
from nextscene.judge.errors import JudgeStopped, RequestFailed
from tests.fakes.claude_api import AnswerRules, Batch, ClaudeApi, FaultSchedule, Question, ServerError
from tests.fakes.claude_api.routes import Routes
from tests.judge import api_support
from tests.judge.api_support import (
    PRICE,
    RETRY_POLICY,
    STEPS,
    account,
    ask_all,
    asked_in_batches,
    batch_cost,
    batch_results,
    captions,
    child,
    describe,
    digest_of,
    interactive_cost,
    open_batches,
    open_client,
    paid_for,
    stored_lines,
)

pytestmark = pytest.mark.usefixtures("hurried")
APPEARS_AT_ONCE = replace(RETRY_POLICY, batch_appear_hours=0.0)


def questions(count: int) -> list[Request]:
    return [describe(caption) for caption in captions(count)]


def other_program(api: ClaudeApi, requests: list[Request]) -> str:
    """A batch that somebody else makes with the same account."""
    items: Any = [{"custom_id": request.key, "params": request.body} for request in requests]
    with Anthropic() as claude:
        return claude.messages.batches.create(requests=items).id


def assert_settled(out: Path, api: ClaudeApi) -> None:
    """Everything that was made in batches is stored, paid for at half price, and counted once."""
    assert account(out).spent == batch_cost(api) + interactive_cost(api) == sum(paid_for(out).values())
    assert account(out).answers == len(paid_for(out))
    assert open_batches(out) == []


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


# ---- many questions --------------------------------------------------------------------------------------------


def size(batch: Batch) -> int:
    """Bytes on the wire."""
    items = zip(batch.custom_ids, batch.bodies, strict=True)
    return sum(len(json.dumps({"custom_id": custom_id, "params": body})) for custom_id, body in items)


def lot(custom_id: str) -> int:
    return hashlib.sha256(custom_id.encode()).digest()[0]


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
def test_ten_thousand_questions_fill_batches_within_both_limits_and_each_ends_once(
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


# ---- killed at every step --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_no_batch_is_made_twice_and_the_account_ends_right(
    step: str, tmp_path: Path, api: ClaudeApi
) -> None:
    with child(tmp_path, "--batches", "--die", step, env=api.env) as process:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, said
    made_before = len(api.batches)
    requests = questions(30)
    answers = ask_all(tmp_path, requests, in_batches=True, retry_policy=APPEARS_AT_ONCE)
    assert [answer.key for answer in answers if isinstance(answer, Answer)] == [request.key for request in requests]
    assert made_before == (0 if step in list(STEPS)[:2] else 1)
    assert len(api.batches) == 1
    assert asked_in_batches(api) == dict.fromkeys((request.key for request in requests), 1)
    assert len(api.paid) == 30
    assert api.exchanges == []
    assert_settled(tmp_path, api)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [("before its id is stored", "before its id is stored"), tuple(STEPS)[3:]])
def test_killed_again_and_again_it_still_pays_once(steps: tuple[str, ...], tmp_path: Path, api: ClaudeApi) -> None:
    for step in steps:
        with child(tmp_path, "--batches", "--die", step, env=api.env) as process:
            process.communicate(timeout=60)
            assert process.returncode == -signal.SIGKILL
    ask_all(tmp_path, questions(30), in_batches=True)
    assert len(api.batches) == 1
    assert len(api.paid) == 30
    assert_settled(tmp_path, api)


# ---- creation goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["429", "page", "500-before", "500-after", "drop-before", "drop-after", "slow"])
@pytest.mark.parametrize("times", [1, 3])
def test_whatever_befalls_the_creation_there_is_one_batch(
    fault: str, times: int, tmp_path: Path, api: ClaudeApi
) -> None:
    api.faults = FaultSchedule(slow_seconds=0.2)
    api.create_faults = [fault] * times
    answers = ask_all(tmp_path, questions(20), in_batches=True, retry_policy=APPEARS_AT_ONCE)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert len(api.batches) == 1
    assert len(api.paid) == 20
    assert account(tmp_path).lost == 0
    assert_settled(tmp_path, api)


@pytest.mark.parametrize("fault", ["500-before", "drop-before", "500-after", "drop-after"])
def test_a_batch_of_another_program_is_not_taken_for_ours(fault: str, tmp_path: Path, api: ClaudeApi) -> None:
    requests = questions(20)
    # Of the same size; the second holds all of our questions but one.
    strangers = [describe(f"somebody else's {i}") for i in range(20)]
    theirs = {other_program(api, strangers), other_program(api, [*requests[:-1], strangers[0]])}
    api.create_faults = [fault]
    answers = ask_all(tmp_path, requests, in_batches=True, retry_policy=APPEARS_AT_ONCE)
    ours = [batch for batch in api.batches if batch.id not in theirs]
    assert [set(batch.custom_ids) for batch in ours] == [{request.key for request in requests}]
    assert {answer.batch_id for answer in answers if isinstance(answer, Answer)} == {ours[0].id}
    assert len(answers) == 20


@pytest.mark.parametrize("fault", ["drop-late", "504-late"])
def test_a_batch_that_appears_later_is_not_made_twice_and_others_go_on_meanwhile(
    fault: str, tmp_path: Path, api: ClaudeApi
) -> None:
    late, others = questions(40)[:20], questions(40)[20:]

    async def run() -> list[Answer]:
        async with open_client(tmp_path, in_batches=True, budget="1") as client:
            api.create_faults = [fault]
            waiting = [asyncio.ensure_future(client.ask(request, 0)) for request in late]
            while not client._batches.unlisted:
                await asyncio.sleep(0.02)
            await asyncio.gather(*(client.ask(request, 0) for request in others))
            assert not any(asked.done() for asked in waiting)
            api.reveal_batches()
            found = await asyncio.gather(*waiting)
            await api_support.all_collected(client)
            return found

    assert [answer.key for answer in asyncio.run(run())] == [request.key for request in late]
    assert set(asked_in_batches(api).values()) == {1} and len(api.paid) == 40
    assert account(tmp_path).lost == 0
    assert_settled(tmp_path, api)


def test_with_nothing_else_left_the_run_says_when_to_come_back_and_what_may_be_charged_stays_set_aside(
    tmp_path: Path, api: ClaudeApi
) -> None:
    api.create_faults = ["drop-late"]
    stopped = ask_all(tmp_path, questions(20), in_batches=True)
    until = datetime.now(UTC) + timedelta(hours=24)
    [said] = {str(end) for end in stopped}
    assert all(isinstance(end, JudgeStopped) for end in stopped)
    assert "20 questions may be in a batch whose creation broke off" in said
    told = datetime.strptime(said.partition("after ")[2][:16], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    assert abs(told - until) < timedelta(minutes=2)
    [record] = BatchRecord.read_all(Storage.at(tmp_path))
    assert account(tmp_path).allowance == record.worst > 0
    assert not any(isinstance(end, Answer) for end in ask_all(tmp_path, questions(20), in_batches=True))
    api.reveal_batches()
    # Also a run that asks one by one finds it.
    assert all(isinstance(answer, Answer) for answer in ask_all(tmp_path, questions(20)))
    assert (len(api.batches), len(api.paid), api.exchanges) == (1, 20, [])
    assert_settled(tmp_path, api)


def test_once_it_must_have_appeared_it_is_made_anew(tmp_path: Path, api: ClaudeApi) -> None:
    api.create_faults = ["drop-late"]
    ask_all(tmp_path, questions(20), in_batches=True)
    answers = ask_all(tmp_path, questions(20), in_batches=True, retry_policy=APPEARS_AT_ONCE)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert len(api.batches) == 2


def test_what_is_held_for_a_batch_that_may_exist_does_not_keep_others_waiting(tmp_path: Path, api: ClaudeApi) -> None:
    worst = sum(worst_cost(PRICE, request, in_batch=True) for request in questions(20))

    async def run() -> list[Answer | BaseException]:
        async with open_client(tmp_path, in_batches=True, budget=str(worst * Decimal("1.5"))) as client:
            api.create_faults = ["drop-late"]
            late = [asyncio.ensure_future(client.ask(request, 0)) for request in questions(20)]
            while not client._batches.unlisted:
                await asyncio.sleep(0.02)
            others = await asyncio.gather(
                *(client.ask(describe(f"another {caption}"), 0) for caption in captions(20)), return_exceptions=True
            )
            await asyncio.gather(*late, return_exceptions=True)
            return others

    others = asyncio.run(run())
    assert sum(isinstance(answer, Answer) for answer in others) >= 9
    assert account(tmp_path).spent + worst <= worst * Decimal("1.5")


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


@pytest.mark.parametrize("share", [1, 2])
def test_an_account_that_is_disabled_while_a_batch_works_stops_the_run_and_ends_no_question(
    share: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disabled(custom_id: str, params: dict[str, Any], nth: int) -> str:
        return "disabled" if nth == 1 and lot(custom_id) % share == 0 else "succeeded"

    with ClaudeApi(batch_fates=disabled, batch_seconds=None) as api:
        api_support.reach(monkeypatch, api)

        async def run() -> list[Answer | BaseException]:
            async with open_client(tmp_path, in_batches=True) as client:
                asked = [asyncio.ensure_future(client.ask(request, 0)) for request in questions(40)]
                while not api.batches:
                    await asyncio.sleep(0.02)
                api.account = "disabled"
                api.finish_batches()
                return await asyncio.gather(*asked, return_exceptions=True)

        found = asyncio.run(run())
        stopped = [end for end in found if not isinstance(end, Answer)]
        assert stopped and all("denies every question" in str(end) for end in stopped)
        assert all(isinstance(end, JudgeStopped) for end in stopped)
        api.account, api.batch_seconds = "good", 0.0
        assert all(isinstance(answer, Answer) for answer in ask_all(tmp_path, questions(40), in_batches=True))
        assert len(api.paid) == 40
        assert_settled(tmp_path, api)


def test_a_batch_that_the_api_will_not_take_stops_the_run_and_is_forgotten(tmp_path: Path, api: ClaudeApi) -> None:
    api.batch_bytes = 100
    answers = ask_all(tmp_path, questions(5), in_batches=True)
    assert {str(answer) for answer in answers} == {
        "the API does not take a batch of 5 questions; ask without batches: HTTP 413: Request exceeds the maximum size"
    }
    assert all(isinstance(answer, JudgeStopped) for answer in answers)
    assert open_batches(tmp_path) == []
    assert account(tmp_path).lost == account(tmp_path).allowance == 0


def test_a_batch_that_this_account_does_not_know_stops_the_run_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        ClaudeApi(batch_seconds=None) as api,
        child(tmp_path, "--batches", "--die", "while it waits", env=api.env) as process,
    ):
        process.communicate(timeout=60)
        [made] = api.batches
    with ClaudeApi() as other:
        api_support.reach(monkeypatch, other)
        answers = ask_all(tmp_path, questions(30), in_batches=True)
        assert other.batches == []
    [said] = {str(answer) for answer in answers}
    assert all(isinstance(answer, JudgeStopped) for answer in answers)
    assert made.id in said
    assert "--model" not in said
    assert len(open_batches(tmp_path)) == 1


# ---- one store for both ways -----------------------------------------------------------------------------------


def test_answers_of_a_batch_are_not_asked_for_again_one_by_one_nor_the_other_way_round(
    tmp_path: Path, api: ClaudeApi
) -> None:
    requests = questions(30)
    ask_all(tmp_path, requests[:10])
    ask_all(tmp_path, requests[:20], in_batches=True)
    assert asked_in_batches(api).keys() == {request.key for request in requests[10:20]}
    ask_all(tmp_path, requests)
    assert {exchange.digest for exchange in api.exchanges[10:]} == {digest_of(request) for request in requests[20:]}
    assert len(api.paid) == len(set(api.paid)) == 30
    assert_settled(tmp_path, api)


@pytest.mark.slow
def test_a_run_that_asks_one_by_one_waits_for_the_open_batch_that_holds_its_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(custom_id: str, params: dict[str, Any], nth: int) -> str:
        return "expired" if custom_id == requests[3].key else "succeeded"

    requests = questions(40)
    with ClaudeApi(batch_seconds=None, batch_fates=lost) as api:
        api_support.reach(monkeypatch, api)
        with child(tmp_path, "--batches", "--die", "while it waits", env=api.env) as process:
            process.communicate(timeout=60)

        async def run() -> list[Answer]:
            async with open_client(tmp_path) as client:
                asked = [asyncio.ensure_future(client.ask(request, 0)) for request in requests]
                done = await asyncio.gather(*asked[30:])
                assert not any(waiting.done() for waiting in asked[:30])
                assert client.progress().in_batches == 30
                api.finish_batches()
                return [*await asyncio.gather(*asked[:30]), *done]

        answers = asyncio.run(run())
        # The one that the batch ended without is asked for like any other.
        alone = [requests[3], *requests[30:]]
        assert sorted(exchange.digest for exchange in api.exchanges) == sorted(map(digest_of, alone))
        assert [answer.batch_id == "" for answer in answers] == [request in alone for request in requests]
        assert len(api.paid) == len(set(api.paid)) == 40
        assert_settled(tmp_path, api)


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


# ---- what comes is not what was asked for ----------------------------------------------------------------------


def sent_once(patch: pytest.MonkeyPatch, where: str, content: bytes, times: int = 1) -> None:
    """The first of what the server sends there is something else, with status 200."""
    real = getattr(Routes, where)
    left = [content] * times

    async def other(self: Routes, request: web.Request) -> web.StreamResponse:
        if not left:
            return await real(self, request)
        return web.Response(body=left.pop(), content_type="text/html" if content[:1] == b"<" else "application/json")

    patch.setattr(Routes, where, other)


PAGE = b"<html>\n" + b"<p>Sign in</p>\n" * 60 + b"</html>"


@pytest.mark.parametrize(
    "content", [PAGE, b'{\n "error": {\n  "type": "api_error"\n }\n}', b"[1]", b'{"status": "sign in"}']
)
@pytest.mark.parametrize("where", ["batch_results", "batch", "list_batches"])
def test_what_is_no_result_and_no_batch_is_an_outage_and_pays_nothing_twice(
    where: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent_once(monkeypatch, where, content)
    with ClaudeApi() as api:
        api_support.reach(monkeypatch, api)
        api.create_faults = ["drop-after"]
        assert all(isinstance(answer, Answer) for answer in ask_all(tmp_path, questions(20), in_batches=True))
        assert (len(api.batches), len(api.paid)) == (1, 20)
        assert account(tmp_path).lost == 0
        assert_settled(tmp_path, api)


def test_one_404_while_a_batch_is_waited_for_is_not_its_end(
    tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = api.batch_store.get, [1, 1]

    def gone(batch_id: str) -> Batch:
        if left:
            left.pop()
            raise ServerError(404, "No message batch was found")
        return real(batch_id)

    monkeypatch.setattr(api.batch_store, "get", gone)
    assert all(isinstance(answer, Answer) for answer in ask_all(tmp_path, questions(5), in_batches=True))
    assert_settled(tmp_path, api)


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


@pytest.mark.parametrize("fate", ["expired", "errored"])
def test_batches_that_answer_nothing_stop_the_run(fate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ClaudeApi(batch_fates=lambda *_: fate) as api:
        api_support.reach(monkeypatch, api)
        ends = ask_all(tmp_path, questions(40), in_batches=True)
        assert all(isinstance(end, JudgeStopped) and "answers no question" in str(end) for end in ends)


def test_answers_of_batches_that_nobody_can_read_stop_the_run(
    tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = api.answer
    monkeypatch.setattr(api, "answer", lambda *given: answer(*given) | {"usage": None})
    ends = ask_all(tmp_path, questions(40), in_batches=True)
    assert all(isinstance(end, JudgeStopped) and "no answer that can be read" in str(end) for end in ends)
    assert (len(api.batches), open_batches(tmp_path), account(tmp_path).spent) == (1, [], 0)
    assert account(tmp_path).lost > 0


def test_a_batch_of_another_program_that_is_at_work_keeps_ours_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ClaudeApi(batch_seconds=None) as api:
        api_support.reach(monkeypatch, api)
        other_program(api, [describe(f"somebody else's {i}") for i in range(20)])

        async def run() -> list[Answer]:
            async with open_client(tmp_path, in_batches=True) as client:
                api.create_faults, api.batch_seconds = ["drop-after"], 0.1
                return await asyncio.gather(*(client.ask(request, 0) for request in questions(20)))

        assert len(asyncio.run(run())) == 20
        assert api.batches[0].state == "in_progress" and len(api.batches) == 2


def test_a_call_that_was_lost_alone_does_not_count_as_little_as_an_answer_of_a_batch(
    tmp_path: Path, api: ClaudeApi
) -> None:
    api.faults = FaultSchedule(rates={"drop-after": 1.0}, max_per_body=10**6)
    ask_all(tmp_path, questions(4), retry_policy=replace(RETRY_POLICY, outage_seconds=0.3))
    api.faults = FaultSchedule()
    ask_all(tmp_path, questions(4), in_batches=True)
    assert account(tmp_path).spent + account(tmp_path).lost >= interactive_cost(api) + batch_cost(api)


# ---- the budget ------------------------------------------------------------------------------------------------


def test_a_budget_for_a_part_of_the_questions_pays_for_that_part_and_more_money_for_the_rest(
    tmp_path: Path, api: ClaudeApi
) -> None:
    requests = questions(200)
    # Nearly as many tokens as an answer may have: true cost and worst case are close to each other.
    api.rules = AnswerRules(thinking_tokens=900)
    answers = ask_all(tmp_path, requests, budget="0.5", in_batches=True)
    stops = {str(answer) for answer in answers if isinstance(answer, JudgeStopped)}
    paid = [answer for answer in answers if isinstance(answer, Answer)]
    assert 0 < len(api.paid) < 200
    assert batch_cost(api) <= Decimal("0.5")
    assert len(stops) == 1
    assert "--budget-usd" in stops.pop()
    assert {answer.key for answer in paid} <= paid_for(tmp_path).keys()
    before = asked_in_batches(api)
    answers = ask_all(tmp_path, requests, budget="5", in_batches=True)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert asked_in_batches(api) == dict.fromkeys((request.key for request in requests), 1)
    assert before.keys() < asked_in_batches(api).keys()
    assert_settled(tmp_path, api)


def test_a_budget_for_less_than_a_tenth_of_a_batch_is_used_all_the_same_but_for_its_own_last_tenth(
    tmp_path: Path, api: ClaudeApi
) -> None:
    answers = ask_all(tmp_path, questions(100), budget="0.05", in_batches=True)
    answered = [answer for answer in answers if isinstance(answer, Answer)]
    assert answered and len(api.batches) < len(answered)
    assert all(isinstance(answer, Answer | JudgeStopped) for answer in answers)
    assert account(tmp_path).spent <= Decimal("0.05") and account(tmp_path).lost == 0
