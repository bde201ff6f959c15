"""Claims: asking keeps up with the API, whichever way that limits it.

Of an API that takes 300 ms an answer and 64 calls at once: at least 95 % of what the bare SDK gets with 64 calls at
once, though nobody tells us that number. Of one that takes 3,000 requests a minute: at least 95 % of those, and fewer
than 1 % of all requests turned away. The API is the loopback server of the tests, in a process of its own. Ours keeps a
budget and has every answer on disk before it counts. The CPU time of an answer is shown for both.
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

from benchmarks.children.ask import AT_ONCE
from benchmarks.support import REPOSITORY, WORK, Result, run_alone
from tests.claude_api import KEY

ROUNDS = 3
LATENCY = 0.3
A_MINUTE = 3000
_SECONDS = 15.0
_RAMP_SECONDS = 10.0


@dataclass
class Api:
    """A server at `url`; `statuses` is filled when it has ended."""

    url: str
    statuses: dict[str, int] = field(default_factory=dict)


def benchmark(rounds: int | None = None) -> list[Result]:
    WORK.mkdir(parents=True, exist_ok=True)
    throughput, rate, rejected, ours_cpu, bare_cpu = [], [], [], [], []
    for _ in range(rounds or ROUNDS):
        with _served("--concurrent", str(AT_ONCE)) as api:
            bare = _asked(api, "bare")
        with _served("--concurrent", str(AT_ONCE)) as api:
            ours = _asked(api, "ours")
        throughput.append(ours["rate"] / bare["rate"])
        ours_cpu.append(ours["cpu"])
        bare_cpu.append(bare["cpu"])
        with _served("--requests-per-minute", str(A_MINUTE)) as api:
            rate.append(60 * _asked(api, "ours")["rate"] / A_MINUTE)
        rejected.append(100 * api.statuses.get("429", 0) / sum(api.statuses.values()))
    medians = statistics.median(ours_cpu), statistics.median(bare_cpu)
    cpu = "CPU time an answer: {:.2f} ms, of which the bare SDK takes {:.2f} ms".format(*(1000 * m for m in medians))
    return [
        Result("answers a second, over the bare SDK's at 64 at once", throughput, 0.95, at_most=False, notes=[cpu]),
        Result("answers a minute, over the 3,000 that are allowed", rate, 0.95, at_most=False),
        Result("requests turned away of all, the search for the limit included", rejected, 1.0, unit=" %"),
    ]


@contextmanager
def _served(*limits: str) -> Iterator[Api]:
    command = [sys.executable, "-m", "tests.claude_api", "--latency", str(LATENCY), *limits]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        if server.stdout is None:
            raise RuntimeError("the server has no output")
        api = Api(server.stdout.readline().strip())
        try:
            yield api
        finally:
            said, _ = server.communicate(timeout=30)
            api.statuses = json.loads(said)["statuses"]


def _asked(api: Api, mode: str) -> dict[str, float]:
    env = os.environ | {"ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": KEY}
    with tempfile.TemporaryDirectory(dir=WORK) as out:
        command = [sys.executable, "-m", "benchmarks.children.ask", mode, str(_SECONDS), str(_RAMP_SECONDS), out]
        answer = subprocess.run(command, cwd=REPOSITORY, env=env, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(answer)
    return figures


if __name__ == "__main__":
    run_alone(benchmark)
