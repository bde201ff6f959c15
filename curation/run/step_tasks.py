"""The kinds of steps as Ray tasks, or as questions to the judge's actor.

Tested in tests/curation/run/test_engine.py.
"""

from __future__ import annotations

from typing import Any

import ray

from nextscene.curation.run.judge_actor import JudgeActor
from nextscene.curation.run.unit_progress import Step
from nextscene.curation.sealing.repair import seal_or_redo
from nextscene.curation.stages.unit import UnitContext, cut_unit, screen_unit, try_clip


class StepTasks:
    """The Ray task of each kind of step. Ray's own retries are off: the engine decides which steps are repeated."""

    def __init__(self, job: UnitContext, judge: JudgeActor) -> None:
        self._job = job
        self._judge = judge
        cpu_task = ray.remote(num_cpus=1, max_retries=0)
        self._screen, self._cut = cpu_task(screen_unit), cpu_task(cut_unit)
        self._try, self._seal = cpu_task(try_clip), cpu_task(seal_or_redo)

    def submit(self, step: Step) -> Any:
        """Start the step and return the reference to its result."""
        job, progress = self._job, step.progress
        if progress is None:
            return self._seal.remote(job.out, step.shard.name, step.shard.units)
        if step.kind == "screen":
            counter = self._judge.counter("screened", progress.unit.name)
            progress.screened = self._screen.options(num_cpus=step.cpus).remote(job, progress.unit, step.cpus, counter)
            return progress.screened
        if step.kind == "decide":
            progress.scenes, asked = self._judge.decide(progress.unit, progress.screened)
            return asked
        if step.kind == "try":
            return self._try.remote(job, progress.untried[0])
        cut, counter = self._cut.options(num_cpus=step.cpus), self._judge.counter("cut", progress.unit.name)
        return cut.remote(job, progress.unit, progress.screened, progress.scenes, step.cpus, counter)
