"""Claims: asking keeps up with the API, whether calls or requests per minute are limited, in constant memory.

With an API of 16 concurrent calls: at least 95 % of the answers per second of the bare SDK with 16 concurrent calls,
though our client is not told that number; if an answer takes 300 ms or, 97 %, 2 s, and is stored on disk or in an
object store that takes 50 ms more for each file. With so few calls the API is the bottleneck, also on two cores with
other work: at 300 ms ours uses a fifth of a core. Both are measured in turn by one process, over whole waves.

With an API of 3,000 requests per minute: at least 95 % of those, and fewer than 1 % of all requests rejected.

Memory: the peak of the resident set (VmHWM) of a process that does 40,000 calls, over that of one that does 4,000.

API (the loopback server of the tests), object store and client are processes of their own. Ours looks each question up,
keeps a budget, and has every answer in the journal before it counts, in a segment soon after.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import click

from benchmarks.children.ask import AT_ONCE
from benchmarks.support import REPOSITORY, WORK, Result, child, show
from nextscene.pipelines.cli.command import Command
from tests.fakes.claude_api import KEY
from tests.faults.object_store import CREDENTIALS

ROUNDS = 3
CALLS = 40_000
A_MINUTE = 3000
_FAST, _SLOW = 0.3, 2.0
_PUT_SECONDS = 0.05
_MEASURED_SECONDS = 6.0


@dataclass
class Api:
    """A server at `url`; `statuses` is filled when it has ended."""

    url: str
    statuses: dict[str, int] = field(default_factory=dict)


def benchmark(rounds: int | None = None, calls: int = CALLS) -> list[Result]:
    WORK.mkdir(parents=True, exist_ok=True)
    rounds = rounds or ROUNDS
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        results = [
            _compare("300 ms per answer, on disk", f"{folder}/fast", _FAST, rounds, 0.95),
            _compare("2 s per answer, on disk", f"{folder}/slow", _SLOW, rounds, 0.97),
        ]
        with _store() as uri:
            results.append(_compare("300 ms per answer, 50 ms more per PUT to S3", uri, _FAST, rounds, 0.95))
        return [*results, *_pace(f"{folder}/paced", rounds), _memory(folder, calls)]


def _compare(name: str, out: str, latency: float, rounds: int, target: float) -> Result:
    trips = round(_MEASURED_SECONDS / latency)
    with _api("--latency", str(latency), "--concurrent", str(AT_ONCE)):
        found = child("ask", "compare", out, str(latency), str(rounds), str(trips))
    ratios = [ours["rate"] / bare["rate"] for ours, bare in zip(found["ours"], found["bare"], strict=True)]
    ours, bare = (
        {of: statistics.median(each[of] for each in found[who]) for of in ("rate", "cpu")} for who in ("ours", "bare")
    )
    notes = [
        f"{ours['rate']:.1f} answers per second, of the bare SDK {bare['rate']:.1f}",
        f"{1000 * ours['cpu']:.2f} ms CPU time per answer, of the bare SDK {1000 * bare['cpu']:.2f} ms",
    ]
    claim = f"answers per second, over the bare SDK's at {AT_ONCE} concurrent calls: {name}"
    return Result(claim, ratios, target, at_most=False, notes=notes)


def _pace(out: str, rounds: int) -> list[Result]:
    answers = round(A_MINUTE / 60 * _MEASURED_SECONDS)
    with _api("--latency", str(_FAST), "--requests-per-minute", str(A_MINUTE)) as api:
        found = child("ask", "paced", out, str(rounds), str(answers))
    rates = [60 * each["rate"] / A_MINUTE for each in found["ours"]]
    rejected = 100 * api.statuses.get("429", 0) / sum(api.statuses.values())
    return [
        Result(f"answers per minute, over the {A_MINUTE:,} that are allowed", rates, 0.95, at_most=False),
        Result("share of requests rejected, including the search for the limit", [rejected], 1.0, unit=" %"),
    ]


def _memory(folder: str, calls: int) -> Result:
    few = calls // 10
    with _api("--latency", "0.1"):
        small, large = (child("ask", "peak", f"{folder}/{count}", str(count))["bytes"] for count in (few, calls))
    note = (
        f"{small / 1e6:.0f} MB and {large / 1e6:.0f} MB: {(large - small) / (calls - few):.0f} bytes per further call"
    )
    return Result(f"peak memory of {calls:,} calls, over {few:,}", [large / small], 1.1, notes=[note])


@contextmanager
def _api(*limits: str) -> Iterator[Api]:
    with _served("tests.fakes.claude_api", *limits) as (server, url):
        api = Api(url)
        with _environment({"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY}):
            yield api
        said, _ = server.communicate(timeout=30)
        api.statuses = json.loads(said)["statuses"]


@contextmanager
def _store() -> Iterator[str]:
    with _environment(CREDENTIALS), _served("benchmarks.children.slow_s3", str(_PUT_SECONDS)) as (_, uri):
        yield uri


@contextmanager
def _served(module: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a process that serves until its stdin ends; yield it and the first line that it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        if server.stdout is None:
            raise RuntimeError("the server has no output")
        yield server, server.stdout.readline().strip()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@click.command(cls=Command, help=__doc__)
@click.option("--rounds", type=click.IntRange(1), default=ROUNDS, show_default=True, help="Rounds of each in turn.")
@click.option("--calls", type=click.IntRange(10), default=CALLS, show_default=True, help="Calls for the memory.")
def main(rounds: int, calls: int) -> None:
    show(benchmark(rounds, calls))


if __name__ == "__main__":
    main()
