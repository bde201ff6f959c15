"""The judge room against the loopback API: how tests ask, what the server says it made, and what lies in the store.

As a program it asks in a process of its own, which tests kill, or which kills itself at a step of a batch's life:
`python -m tests.judge.api_support --out DIR …`. It says `done`, or what stopped it.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gzip
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import nextscene.judge.api.backoff
import nextscene.judge.api.batch_api
import nextscene.judge.api.batches
import nextscene.judge.spending.admission
import nextscene.judge.spending.budget
import nextscene.judge.spending.cached_client
from nextscene.common.storage import Storage
from nextscene.judge.api.answer import Answer
from nextscene.judge.api.backoff import RetryPolicy
from nextscene.judge.api.batch_api import BatchApi
from nextscene.judge.api.batch_record import BatchRecord
from nextscene.judge.api.batches import Batches
from nextscene.judge.api.request import Request
from nextscene.judge.base import Question
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.errors import JudgeStopped, JudgeUsageError
from nextscene.judge.request_builder import RequestBuilder
from nextscene.judge.spending.answer_cache import AnswerCache
from nextscene.judge.spending.budget import Budget
from nextscene.judge.spending.budget_record import BudgetRecord
from nextscene.judge.spending.cached_client import CachedClient
from nextscene.judge.spending.call_journal import JOURNALS
from nextscene.judge.spending.prices import Prices
from tests.fakes.claude_api import ClaudeApi, digest, routes
from tests.support import REPOSITORY

PRICE = Prices.load().for_model("claude-sonnet-5-5")
RETRY_POLICY = RetryPolicy(calls_at_once=64, call_seconds=30.0, outage_seconds=60.0, quiet_seconds=0.1)
_REQUESTS = RequestBuilder(ClaudeConfig(), PRICE)


def describe(caption: str) -> Request:
    """One question, named by the caption that it is about."""
    return _REQUESTS.describe(Question("", caption), ())


def captions(count: int) -> list[str]:
    return [f"clip {i}: a dog runs" for i in range(count)]


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Shorten the waits that only make a test slow."""
    patch.setattr(nextscene.judge.api.backoff, "_FIRST_WAIT_SECONDS", 0.02)
    patch.setattr(nextscene.judge.api.backoff, "_LONGEST_WAIT_SECONDS", 1.0)
    patch.setattr(nextscene.judge.spending.cached_client, "_STORE_SECONDS", 0.05)
    patch.setattr(nextscene.judge.spending.budget, "_GRACE_SECONDS", 0.05)
    patch.setattr(nextscene.judge.spending.admission, "_GRACE_SECONDS", 0.05)
    patch.setattr(nextscene.judge.api.batches, "_FIRST_LOOK_SECONDS", 0.2)
    patch.setattr(nextscene.judge.api.batches, "_MAX_LOOK_SECONDS", 0.4)
    patch.setattr(nextscene.judge.spending.cached_client, "_ONLY_MISSING_SECONDS", 3.0)
    patch.setattr(nextscene.judge.api.batch_api, "_FIRST_POLL_SECONDS", 0.05)


def small_batches(patch: pytest.MonkeyPatch, max_requests: int, max_bytes: int = 64 << 20) -> None:
    small = functools.partial(Batches, max_requests=max_requests, max_bytes=max_bytes)
    patch.setattr(nextscene.judge.spending.cached_client, "Batches", small)


def reach(patch: pytest.MonkeyPatch, api: ClaudeApi) -> None:
    patch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    for name, value in api.env.items():
        patch.setenv(name, value)


