"""The one judge of a run as a Ray actor, and the driver's hold on it."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from curation.errors import RunStopped
from curation.judging import Judging
from curation.plan import Unit
from curation.progress import ClipStage
from curation.scenes import Asked
from curation.unit import Job
from shards.layout import UnitName

if TYPE_CHECKING:
    from judge.cached_client import Report

_DEATHS_ALLOWED = 3
UNITS_AT_ONCE = 10_000
"""It is asked about no more, so that no other call has to wait for a unit to be decided."""
_CALLS_AT_ONCE = 2 * UNITS_AT_ONCE + 100  # a unit is asked about twice where the first reply may be lost
_LAST_WORDS_SECONDS = 15.0
_COUNT_EVERY_SECONDS = 0.25

Counts = dict[tuple[ClipStage, UnitName], int]
"""How many clips of a unit have come through a stage."""


class _JudgeActor:
    """It holds no CPU: it waits for answers."""

    def __init__(self, job: Job) -> None:
        self._judging = Judging(job.config, job.terms, job.out, job.run_id)
        self._counts: Counts = {}

    async def ready(self) -> None: ...

    async def decide(self, unit: Unit, screened: list[Any]) -> tuple[list[Any], Asked]:
        decision = await self._judging.decide(unit, screened, partial(self._count, "asked", unit.name))
        return decision.scenes, decision.outcome

    async def count(self, stage: ClipStage, name: UnitName, clips: int) -> None:
        self._count(stage, name, clips)

    def _count(self, stage: ClipStage, name: UnitName, clips: int) -> None:
        self._counts[stage, name] = clips

    async def report(self) -> tuple[Report | None, Counts]:
        """What was counted since the last report, beside how the asking goes."""
        counts, self._counts = self._counts, {}
        return self._judging.report(), counts

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
    """Asks on the driver's node. What the judge was told is on file, so one that dies is replaced, a few times."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._deaths = 0
        self._actor = self._start()
        self._asked_for_report: Any = None
        self._asking: Report | None = None

    def decide(self, unit: Unit, screened: Any) -> tuple[Any, Any]:
        """References to the unit's scenes and to how the asking went; `screened` is one too."""
        scenes, asked = self._actor.decide.options(num_returns=2).remote(unit, screened)
        return scenes, asked

    def replace_if_dead(self) -> None:
        """Raises RunStopped when it dies again and again."""
        try:
            ray.get(self._actor.ready.remote())
        except (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.OutOfMemoryError):
            self._deaths += 1
            ray.kill(self._actor)  # one that only cannot be reached would go on asking
            self._actor = self._start()
        if self._deaths > _DEATHS_ALLOWED:
            raise RunStopped(f"the judge died {self._deaths} times; see Ray's logs for why")

    def report(self) -> tuple[Report | None, Counts]:
        """How the asking went a moment ago, and what was counted since the last report. Never waits."""
        counts: Counts = {}
        if self._asked_for_report is not None:
            done, _ = ray.wait([self._asked_for_report], timeout=0)
            if not done:
                return self._asking, {}
            with suppress(exceptions.RayError):
                self._asking, counts = ray.get(self._asked_for_report)
        self._asked_for_report = self._actor.report.remote()
        return self._asking, counts

    def counter(self, stage: ClipStage, name: UnitName) -> Counter:
        return Counter(self._actor, stage, name)

    def end(self) -> None:
        """Lets it store the answers that are under way, and ends it."""
        with suppress(exceptions.RayError):
            ray.get(self._actor.end.remote(), timeout=_LAST_WORDS_SECONDS)
        ray.kill(self._actor)

    def _start(self) -> Any:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(
            num_cpus=0, max_restarts=0, max_task_retries=0, scheduling_strategy=here, max_concurrency=_CALLS_AT_ONCE
        )(_JudgeActor)
        return actor.remote(self._job)
