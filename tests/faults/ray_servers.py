"""Runs of the real command in which Ray's processes are killed or suspended.

`python -m tests.faults.ray_servers [--trials 60] [--at-once 2] [--seed 0]` takes trials in turn from a matrix: the
victim (raylet, GCS server, an agent, a worker, the judge, the driver process), the fault (SIGKILL, or SIGSTOP for 10,
45 or 90 s), and single calls or batches. Each run must end or continue within 120 s, exit with 0 or 3 and one line that
names what failed, and leave no process behind. The same command must then make the dataset of an undisturbed run. It
prints a line for each trial, and exits with 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import psutil
import pytest

from tests.command import Command, Ended, place
from tests.fakes.claude_api import ClaudeApi, Limits
from tests.fakes.loopback import CLAUDE, CLAUDE_FLAGS, judge_budget, spans
from tests.support import assert_conserved, assert_same_dataset, build_inline

CLIPS = 32
BOUND_SECONDS = 120.0
LATENCY, BATCH_SECONDS = 1.5, 8.0
_HEAD = "trial  way         victim              how       struck  outcome                     next  wrong"

VICTIMS = {
    "raylet": "raylet",
    "gcs": "gcs_server",
    "dashboard agent": "ray::DashboardAgent",
    "runtime env agent": "ray::RuntimeEnvAgent",
    "worker": "ray::cut_unit,ray::screen_unit,ray::IDLE",
    "judge": "ray::_JudgeActor",
    "driver process": "ray_cluster/driver.py",
}
HOWS = {"SIGKILL": 0.0, "stop 10 s": 10.0, "stop 45 s": 45.0, "stop 90 s": 90.0}
WAYS = ("one by one", "batches")


@dataclass(frozen=True)
class Trial:
    number: int
    way: str
    victim: str
    how: str
    after_answers: int

    @property
    def flags(self) -> list[str]:
        paced = ["--limits.calls-at-once", "4"] if self.way == "one by one" else ["--batches"]
        return [*CLAUDE_FLAGS, "--workers", "2", "--budget-usd", "5", *paced]


def trials(seed: int) -> list[Trial]:
    """Return every combination once, in a random order, each with a random number of answers before the fault."""
    chance = random.Random(seed)
    matrix = list(product(WAYS, VICTIMS, HOWS))
    chance.shuffle(matrix)
    return [Trial(number, *one, chance.randint(1, CLIPS)) for number, one in enumerate(matrix)]


@dataclass
class Result:
    struck: bool = False
    first: Ended | None = None
    last: Ended | None = None
    wrong: list[str] = field(default_factory=list)

    def line(self, trial: Trial) -> str:
        said = self.first.stderr.strip().splitlines()[-2:] if self.first and self.first.code else []
        outcome = f"{self.first.code} in {self.first.seconds:.0f} s" if self.first else "none"
        after, wrong = self.last.code if self.last else "-", "; ".join(self.wrong) or "nothing"
        return (
            f"{trial.number:5}  {trial.way:10}  {trial.victim:18}  {trial.how:9} {self.struck!s:6}  {outcome:14}"
            f"  {after:4}  {wrong}  {' '.join(said[:1])[:150]}"
        )


def attempt(trial: Trial, source: Path, calm: Path) -> Result:
    """Do a trial: disturb one run, and let the next one finish."""
    result = Result()
    with ClaudeApi(limits=Limits(latency=LATENCY), batch_seconds=BATCH_SECONDS) as api, place() as here:
        out = here.root / "out"
        flags = ["--source", str(source), "--out", str(out), *trial.flags]
        with here.start_build(*flags, env=api.env) as run:
            with suppress(AssertionError):  # the run ended before that moment
                run.until(lambda: _is_under_way(api, trial) and bool(_victims(run, trial)))
                result.struck = _strike(run, trial, result, lambda: len(api.exchanges) + len(list(out.rglob("*"))))
            result.first = _ended(run, result)
        if result.first and result.first.code not in (0, 3):
            result.wrong.append(f"ended with {result.first.code}: {result.first.stderr[-300:]}")
        again = here.build(*flags, env=api.env)
        result.last = again
        if again.code != 0:
            result.wrong.append(f"the next run ended with {again.code}: {again.stderr[-300:]}")
        try:
            assert_same_dataset(calm, out, CLAUDE)
            assert_conserved(out, CLAUDE)
        except AssertionError as error:
            result.wrong.append(f"the dataset is another: {error!r:.300}")
        bought = Counter(api.paid)
        if (again_bought := sum(bought.values()) - len(bought)) > 4 * 3:
            result.wrong.append(f"{again_bought} answers were bought again")
    return result


def _is_under_way(api: ClaudeApi, trial: Trial) -> bool:
    if trial.way == "batches":
        return bool(api.batches)
    return len(api.paid) >= trial.after_answers


def _victims(run: Command, trial: Trial) -> list[psutil.Process]:
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(run.pid).children(recursive=True):
            with suppress(psutil.Error):
                words = " ".join(process.cmdline()) or process.name()
                if any(name in words for name in VICTIMS[trial.victim].split(",")):
                    found.append(process)
    return found


def _strike(run: Command, trial: Trial, result: Result, progress: Callable[[], int]) -> bool:
    """Kill or suspend the victim, and check that the run ends or continues within the time limit.

    Return False if the victim has just ended by itself.
    """
    victim = _victims(run, trial)[0]
    seconds = HOWS[trial.how]
    begun = time.monotonic()
    try:
        victim.suspend() if seconds else victim.kill()
    except psutil.NoSuchProcess:
        return False
    resume = threading.Timer(seconds, _resume, [victim])
    if seconds:
        resume.start()
        while run.is_running() and time.monotonic() < begun + seconds + 1:
            time.sleep(0.2)
    before = progress()
    while run.is_running() and progress() == before:
        if time.monotonic() - begun > BOUND_SECONDS:
            result.wrong.append(f"neither ended nor gone on after {BOUND_SECONDS:.0f} s")
            break
        time.sleep(0.2)
    resume.cancel()
    _resume(victim)
    return True


def _resume(victim: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        victim.resume()


def _ended(run: Command, result: Result) -> Ended | None:
    try:
        ended = run.wait(3 * BOUND_SECONDS)
    except Exception as error:  # noqa: BLE001 - it is the result
        result.wrong.append(f"it hangs: {error!r:.100}")
        return None
    if left := run.left_behind():
        result.wrong.append(f"left behind: {left}")
    return ended


def prepared(folder: Path) -> tuple[Path, Path]:
    """Return the source, and the dataset of an undisturbed run."""
    source, calm = spans(folder, [f"thing {i:02d} is seen" for i in range(CLIPS)]), folder / "calm"
    with ClaudeApi() as api, pytest.MonkeyPatch.context() as patch:
        for name, value in api.env.items():
            patch.setenv(name, value)
        build_inline(source, calm, CLAUDE, judge_budget=judge_budget())
    return source, calm


def results(chosen: list[Trial], folder: Path, at_once: int) -> Iterator[tuple[Trial, Result]]:
    source, calm = prepared(folder)
    with ThreadPoolExecutor(at_once) as threads:
        yield from zip(chosen, threads.map(lambda trial: attempt(trial, source, calm), chosen), strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    all_trials = trials(given.seed) + trials(given.seed + 1)
    chosen = all_trials[given.first : given.first + given.trials]
    print(_HEAD)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for trial, result in results(chosen, Path(folder), given.at_once):
            print(result.line(trial), flush=True)
            wrong += bool(result.wrong)
    print(f"{len(chosen)} trials, {wrong} wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