def listen(patch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the list to which the servers of this process add each body that they are sent."""
    heard: list[bytes] = []
    parsed = routes._parsed

    def listening(raw: bytes) -> dict[str, Any]:
        heard.append(raw)
        return parsed(raw)

    patch.setattr(routes, "_parsed", listening)
    return heard


@asynccontextmanager
async def open_client(
    out: Path,
    budget: str | None = None,
    in_batches: bool = False,
    retry_policy: RetryPolicy = RETRY_POLICY,
    check_ownership: Callable[[], None] = lambda: None,
) -> AsyncIterator[CachedClient]:
    """Open the client of one run, closed with the block."""
    limit = None if budget is None else Decimal(budget)
    client = await CachedClient.open(
        Storage.at(out), out / JOURNALS, PRICE, retry_policy, limit, in_batches, check_ownership
    )
    try:
        yield client
    finally:
        await client.close()


def ask_all(
    out: Path,
    requests: Sequence[Request],
    *,
    budget: str | None = None,
    in_batches: bool = False,
    retry_policy: RetryPolicy = RETRY_POLICY,
) -> list[Answer | BaseException]:
    """A whole run that asks these at once: for each its answer, or what was raised."""

    async def run() -> list[Answer | BaseException]:
        async with open_client(out, budget=budget, in_batches=in_batches, retry_policy=retry_policy) as client:
            asked = [client.ask(request, priority) for priority, request in enumerate(requests)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            if in_batches and not any(isinstance(answer, (JudgeStopped, JudgeUsageError)) for answer in found):
                await all_collected(client)
            return found

    return asyncio.run(run())


async def all_collected(client: CachedClient) -> None:
    """Wait until no batch is open: stored answers are given while their batch is still being collected."""
    while client.progress().in_batches:
        await asyncio.sleep(0.02)


# ---- what the server says --------------------------------------------------------------------------------------


def dollars(usage: dict[str, Any]) -> Decimal:
    """$2 and $10 a million tokens: what Sonnet 5.5 costs, written down a second time."""
    return Decimal(2 * usage["input_tokens"] + 10 * usage["output_tokens"]) / 1_000_000


def interactive_cost(api: ClaudeApi) -> Decimal:
    """Return the cost of all answers that were made, delivered or not."""
    return sum((dollars(exchange.usage) for exchange in list(api.exchanges) if exchange.usage), Decimal(0))


def undelivered(api: ClaudeApi) -> list[dict[str, Any]]:
    """The usage of answers that were made and cut off."""
    return [exchange.usage for exchange in api.exchanges if exchange.usage and not exchange.delivered]


def batch_results(api: ClaudeApi) -> list[tuple[str, dict[str, Any]]]:
    """custom_id and result of all that ended batches hold."""
    lines = [json.loads(line) for batch in api.batches for line in batch.results]
    return [(line["custom_id"], line["result"]) for line in lines]


def batch_cost(api: ClaudeApi) -> Decimal:
    usages = [result["message"]["usage"] for _, result in batch_results(api) if result["type"] == "succeeded"]
    return sum((dollars(usage) / 2 for usage in usages), Decimal(0))


def asked_in_batches(api: ClaudeApi) -> Counter[str]:
    return Counter(custom_id for batch in api.batches for custom_id in batch.custom_ids)


def digest_of(request: Request) -> str:
    """Return the name of the question in the server's log."""
    return digest(request.body)


# ---- what lies in the store ------------------------------------------------------------------------------------


def stored_lines(out: Path) -> list[dict[str, Any]]:
    """Every stored answer, read without the code under test."""
    segments = sorted((out / "calls").rglob("*.jsonl.gz"))
    return [json.loads(line) for segment in segments for line in unpacked(segment).splitlines()]


def unpacked(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes())


def paid_for(out: Path) -> dict[str, Decimal]:
    """Key → cost of the stored answers that are no copies."""
    return {line["key"]: Decimal(line["usd"]) for line in stored_lines(out) if not line["shared"]}


def account(out: Path) -> BudgetRecord:
    record = BudgetRecord.read(Storage.at(out))
    assert record is not None
    return record


def open_batches(out: Path) -> list[Path]:
    return sorted((out / "calls" / "batches").glob("*"))


# ---- a process of its own --------------------------------------------------------------------------------------

Deadly = Callable[[pytest.MonkeyPatch], None]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at(owner: type, method: str, *, when: Callable[..., bool] = lambda *_: True, after: bool = False) -> Deadly:
    """Kill the process when it enters the method, or when it returns."""
    real = getattr(owner, method)

    async def dying_async(*given: Any, **named: Any) -> Any:
        if when(*given) and not after:
            _die()
        found = await real(*given, **named)
        if after:
            _die()
        return found

    def dying(*given: Any, **named: Any) -> Any:
        if when(*given) and not after:
            _die()
        found = real(*given, **named)
        if after:
            _die()
        return found

    double = dying_async if asyncio.iscoroutinefunction(real) else dying
    return lambda patch: patch.setattr(owner, method, double)


STEPS: dict[str, Deadly] = {
    "before the record is written": _at(BatchRecord, "write", when=lambda batch, _: not batch.batch_id),
    "before the batch is created": _at(BatchApi, "create"),
    "before its id is stored": _at(BatchRecord, "write", when=lambda batch, _: bool(batch.batch_id)),
    "while it waits": _at(BatchApi, "until_ended"),
    "once the results are read": _at(AnswerCache, "store", when=lambda cache: bool(cache._unstored)),
    "once the answers are stored": _at(Budget, "settle_batch"),
    "once the account is settled": _at(Budget, "settle_batch", after=True),
    "once the record is deleted": _at(Batches, "_deliver"),
}
"""The steps at which a process that asks in a batch can kill itself."""


@contextmanager
def child(out: Path, *flags: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """This module as a program, ended with the block at the latest."""
    command = [sys.executable, "-m", "tests.judge.api_support", "--out", str(out), *flags]
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=dict(os.environ) | (env or {}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--budget")
    parser.add_argument("--batches", action="store_true")
    parser.add_argument("--die", choices=STEPS)
    given = parser.parse_args()
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        if given.die:
            STEPS[given.die](patch)
        try:
            asyncio.run(_ask(given))
            print("done")
        except (JudgeUsageError, JudgeStopped) as end:
            print(f"{type(end).__name__}: {end}")


async def _ask(given: argparse.Namespace) -> None:
    places = asyncio.Semaphore(given.count if given.batches else given.at_once)
    async with open_client(given.out, budget=given.budget, in_batches=given.batches) as client:

        async def one(caption: str) -> None:
            async with places:
                await client.ask(describe(caption), 0)

        for ended in await asyncio.gather(*map(one, captions(given.count)), return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended
        await all_collected(client)


if __name__ == "__main__":
    main()
