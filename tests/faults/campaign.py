"""Campaign of runs that are killed while they ask, and resumed: data and costs must be exact.

`python -m tests.faults.campaign [--trials 100] [--seed 0]` draws random trials: single calls or batches, OUT on disk or
in an object store, faults of the network and of the API, and one to four kills by SIGKILL at any moment. A third of the
trials kill a `--retry failed`, after an undisturbed build. After each trial, tars, receipts and ledgers are compared
with those of an undisturbed run; account, ledger and stored answers are compared with what the server charged for
answers that arrived. It prints a line for each trial, and exits with 1 if anything is wrong. `--seed S --trials 1`
repeats one trial.

The runs do not use Ray, so a trial takes seconds. `tests/faults/test_kill_asking.py` kills the real command.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

from nextscene.common.storage import Storage
from nextscene.curation.sealing.retry import OpenRetry
from nextscene.shards.format.receipt import sealed_shards
from tests.fakes.claude_api import ClaudeApi, Exchange, FaultSchedule
from tests.fakes.claude_api import Limits as Server
from tests.fakes.claude_api.batches import Batch
from tests.fakes.loopback import account, calls, judge_budget, spans, stored
from tests.faults.asking_run import APPEAR_SECONDS, CONFIG, run
from tests.faults.campaign_clips import CLIPS, Mended, captions, captions_to_retry
from tests.faults.object_store import CREDENTIALS, Store, store
from tests.judge.api_support import dollars
from tests.support import assert_conserved, assert_same_dataset, build_inline, ledger

MENDED, FAILED = Mended(), frozenset({"failed"})
_HEAD = "seed  killed  way         place  weather  kills  in flight  again  settled  lost      seconds"
_HANGS_AFTER_SECONDS = 90.0
_WEATHERS: dict[str, dict[str, float]] = {
    "calm": {},
    "stormy": {"529": 0.1, "500": 0.1, "429-after": 0.05, "slow": 0.05},
    "torn": {"drop-before": 0.1, "drop-after": 0.1},
    "odd": {"page": 0.1, "503-after": 0.1, "no-usage": 0.04, "negative-usage": 0.04, "huge-usage": 0.04},
}
_CREATIONS = {"torn": ["drop-late", "drop-after", "504-late"], "odd": ["page", "429"], "stormy": ["500-after"]}
_UNREADABLE = {"no-usage", "negative-usage", "huge-usage"}


@dataclass(frozen=True)
class Plan:
    """One trial, drawn by its seed. It is killed at each of `moments`: (answers, seconds after these answers)."""

    seed: int
    way: str
    place: str
    weather: str
    latency: float
    moments: tuple[tuple[int, float], ...]
    retries: bool = False

    @staticmethod
    def draw(seed: int) -> Plan:
        chance = random.Random(seed)
        way = chance.choice(["one by one", "one by one", "batches"])
        place = chance.choice(["disk", "disk", "s3"])
        weather = chance.choice(list(_WEATHERS))
        moments = tuple(
            (chance.randint(1, 3 * CLIPS), chance.uniform(0, 0.2))
            if chance.random() < 0.8
            else (0, chance.uniform(0, 2))
            for _ in range(chance.randint(1, 4))
        )
        latency, retries = chance.choice([0.02, 0.1, 0.3]), chance.random() < 1 / 3
        if retries:  # a retry asks only a third of the questions
            moments = tuple((-(-answers // 3), seconds) for answers, seconds in moments)
        return Plan(seed, way, place, weather, latency, moments, retries)

    @property
    def settled_seconds(self) -> float:
        """The time since the last byte of an answer was sent, after which the answer is never bought again."""
        return 0.25 if self.place == "disk" else 1.0


@dataclass
class Outcome:
    """The result of a trial: all that is wrong, and its figures."""

    wrong: list[str] = field(default_factory=list)
    kills: int = 0
    in_flight: int = 0
    again: int = 0
    settled_again: int = 0
    lost: Decimal = Decimal(0)
    seconds: float = 0.0


# ---- a trial ---------------------------------------------------------------------------------------------------


class Trial:
    """A trial with one source, one OUT and one server: runs are started and killed, and the last one is not."""

    def __init__(self, plan: Plan, source: Path, out: str, api: ClaudeApi) -> None:
        self._plan, self._source, self._out, self._api = plan, source, out, api
        self._kills: list[float] = []
        self._retry = frozenset[str]()
        self.outcome = Outcome()

    def go(self, calm: Path) -> Outcome:
        begun = time.monotonic()
        if self._plan.retries:
            self._finish()
            self._api.rules, self._retry = MENDED, FAILED
        exchanges, batches = len(self._api.exchanges), len(self._api.batches)
        for answers, seconds in self._plan.moments:
            if not self._has_retried:
                self._kill_after(answers, seconds)
        if not self._has_retried:
            self._finish()
        self._count_bought_again(self._api.exchanges[exchanges:], self._api.batches[batches:])
        self._compare(calm)
        self.outcome.seconds = time.monotonic() - begun
        return self.outcome

    @property
    def _has_retried(self) -> bool:
        """True if the retry is done. Another run with `--retry` would be a new retry."""
        out = Storage.at(self._out)
        begun = bool(self._retry) and any(name.revision for name in sealed_shards(out).values())
        return begun and OpenRetry.read(out) is None

    def _start(self) -> BaseProcess:
        in_batches = self._plan.way == "batches"
        env = {**self._api.env, **CREDENTIALS}
        process = multiprocessing.get_context("forkserver").Process(
            target=run, args=(str(self._source), self._out, in_batches, self._retry, env)
        )
        process.start()
        return process

    def _kill_after(self, answers: int, seconds: float) -> None:
        process, before = self._start(), len(self._api.paid)
        deadline = time.monotonic() + _HANGS_AFTER_SECONDS
        while process.is_alive() and len(self._api.paid) < before + answers and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(seconds)
        if process.is_alive():
            self.outcome.kills += 1
            self._kills.append(time.monotonic())
            process.kill()
        process.join()

    def _finish(self) -> None:
        process = self._start()
        process.join(_HANGS_AFTER_SECONDS)
        if process.is_alive():
            self.outcome.wrong.append("a run hangs")
            process.kill()
            process.join()
        elif process.exitcode:
            self.outcome.wrong.append(f"a run that was left alone ended with {process.exitcode}")

    # ---- what is wrong -----------------------------------------------------------------------------------------

    def _count_bought_again(self, exchanges: Sequence[Exchange], batches: Sequence[Batch]) -> None:
        """Count the answers, among those sent whole, to questions that already had an answer."""
        delivered: dict[str, list[Exchange]] = {}
        for exchange in exchanges:
            if exchange.last_byte_at and exchange.fault not in _UNREADABLE:
                delivered.setdefault(exchange.digest, []).append(exchange)
        for found in delivered.values():
            for before, after in pairwise(found):
                self.outcome.again += 1
                killed = [at for at in self._kills if before.at < at < after.at]
                if not killed or before.last_byte_at < min(killed) - self._plan.settled_seconds:
                    self.outcome.settled_again += 1
        for at in self._kills:
            window = at - self._plan.settled_seconds
            self.outcome.in_flight += sum(
                exchange.at < at and not (0 < exchange.last_byte_at < window) and exchange.status in (0, 200)
                for exchange in exchanges
            )
        if self.outcome.settled_again:
            self.outcome.wrong.append(f"{self.outcome.settled_again} answers that had settled were bought again")
        if self.outcome.again > self.outcome.in_flight:
            self.outcome.wrong.append(f"{self.outcome.again} bought again, {self.outcome.in_flight} in flight")
        twice = Counter(key for batch in batches for key in batch.custom_ids)
        if self._plan.way == "batches" and max(twice.values(), default=1) > 1:
            self.outcome.wrong.append("questions stand in more than one batch")

    def _compare(self, calm: Path) -> None:
        try:
            assert_same_dataset(calm, self._out, CONFIG)
            assert_conserved(self._out, CONFIG)
        except AssertionError as error:
            self.outcome.wrong.append(f"the dataset is another: {error!r:.300}")
        answers, record = stored(self._out), account(self._out)
        in_rows = [call for row in ledger(self._out, CONFIG) for call in calls(row)]
        sums = {
            "account": record.spent,
            "store": sum((answer.usd for answer in answers.values()), Decimal(0)),
            "ledger": sum((Decimal(call["usd"]) for call in in_rows), Decimal(0)),
            "server": self._arrived({answer.message_id for answer in answers.values()}),
        }
        if len(set(sums.values())) != 1:
            self.outcome.wrong.append("the books differ: " + ", ".join(f"{name} {usd:f}" for name, usd in sums.items()))
        self.outcome.lost = record.lost

    def _arrived(self, kept: set[str]) -> Decimal:
        """Return the cost of all answers that arrived. One sent just before a kill counts only if it is in `kept`."""
        total = Decimal(0)
        for exchange in self._api.exchanges:
            if exchange.fault in _UNREADABLE:
                continue
            near = any(exchange.last_byte_at > at - self._plan.settled_seconds for at in self._kills)
            if exchange.last_byte_at and exchange.usage and (exchange.message_id in kept or not near):
                total += dollars(exchange.usage)
        for batch in self._api.batches:
            total += sum((Decimal(usd) for usd in batch_costs(batch.results)), Decimal(0))
        return total


def batch_costs(results: Sequence[bytes]) -> Iterator[Decimal]:
    for line in map(json.loads, results):
        if line["result"]["type"] == "succeeded":
            yield dollars(line["result"]["message"]["usage"]) / 2


# ---- the campaign ----------------------------------------------------------------------------------------------


class Campaign:
    """The sources, the datasets of undisturbed runs, and the object store that all trials share."""

    def __init__(self, folder: Path, bucket: Store) -> None:
        self._folder, self._bucket = folder, bucket
        self._sources = [spans(folder / "source", captions()), spans(folder / "to-retry", captions_to_retry())]

    def trial(self, plan: Plan) -> Outcome:
        source, calm = self._sources[plan.retries], self._undisturbed(plan.retries)
        name = f"{plan.seed}-{uuid.uuid4().hex[:8]}"  # of its own, also in the folder of journals that runs share
        out = str(self._folder / name) if plan.place == "disk" else self._bucket.uri(name)
        most = 2 if plan.weather == "odd" else 3  # a question is given up after three unreadable answers
        schedule = FaultSchedule(
            seed=plan.seed, rates=_WEATHERS[plan.weather], max_per_body=most, retry_after=0.1, slow_seconds=0.2
        )
        server = ClaudeApi(faults=schedule, limits=Server(latency=plan.latency), batch_seconds=0.3)
        server.create_faults = [*_CREATIONS.get(plan.weather, [])]
        with server as api, _reached(api), _revealing(api):
            return Trial(plan, source, out, api).go(calm)

    def _undisturbed(self, retries: bool) -> Path:
        source, calm = self._sources[retries], self._folder / f"calm-{retries}"
        if not calm.exists():
            with ClaudeApi() as api, _reached(api):
                build_inline(source, calm, CONFIG, judge_budget=judge_budget())
                if retries:
                    api.rules = MENDED
                    build_inline(source, calm, CONFIG, FAILED, judge_budget())
        return calm


@contextmanager
def _reached(api: ClaudeApi) -> Iterator[None]:
    with mock.patch.dict(os.environ, api.env):
        yield


@contextmanager
def _revealing(api: ClaudeApi) -> Iterator[None]:
    """Reveal unlisted batches repeatedly, well before they must have appeared."""
    over = threading.Event()

    def reveal() -> None:
        while not over.wait(APPEAR_SECONDS / 8):
            api.reveal_batches()

    thread = threading.Thread(target=reveal)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def campaign() -> Iterator[Campaign]:
    """Yield a campaign with its own folder and bucket."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([run.__module__])
    with mock.patch.dict(os.environ, CREDENTIALS), tempfile.TemporaryDirectory() as folder, store() as bucket:
        yield Campaign(Path(folder), bucket)


def _line(plan: Plan, found: Outcome) -> str:
    killed = "retry" if plan.retries else "build"
    return (
        f"{plan.seed:5}  {killed:6}  {plan.way:10}  {plan.place:5}  {plan.weather:7}  {found.kills:5}"
        f"  {found.in_flight:9}  {found.again:5}  {found.settled_again:7}  {found.lost:.6f}  {found.seconds:7.1f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    bad, totals = 0, Outcome()
    print(f" {_HEAD}")
    with campaign() as trials:
        for seed in range(given.seed, given.seed + given.trials):
            plan = Plan.draw(seed)
            found = trials.trial(plan)
            print(f"{_line(plan, found)}  {'; '.join(found.wrong)}", flush=True)
            bad += bool(found.wrong)
            totals.kills += found.kills
            totals.again += found.again
            totals.in_flight += found.in_flight
            totals.settled_again += found.settled_again
    print(
        f"{given.trials} trials, {totals.kills} kills, {totals.in_flight} calls in flight, {totals.again} bought again,"
        f" {totals.settled_again} of them settled; {bad} trials with something wrong"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
