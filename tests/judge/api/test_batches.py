"""Message batches over HTTP: no batch is created twice, no item is paid for twice, and the recorded cost is true."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from nextscene.judge.api.answer import Answer
from tests.fakes.claude_api import ClaudeApi
from tests.judge import api_support
from tests.judge.api.batch_support import APPEARS_AT_ONCE, assert_settled, questions
from tests.judge.api_support import STEPS, ask_all, asked_in_batches, child, digest_of, open_client

pytestmark = pytest.mark.usefixtures("hurried")


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


def test_answers_of_batches_and_of_single_calls_are_not_asked_for_twice(tmp_path: Path, api: ClaudeApi) -> None:
    requests = questions(30)
    ask_all(tmp_path, requests[:10])
    ask_all(tmp_path, requests[:20], in_batches=True)
    assert asked_in_batches(api).keys() == {request.key for request in requests[10:20]}
    ask_all(tmp_path, requests)
    assert {exchange.digest for exchange in api.exchanges[10:]} == {digest_of(request) for request in requests[20:]}
    assert len(api.paid) == len(set(api.paid)) == 30
    assert_settled(tmp_path, api)


@pytest.mark.slow
def test_a_run_without_batches_waits_for_the_open_batch_with_its_question(
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
