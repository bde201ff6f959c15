"""The Message Batches API: creation that fails, batches of others, and responses that are not from the API."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from nextscene.common.storage import Storage
from nextscene.judge.api.answer import Answer
from nextscene.judge.api.batch_record import BatchRecord
from nextscene.judge.api.client import worst_cost
from nextscene.judge.errors import JudgeStopped
from tests.fakes.claude_api import Batch, ClaudeApi, FaultSchedule, ServerError
from tests.fakes.claude_api.routes import Routes
from tests.judge import api_support
from tests.judge.api.batch_support import APPEARS_AT_ONCE, assert_settled, lot, other_program, questions
from tests.judge.api_support import (
    PRICE,
    RETRY_POLICY,
    account,
    ask_all,
    asked_in_batches,
    batch_cost,
    captions,
    child,
    describe,
    interactive_cost,
    open_batches,
    open_client,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hurried")]


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
def test_a_batch_that_appears_late_is_not_created_twice_nor_delays_others(
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


def test_with_only_a_lost_batch_left_the_run_stops_and_reserves_its_cost(tmp_path: Path, api: ClaudeApi) -> None:
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


@pytest.mark.parametrize("share", [1, 2])
def test_an_account_disabled_during_a_batch_stops_the_run_not_the_questions(
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
    assert "`model`" not in said
    assert len(open_batches(tmp_path)) == 1


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


def test_a_single_lost_call_counts_more_than_an_answer_of_a_batch(tmp_path: Path, api: ClaudeApi) -> None:
    api.faults = FaultSchedule(rates={"drop-after": 1.0}, max_per_body=10**6)
    ask_all(tmp_path, questions(4), retry_policy=replace(RETRY_POLICY, outage_seconds=0.3))
    api.faults = FaultSchedule()
    ask_all(tmp_path, questions(4), in_batches=True)
    assert account(tmp_path).spent + account(tmp_path).lost >= interactive_cost(api) + batch_cost(api)
