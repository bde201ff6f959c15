"""The one judge of a run as a Ray actor, and the driver's hold on it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nextscene.common.awake_clock import AwakeClock
from nextscene.common.errors import RunStopped
from nextscene.curation.plan import Unit
from nextscene.curation.progress import ClipStage
from nextscene.curation.run.unit_judge import UnitJudge
from nextscene.curation.stages.describe import AskResult
from nextscene.curation.stages.unit import UnitContext
from nextscene.shards.format.layout import UnitName

if TYPE_CHECKING:
    from nextscene.judge.call_progress import CallProgress

_DEATHS_ALLOWED = 3
UNITS_AT_ONCE = 10_000
"""It is asked about no more, so that no other call has to wait for a unit to be decided."""
_CALLS_AT_ONCE = 2 * UNITS_AT_ONCE + 100  # a unit is asked about twice where the first reply may be lost
_LAST_WORDS_SECONDS = 15.0
_START_SECONDS = 180.0
_SILENT_SECONDS = 60.0
_AT_WORK_SECONDS = 1.0
"""Of CPU time. An actor that has used less of it while it was silent does not run."""
_COUNT_EVERY_SECONDS = 0.25

Counts = dict[tuple[ClipStage, UnitName], int]
"""How many clips of a unit have come through a stage."""


class _JudgeActor:
    """It holds no CPU: it waits for answers."""

    def __init__(self, job: UnitContext) -> None:
        self._judging = UnitJudge(job.config, job.judge_budget, job.out, job.run_id, job.api_identity)
        self._counts: Counts = {}

    async def decide(self, unit: Unit, screened: list[Any]) -> tuple[list[Any], AskResult]:
        decision = await self._judging.decide(unit, screened, partial(self._count, "asked", unit.name))
        return decision.scenes, decision.result

    async def count(self, stage: ClipStage, name: UnitName, clips: int) -> None:
        self._count(stage, name, clips)

    def _count(self, stage: ClipStage, name: UnitName, clips: int) -> None:
        self._counts[stage, name] = clips

    async def report(self) -> tuple[int, CallProgress | None, Counts]:
        """Its process number, how the asking goes, and what was counted since the last report."""
        counts, self._counts = self._counts, {}
        return os.getpid(), self._judging.report(), counts

    async def end(self) -> None:
        await self._judging.end()


class Counter:
    """Tells the actor how far a task is with its unit, now and then: what is displayed need not be exact."""

    def __init__(self, actor: Any, stage: ClipStage, name: UnitName) -> None:
        self._actor = actor
        self._stage = stage
        self._name = name
        self._told = time.monotonic()

    def __call__(self, clips: int) -> None:
        if time.monotonic() - self._told >= _COUNT_EVERY_SECONDS:
            self._told = time.monotonic()
            self._actor.count.remote(self._stage, self._name, clips)


class JudgeActor:
    """Asks on the driver's node. What the judge was told is on file, so one that dies is replaced, a few times.

    No method waits for the actor but `end`, which has a bound.
    """

    def __init__(self, job: UnitContext) -> None:
        self._job = job
        self._deaths = 0
        self._asking: CallProgress | None = None
        self._clock = AwakeClock()
        self._asked: set[Any] = set()
        self._process: psutil.Process | None = None
        self._reporting: Any = None
        self._reporting_since = self._used = 0.0
        self._actor = self._started()

    def decide(self, unit: Unit, screened: Any) -> tuple[Any, Any]:
        """References to the unit's scenes and to how the asking went; `screened` is one too."""
        scenes, asked = self._actor.decide.options(num_returns=2).remote(unit, screened)
        self._asked.add(asked)
        return scenes, asked

    def decided(self, asked: Any) -> None:
        """The reply has come."""
        self._asked.discard(asked)

    def died(self, asked: Any) -> None:
        """A reply did not come. Replace the actor, if it is the one that was asked. Raise RunStopped at last."""
        if asked in self._asked:
            self._replace("its process died")

    def report(self) -> tuple[CallProgress | None, Counts]:
        """How the asking went a moment ago, and what was counted since the last report. Never waits.

        Replace an actor that is silent for long and does not run. Raise RunStopped as `died`.
        """
        counts: Counts = {}
        now = self._clock.seconds()
        if self._reporting is not None:
            done, _ = ray.wait([self._reporting], timeout=0)
            if not done:
                self._check_silence(now)
                return self._asking, {}
            with suppress(exceptions.RayError):
                pid, self._asking, counts = ray.get(self._reporting)
                self._process = self._process or _process(pid)
        self._reporting, self._reporting_since = self._actor.report.remote(), now
        self._used = _cpu_seconds(self._process)
        return self._asking, counts

    def counter(self, stage: ClipStage, name: UnitName) -> Counter:
        return Counter(self._actor, stage, name)

    def end(self) -> None:
        """Lets it store the answers that are under way, and ends it."""
        with suppress(exceptions.RayError):
            ray.get(self._actor.end.remote(), timeout=_LAST_WORDS_SECONDS)
        ray.kill(self._actor)

    def _check_silence(self, now: float) -> None:
        silent = now - self._reporting_since
        if self._process is None:
            if silent > _START_SECONDS:
                raise RunStopped(f"the judge's process did not start within {_START_SECONDS:.0f} s; see Ray's logs")
        elif silent > _SILENT_SECONDS:
            used = _cpu_seconds(self._process)
            if used - self._used < _AT_WORK_SECONDS:
                self._replace(f"it did not answer for {_SILENT_SECONDS:.0f} s")
            else:
                self._reporting_since, self._used = now, used

    def _replace(self, why: str) -> None:
        self._deaths += 1
        ray.kill(self._actor)
        if self._process is not None:  # one that only cannot be reached would go on asking
            with suppress(psutil.NoSuchProcess):
                self._process.kill()
        if self._deaths > _DEATHS_ALLOWED:
            raise RunStopped(f"the judge was lost {self._deaths} times, at last since {why}; see Ray's logs for why")
        self._asked.clear()
        self._process = self._reporting = None
        self._reporting_since = self._clock.seconds()
        self._actor = self._started()

    def _started(self) -> Any:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(
            num_cpus=0, max_restarts=0, max_task_retries=0, scheduling_strategy=here, max_concurrency=_CALLS_AT_ONCE
        )(_JudgeActor)
        return actor.remote(self._job)


def _process(pid: int) -> psutil.Process | None:
    """It is on this node; None where its process cannot be seen from here all the same."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if _JudgeActor.__name__ in " ".join(process.cmdline()):
            return process
    return None


def _cpu_seconds(process: psutil.Process | None) -> float:
    """What it has used; 0 for one that is gone."""
    with suppress(psutil.Error):
        if process is not None:
            used = process.cpu_times()
            return float(used.user + used.system)
    return 0.0
