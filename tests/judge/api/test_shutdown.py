"""The end of asking: whoever meets it, all hear of it at once, and nothing is paid for after it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from nextscene.common.storage import Storage, StorageFault
from nextscene.judge.api import batch_api
from nextscene.judge.api.answer import Answer
from nextscene.judge.api.backoff import RetryPolicy
from nextscene.judge.api.batch_record import BatchRecord
from nextscene.judge.api.shutdown import ShutdownSignal
from nextscene.judge.errors import JudgeStopped
from tests.fakes.claude_api import ClaudeApi, FaultSchedule, Limits
from tests.judge import api_support
from tests.judge.api_support import account, ask_all, captions, describe, open_client, stored_lines
from tests.judge.support import in_no_time

OVER = JudgeStopped("it is over")


pytestmark = pytest.mark.usefixtures("hurried")


def record(out: Path, question: str, batch_id: str, worst: str = "0.04") -> None:
    """A batch that an earlier run left open."""
    batch = BatchRecord("left", time.time(), Decimal(worst), {describe(question).key: "d"}, batch_id)
    batch.write(Storage.at(out))


# ---- the gate itself -------------------------------------------------------------------------------------------


def test_the_first_reason_counts_and_every_listener_hears_it_once() -> None:
    async def work() -> None:
        shutdown, heard = ShutdownSignal(), list[Exception]()
        shutdown.add_listener(heard.append)
        shutdown.add_listener(heard.append)
        shutdown.check()
        shutdown.trigger(OVER)
        shutdown.trigger(JudgeStopped("later"))
        assert heard == [OVER, OVER]
        with pytest.raises(JudgeStopped, match="it is over"):
            shutdown.check()

    in_no_time(work())


def test_a_run_that_is_gone_closes_it() -> None:
    async def work() -> None:
        def gone() -> None:
            raise OVER

        shutdown = ShutdownSignal(gone)
        with pytest.raises(JudgeStopped, match="it is over"):
            shutdown.check()
        assert shutdown.reason is OVER

    in_no_time(work())


def test_who_sleeps_is_woken_by_the_end_and_not_before_his_time_without_one() -> None:
    async def work() -> None:
        loop, shutdown = asyncio.get_running_loop(), ShutdownSignal()
        await shutdown.sleep(10)
        assert loop.time() >= 10
        loop.call_later(1, shutdown.trigger, OVER)
        with pytest.raises(JudgeStopped, match="it is over"):
            await shutdown.sleep(1000)
        assert loop.time() < 20

    in_no_time(work())


# ---- all who ask hear of it ------------------------------------------------------------------------------------


def test_a_batch_that_cannot_be_collected_ends_those_who_wait_for_its_money_too(tmp_path: Path, api: ClaudeApi) -> None:
    record(tmp_path, "lost for ever", "msgbatch_of_another_workspace")
    found = ask_all(tmp_path, [describe(caption) for caption in captions(20)], budget="0.05")
    stops = [error for error in found if isinstance(error, JudgeStopped)]
    assert stops and all("msgbatch_of_another_workspace cannot be collected" in str(stop) for stop in stops)


def test_a_spend_limit_ends_those_who_wait_for_an_open_batch_too(tmp_path: Path, api: ClaudeApi) -> None:
    api.batch_seconds = None  # it does not end by itself
    waiting = describe("in a batch")

    async def first() -> None:
        async with open_client(tmp_path, in_batches=True) as client:
            task = asyncio.create_task(client.ask(waiting, 0))
            while not client.progress().in_batches or not api.batches:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)
            task.cancel()

    asyncio.run(first())
    api.account = "spend_limit"
    found = ask_all(tmp_path, [waiting, describe("one by one")])
    assert [type(error) for error in found] == [JudgeStopped, JudgeStopped]
    assert all("spend limit" in str(error) for error in found)


def test_what_cannot_be_stored_is_not_paid_for_any_longer(
    tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.rate_limiter.limits = api.limits = Limits(latency=0.1)
    write = Storage.write

    def full(self: Storage, path: str, data: bytes) -> None:
        if path.endswith(".jsonl.gz"):
            raise StorageFault("the disk is full")
        write(self, path, data)

    monkeypatch.setattr(Storage, "write", full)
    found = ask_all(tmp_path, [describe(caption) for caption in captions(200)])
    assert {str(error) for error in found if not isinstance(error, Answer)} == {"the disk is full"}
    paid = len(api.exchanges)
    assert paid < 100 and not stored_lines(tmp_path)
    monkeypatch.setattr(Storage, "write", write)
    again = ask_all(tmp_path, [describe(caption) for caption in captions(200)])
    assert all(isinstance(answer, Answer) for answer in again)
    assert len(api.exchanges) == len(stored_lines(tmp_path)) == 200, "what had come was kept on the journal"


def test_after_the_end_no_batch_is_created(tmp_path: Path, api: ClaudeApi) -> None:
    async def run() -> None:
        retry_policy = replace(api_support.RETRY_POLICY, quiet_seconds=0.5)
        async with open_client(tmp_path, in_batches=True, retry_policy=retry_policy) as client:
            asked = asyncio.create_task(client.ask(describe("too late"), 0))
            await asyncio.sleep(0.1)
        with pytest.raises(JudgeStopped, match="the run has ended"):
            await asked
        await asyncio.sleep(1)

    asyncio.run(run())
    assert api.batches == []


def test_who_is_between_two_tries_does_not_hold_up_the_end(
    tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> float:
        async with open_client(tmp_path) as client:
            asked = asyncio.create_task(client.ask(describe("ALWAYS-500"), 0))
            while not api.exchanges:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            begun = asyncio.get_running_loop().time()
            await client.close()
            with pytest.raises(JudgeStopped):
                await asked
            return asyncio.get_running_loop().time() - begun

    monkeypatch.setattr(api_support.nextscene.judge.api.backoff, "_FIRST_WAIT_SECONDS", 1000.0)
    monkeypatch.setattr(api_support.nextscene.judge.api.backoff, "_LONGEST_WAIT_SECONDS", 1000.0)
    assert asyncio.run(run()) < 100


# ---- what is the run's fault is not each clip's ----------------------------------------------------------------


def test_a_model_that_the_items_of_a_batch_are_refused_for_stops_the_run(tmp_path: Path, api: ClaudeApi) -> None:
    unknown = [replace(describe(caption), model="claude-gone-1") for caption in captions(5)]
    found = ask_all(tmp_path, unknown, in_batches=True)
    assert all(isinstance(error, JudgeStopped) and "choose another model" in str(error) for error in found)
    assert len(api.batches) == 1 and account(tmp_path).spent == 0


def test_a_request_that_is_wrong_for_every_question_stops_the_run(tmp_path: Path, api: ClaudeApi) -> None:
    found = ask_all(tmp_path, [describe(f"BAD-REQUEST {i}") for i in range(60)])
    assert any(isinstance(error, JudgeStopped) and "denies every question" in str(error) for error in found)
    assert len(api.exchanges) < 60


def test_to_be_put_off_for_ever_is_an_outage_too(tmp_path: Path, api: ClaudeApi) -> None:
    api.faults = FaultSchedule(rates={"429-after": 1.0}, max_per_body=10**6, retry_after=0.1)
    found = ask_all(tmp_path, [describe("never")], retry_policy=RetryPolicy(outage_seconds=1.0))
    assert [type(error) for error in found] == [JudgeStopped]
    assert "no answer for" in str(found[0])


# ---- results that break off ------------------------------------------------------------------------------------


def test_results_that_end_too_early_are_read_again(
    tmp_path: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = batch_api.BatchApi._read
    tries = 0

    async def counted(self: batch_api.BatchApi, batch: BatchRecord) -> object:
        nonlocal tries
        tries += 1
        # As if the first reading had broken off before one more question.
        return await read(self, batch if tries > 1 else replace(batch, questions=batch.questions | {"x": "d"}))

    monkeypatch.setattr(batch_api.BatchApi, "_read", counted)
    found = ask_all(tmp_path, [describe(caption) for caption in captions(5)], in_batches=True)
    assert all(isinstance(answer, Answer) for answer in found)
    assert tries == 2 and len(api.batches) == 1
