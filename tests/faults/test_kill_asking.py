"""The real command, killed at random while it asks: no stored answer is ever paid for again."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.command import Command, place
from tests.fakes.claude_api import ClaudeApi, Limits
from tests.fakes.loopback import CLAUDE, CLAUDE_FLAGS, account, judge_budget, spans, stored, true_cost
from tests.support import assert_conserved, assert_same_dataset, build_inline

pytestmark = pytest.mark.slow

CLIPS = 32
CALLS = 4 * CLIPS
LATENCY = 0.2
STORED_WITHIN_SECONDS = 1.0
"""An answer is stored within this time: the limit that the store promises, plus time for a busy machine."""

J, D, E = "judge", "driver", "everything"
KILLS = [J, J, D, J, J, E, J, D, J, J]
"""The processes that are killed, in order. A run survives three deaths of its judge."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a source whose clips need two rounds each: four questions."""
    return spans(tmp_path_factory.mktemp("source"), [f"thing {i:02d} is seen FAIL1" for i in range(CLIPS)])


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with ClaudeApi() as api, pytest.MonkeyPatch.context() as patch:
        for name, value in api.env.items():
            patch.setenv(name, value)
        patch.setattr("nextscene.judge.spending.cached_client._STORE_SECONDS", 0.02)
        build_inline(source, out, CLAUDE, judge_budget=judge_budget())
        assert len(api.paid) == len(set(api.paid)) == CALLS
    return out


@dataclass
class Kill:
    """The state right after a kill: the keys of stored answers, and the number of questions that had arrived."""

    who: str
    kept: set[str]
    arrived: int
    may_be_lost: int


@dataclass
class Assassin:
    """A killer of processes of runs into one dataset, each after some more answers."""

    api: ClaudeApi
    out: Path
    chance: random.Random
    kills: list[Kill] = field(default_factory=list)

    def strike(self, run: Command, who: str) -> None:
        """Kill processes of the run at a random moment while it asks, and record the state right after."""
        goal = len(self.api.paid) + self.chance.randint(1, CALLS // 12)
        run.until(lambda: len(self.api.paid) >= goal)
        time.sleep(self.chance.uniform(0, 2 * LATENCY))
        run.until(lambda: bool(self._victims(run, who)))
        for victim in self._victims(run, who):
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        now, in_flight = time.monotonic(), self.api.in_flight
        kept = set(stored(self.out))
        exchanges = list(self.api.exchanges)
        recent = sum(exchange.at > now - LATENCY - STORED_WITHIN_SECONDS for exchange in exchanges)
        self.kills.append(Kill(who, kept, len(exchanges), max(in_flight, recent)))

    def _victims(self, run: Command, who: str) -> list[psutil.Process]:
        driver = psutil.Process(run.pid)
        family = driver.children(recursive=True)
        if who == J:
            return [process for process in family if _title(process).startswith("ray::_JudgeActor")]
        return [*family, driver] if who == E else [driver]


def _title(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[0]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def key_of(body: dict[str, Any]) -> str:
    """Return the key of the answer to a question without pictures, as judge/api/request.py defines it."""
    canonical = json.dumps([body, 0, 0], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def test_killed_while_asking_and_resumed_nothing_that_was_stored_is_asked_again(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    flags = ["--source", str(source), "--out", str(out), *CLAUDE_FLAGS, "--workers", "2", "--budget-usd", "5"]
    flags += ["--limits.calls-at-once", "6"]
    with ClaudeApi(limits=Limits(latency=LATENCY)) as api, place() as here:
        assassin = Assassin(api, out, random.Random(0))
        to_kill = KILLS[::-1]
        while to_kill:
            with here.start_build(*flags, env=api.env) as run:
                while to_kill:
                    who = to_kill.pop()
                    assassin.strike(run, who)
                    if who != J:
                        run.wait()
                        break
                else:
                    ended = run.wait()
                    assert ended.code == 0, ended.stderr
        ended = here.build(*flags, env=api.env)
        assert ended.code == 0, ended.stderr

        assert len(assassin.kills) == len(KILLS)
        for kill in assassin.kills:
            asked_later = {key_of(exchange.body) for exchange in api.exchanges[kill.arrived :]}
            assert asked_later and not asked_later & kill.kept
        kept = [kill.kept for kill in assassin.kills]
        assert all(earlier <= later for earlier, later in pairwise(kept))
        times = Counter(api.paid)
        assert len(times) == CALLS
        assert set(stored(out)) == {key_of(exchange.body) for exchange in api.exchanges}
        answered_again = sum(times.values()) - len(times)
        assert answered_again <= sum(kill.may_be_lost for kill in assassin.kills)
        statement = account(out)
        assert statement.spent + statement.lost >= true_cost(api.exchanges)
        assert statement.spent + statement.lost <= 5
    assert_same_dataset(undisturbed, out, CLAUDE)
    assert_conserved(out, CLAUDE)
