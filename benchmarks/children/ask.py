"""Asks a Claude API as fast as it may: `ask bare|ours SECONDS RAMP OUT`, with the API's address in the environment.

`bare` is the SDK's own client, 64 calls at a time and nothing else. `ours` is CachedClient: limits that it has to find
out, a budget, and every answer on disk in OUT. Prints answers a second and CPU seconds an answer, after RAMP seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal

import anthropic

from judge.base import Question
from judge.cached_client import CachedClient
from judge.patience import Patience
from judge.prices import Prices
from judge.request import Request
from judge.requests import Requests
from judge.settings import Claude
from shards.layout import JOURNALS
from shards.local_state import local_state
from shards.storage import Storage

AT_ONCE = 64
_MORE_THAN_ALLOWED = 4 * AT_ONCE
_BUDGET = Decimal(1000)

Ask = Callable[[Request, int], Awaitable[object]]


async def main(mode: str, seconds: float, ramp: float, out: str) -> None:
    settings = Claude()
    price = Prices.load().of(settings.model)
    requests = Requests(settings, price)
    numbers = itertools.count()
    count = 0

    async def worker(ask: Ask) -> None:
        nonlocal count
        while True:
            number = next(numbers)
            question = Question("", f"Number {number} crosses a wooden bridge in the rain, holding a lantern.")
            await ask(requests.describe(question, ()), number)
            count += 1

    if mode == "bare":
        sdk = anthropic.AsyncAnthropic(max_retries=0)
        workers = [asyncio.create_task(worker(_bare(sdk))) for _ in range(AT_ONCE)]
    else:
        files = Storage.at(out)
        client = await CachedClient.open(files, local_state(files, JOURNALS), price, Patience(), _BUDGET)
        workers = [asyncio.create_task(worker(_ours(client))) for _ in range(_MORE_THAN_ALLOWED)]
    await asyncio.sleep(ramp)
    before, begun, cpu = count, time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    answers, elapsed, used = count - before, time.monotonic() - begun, time.process_time() - cpu
    failed = [task.exception() for task in workers if task.done()]
    if failed:
        raise RuntimeError(f"a worker ended: {failed[0]!r}")
    for task in workers:
        task.cancel()
    print(json.dumps({"rate": answers / elapsed, "cpu": used / answers}))


def _bare(client: anthropic.AsyncAnthropic) -> Ask:
    async def ask(request: Request, number: int) -> object:
        return await client.messages.create(**request.body)

    return ask


def _ours(client: CachedClient) -> Ask:
    async def ask(request: Request, number: int) -> object:
        return await client.ask(request, number)

    return ask


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
