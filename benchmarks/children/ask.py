"""Ask a Claude API, whose address is in the environment; print figures as JSON.

    ask compare OUT SECONDS ROUNDS TRIPS    answers per second and CPU-seconds per answer of the bare SDK and of ours,
                                            in turn, if an answer takes SECONDS; over TRIPS round trips
    ask paced OUT ROUNDS ANSWERS            answers per second of ours, if the API limits the requests per minute
    ask peak OUT CALLS                      the peak memory of this process in bytes, over that many calls of ours

`bare` is the SDK's own client with 16 concurrent calls and nothing else. `ours` is CachedClient with its files in OUT:
limits that it has to find, a budget, a clip for each question, and every answer stored.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal

import anthropic

from benchmarks.children.memory import peak_bytes
from nextscene.common.local_state import local_state
from nextscene.common.storage import Storage
from nextscene.judge.api.backoff import RetryPolicy
from nextscene.judge.api.request import Request
from nextscene.judge.base import Question
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.request_builder import RequestBuilder
from nextscene.judge.spending.cached_client import CachedClient
from nextscene.judge.spending.call_journal import JOURNALS
from nextscene.judge.spending.prices import Prices

AT_ONCE = 16
"""So few that the API is the bottleneck and not the CPU, also on a machine of two cores with other work."""
_MORE_THAN_ALLOWED = 2 * AT_ONCE
_TRIPS_TO_FIND_THE_LIMIT = 7
_SECONDS_TO_FIND_THE_RATE = 10.0
_BUDGET, _EXPECTED_OF_A_CLIP = Decimal(1000), Decimal("0.001")

_PRICE = Prices.load().for_model(ClaudeConfig().model)
_REQUESTS = RequestBuilder(ClaudeConfig(), _PRICE)
_NUMBERS = itertools.count()

Ask = Callable[[Request, int], Awaitable[object]]


class Load:
    """A number of workers, each of which asks one question after another until `numbers` is exhausted."""

    def __init__(self, ask: Ask, workers: int, numbers: Iterator[int] = _NUMBERS) -> None:
        self._ask = ask
        self._numbers = numbers
        self._answers = 0
        self._awaited: dict[int, asyncio.Future[None]] = {}
        self._is_over = False
        self._workers = [asyncio.create_task(self._work()) for _ in range(workers)]

    async def measure(self, answers: int) -> dict[str, float]:
        """Return answers per second and CPU seconds per answer, over the given number of answers from the next one.

        Answers come in waves, since the calls began together: whole waves must be measured.
        """
        await self._reach(self._answers + 1)
        begun, cpu = time.monotonic(), time.process_time()
        await self._reach(self._answers + answers)
        return {"rate": answers / (time.monotonic() - begun), "cpu": (time.process_time() - cpu) / answers}

    async def end(self) -> None:
        """Ask no new questions, and wait for the answers that are under way."""
        self._is_over = True
        await self.wait()

    async def wait(self) -> None:
        await asyncio.gather(*self._workers)

    async def _work(self) -> None:
        for number in self._numbers:
            question = Question("", f"Number {number} crosses a wooden bridge in the rain, holding a lantern.")
            await self._ask(_REQUESTS.describe(question, ()), number)
            self._answers += 1
            if awaited := self._awaited.pop(self._answers, None):
                awaited.set_result(None)
            if self._is_over:
                return

    async def _reach(self, answers: int) -> None:
        awaited = self._awaited[answers] = asyncio.get_running_loop().create_future()
        await asyncio.wait([awaited, *self._workers], return_when=asyncio.FIRST_COMPLETED)
        if not awaited.done():
            await self.wait()  # raises what ended a worker
            raise RuntimeError("the workers ended too early")


async def compare(out: str, seconds: float, rounds: int, trips: int) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {"bare": [], "ours": []}
    bare = _bare(anthropic.AsyncAnthropic(max_retries=0))
    async with _ours(out) as ours:
        load = Load(ours, _MORE_THAN_ALLOWED)
        await asyncio.sleep(_TRIPS_TO_FIND_THE_LIMIT * seconds)
        await load.end()
        for _ in range(rounds):
            for name, ask, workers in (("bare", bare, AT_ONCE), ("ours", ours, _MORE_THAN_ALLOWED)):
                load = Load(ask, workers)
                await asyncio.sleep(1.5 * seconds)  # its connections are open by then
                found[name].append(await load.measure(trips * AT_ONCE))
                await load.end()
    return found


async def paced(out: str, rounds: int, answers: int) -> dict[str, list[dict[str, float]]]:
    async with _ours(out) as ours:
        load = Load(ours, _MORE_THAN_ALLOWED)
        await asyncio.sleep(_SECONDS_TO_FIND_THE_RATE)
        found = [await load.measure(answers) for _ in range(rounds)]
        await load.end()
    return {"ours": found}


async def peak(out: str, calls: int) -> dict[str, int]:
    async with _ours(out) as ours:
        await Load(ours, _MORE_THAN_ALLOWED, iter(range(calls))).wait()
    return {"bytes": peak_bytes()}


def _bare(client: anthropic.AsyncAnthropic) -> Ask:
    async def ask(request: Request, number: int) -> object:
        return await client.messages.create(**request.body)

    return ask


@asynccontextmanager
async def _ours(out: str) -> AsyncIterator[Ask]:
    files = Storage.at(out)
    client = await CachedClient.open(files, local_state(files, JOURNALS), _PRICE, RetryPolicy(), _BUDGET)

    async def ask(request: Request, number: int) -> object:
        clip = f"clip {number}"
        with client.announce(clip, _EXPECTED_OF_A_CLIP):
            return await client.ask(request, number, clip)

    try:
        yield ask
    finally:
        await client.close()


async def main(mode: str, out: str, *numbers: str) -> object:
    match mode, numbers:
        case "compare", (seconds, rounds, trips):
            return await compare(out, float(seconds), int(rounds), int(trips))
        case "paced", (rounds, answers):
            return await paced(out, int(rounds), int(answers))
        case "peak", (calls,):
            return await peak(out, int(calls))
    raise SystemExit(f"no such mode: {mode} {numbers}")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
