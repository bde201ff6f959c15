"""The one judge of a run as a Ray actor, and its proxy in the driver."""

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
"""Units that the judge is asked about at a time. The limit keeps other calls from waiting until a unit is decided."""
_CALLS_AT_ONCE = 2 * UNITS_AT_ONCE + 100  # a unit is asked about twice if the first reply may be lost
_LAST_WORDS_SECONDS = 15.0
_START_SECONDS = 180.0
_SILENT_SECONDS = 60.0
_AT_WORK_SECONDS = 1.0
"""CPU time. An actor that has used less of it while it was silent is not running."""
_COUNT_EVERY_SECONDS = 0.25

Counts = dict[tuple[ClipStage, UnitName], int]
"""(stage, unit) → the number of clips of the unit that have completed the stage."""


class _JudgeActor:
    """The judge in its own process. It reserves no CPU, because it waits for answers."""

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
        """Return the process ID, the progress of the asking, and the counts since the last report."""
        counts, self._counts = self._counts, {}
        return os.getpid(), self._judging.report(), counts

    async def end(self) -> None:
        await self._judging.end()


class Counter:
    """A callback that reports a task's progress with its unit to the actor.

    It reports only now and then, because what is displayed need not be exact.
    """

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
    """The driver's proxy of the judge actor, which runs on the driver's node.

    The judge's answers are stored in files, so an actor that dies is replaced, up to three times. Only `end` waits for
    the actor, for a limited time.
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
        """Return references to the unit's scenes and to its `AskResult`; `screened` is a reference too."""
        scenes, asked = self._actor.decide.options(num_returns=2).remote(unit, screened)
        self._asked.add(asked)
        return scenes, asked

    def decided(self, asked: Any) -> None:
        """Record that the reply has arrived."""
        self._asked.discard(asked)

    def died(self, asked: Any) -> None:
        """Replace the actor, if the lost reply was asked of the present one. Raise RunStopped after too many deaths."""
        if asked in self._asked:
            self._replace("its process died")

    def report(self) -> tuple[CallProgress | None, Counts]:
        """Return the progress of the asking a moment ago, and the counts since the last report. Never wait.

        Replace an actor that has been silent for too long and is not running. Raise RunStopped as `died`, or if the
        actor's process does not start.
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
        """Let the actor store the answers that are on their way, for a limited time, then end it."""
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
        if self._process is not None:  # a process that merely cannot be reached would continue to ask
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
    """Return the actor's process, which runs on this node; None if it cannot be seen from this process."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if _JudgeActor.__name__ in " ".join(process.cmdline()):
            return process
    return None


def _cpu_seconds(process: psutil.Process | None) -> float:
    """Return the CPU time that the process has used, in seconds; 0 if the process is gone."""
    with suppress(psutil.Error):
        if process is not None:
            used = process.cpu_times()
            return float(used.user + used.system)
    return 0.0
