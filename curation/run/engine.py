"""The engine: takes units through screen, judge and cut on Ray, a bounded number at a time, then seals their shards.

Every step is one Ray task; its input is a reference to the result of the previous step. No video goes through the
object store. Ray's own retries are off. A step ends in one of four ways: it is done; its worker died, which counts
against the unit; its node was lost, which counts against nothing; or it stops the run.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import ray
from ray import exceptions

from nextscene.common.errors import LeftUndecided, RayFailed, RunStopped
from nextscene.common.text import first_line
from nextscene.curation.progress import StageCounts, Tick
from nextscene.curation.run.cluster_size import ClusterSize
from nextscene.curation.run.crash_counts import UNIT_CRASHES_ALLOWED, CrashCounts
from nextscene.curation.run.judge_actor import UNITS_AT_ONCE, JudgeActor
from nextscene.curation.run.step_errors import NODE_LOST, WORKER_DIED, cause_of
from nextscene.curation.run.step_tasks import StepTasks
from nextscene.curation.run.step_timeouts import GRACE_SECONDS, StepTimeouts
from nextscene.curation.run.unit_progress import PRIORITY, Step, UnitProgress
from nextscene.curation.sealing.remaining import ShardWork
from nextscene.curation.stages.describe import AskResult
from nextscene.curation.stages.unit import UnitContext
from nextscene.shards.format.layout import ShardName

if TYPE_CHECKING:
    from nextscene.judge.call_progress import CallProgress

_log = logging.getLogger(__name__)

_DEATHS_ALLOWED = 3
_TICK_SECONDS = 0.5


class Engine:
    """The scheduler of a run's steps, from the first screen to the receipt of each shard.

    `workers` limits the CPUs that it uses; None means all CPUs of the cluster. `waiting` units may wait for the judge,
    in addition to those that keep the CPUs busy.
    """

    def __init__(self, job: UnitContext, workers: int | None, waiting: int, check: Callable[[], None]) -> None:
        self._job = job
        self._size = ClusterSize(workers)
        self._timeouts = StepTimeouts()
        self._waiting = waiting
        self._check = check
        self._judge = JudgeActor(job)
        self._tasks = StepTasks(job, self._judge)
        self._counts = StageCounts()
        self._seal_deaths: Counter[ShardName] = Counter()
        self._ready: list[tuple[int, int, Step]] = []
        self._running: dict[Any, Step] = {}
        self._in_flight = 0
        self._order = itertools.count()
        self._stop: Exception | None = None
        self._judge_ended: Exception | None = None
        self._left_undecided: Exception | None = None
        self._asking: CallProgress | None = None

    def run(self, work: Iterator[ShardWork], tick: Tick) -> Exception | None:
        """Work until nothing is left. Raise RunStopped, StorageFault or UsageError.

        Clips that were decided before the asking ended are still cut. Return the error that ended the asking or left
        clips undecided, or None.
        """
        try:
            self._work(work, tick)
        finally:
            self._judge.end()
        if self._stop:
            raise self._stop
        return self._judge_ended or self._left_undecided

    def _work(self, work: Iterator[ShardWork], tick: Tick) -> None:
        units = self._units(work)
        while True:
            self._size.update()
            self._admit(units)
            self._start_ready()
            if self._over:
                break
            done, _ = ray.wait(list(self._running), timeout=_TICK_SECONDS)
            for reference in done:
                step = self._running.pop(reference)
                self._timeouts.end(reference)
                self._finish(step, reference)
            self._end_silent_steps()
            try:
                self._check()
            except RunStopped as stop:
                self._stop = self._stop or stop
            self._report(tick)

    def _report(self, tick: Tick) -> None:
        try:
            self._asking, counts = self._judge.report()
        except RunStopped as stop:
            self._stop = self._stop or stop
        else:
            self._counts.take(counts)
            for reference, step in self._running.items():
                if step.progress and any(name == step.progress.unit.name for _, name in counts):
                    self._timeouts.progress(reference)
        tick(self._counts.stages, self._asking)

    @property
    def _over(self) -> bool:
        """Return whether no step has to be waited for.

        A stopped run does not wait for answers: each would be paid for, and those of batches may take a day.
        """
        return all(self._stop and step.kind == "decide" for step in self._running.values())

    @property
    def _ending(self) -> bool:
        return bool(self._stop or self._judge_ended)

    # ---- starting steps ----------------------------------------------------------------------------------------

    def _units(self, work: Iterator[ShardWork]) -> Iterator[UnitProgress]:
        for shard in work:
            if shard.is_done:
                self._push(Step("seal", shard))
            for unit in list(shard.todo):
                yield UnitProgress(unit, shard, CrashCounts.read(self._job.out, unit.name))

    def _admit(self, units: Iterator[UnitProgress]) -> None:
        window = min(2 * self._size.slots + 2 + self._waiting, UNITS_AT_ONCE)
        while not self._ending and self._in_flight < window and (progress := next(units, None)):
            self._in_flight += 1
            self._counts.begin(progress.unit)
            if progress.crashes.unit:
                self._try_clips_alone(progress)
            else:
                self._push(Step("screen", progress.shard, progress))

    def _start_ready(self) -> None:
        if self._ending:
            self._ready = [item for item in self._ready if not self._stop and item[2].kind in ("seal", "cut")]
            heapq.heapify(self._ready)
        free = self._size.slots - sum(step.cpus for step in self._running.values())
        while free > 0 and self._ready:
            share = free // len(self._ready)
            step = heapq.heappop(self._ready)[2].with_cpus(min(share, self._size.node_cpus))
            self._start_now(step)
            free -= step.cpus

    def _push(self, step: Step) -> None:
        heapq.heappush(self._ready, (PRIORITY[step.kind], next(self._order), step))

    def _ask(self, progress: UnitProgress, shard: ShardWork) -> None:
        """Start the question about a unit immediately, because it uses no CPU. Ignore it if the asking is ending."""
        if not self._ending:
            self._start_now(Step("decide", shard, progress, cpus=0))

    def _start_now(self, step: Step) -> None:
        reference = self._tasks.submit(step)
        self._running[reference] = step
        self._timeouts.begin(reference, step.kind)

    # ---- finishing steps ---------------------------------------------------------------------------------------

    def _finish(self, step: Step, reference: Any) -> None:
        try:
            result = ray.get(reference)
        except (*WORKER_DIED, exceptions.RayActorError) as death:
            if step.kind == "decide":
                self._judge_died(step, reference)
            else:
                self._worker_died(step, first_line(death))
        except NODE_LOST as loss:
            _log.info("%s lost with its node, done anew: %s", step.kind, loss)
            self._again(step)
        except exceptions.RayTaskError as error:
            self._stop = self._stop or cause_of(error)
        except exceptions.RayError as error:
            self._stop = self._stop or RayFailed(f"Ray failed at {step.kind} of {step.name}: {first_line(error)}")
        else:
            if step.kind == "decide":
                self._judge.decided(reference)
            self._next(step, result)

    def _next(self, step: Step, result: Any) -> None:
        progress = step.progress
        if progress is None:
            self._counts.sealed += result is not None
            return
        if step.kind == "screen":
            self._counts.complete("screened", progress.unit)
            self._ask(progress, step.shard)
        elif step.kind == "decide":
            self._asked(step, progress, result)
        elif step.kind == "try":
            progress.untried.pop(0)
            self._try_next_clip(progress)
        else:
            self._in_flight -= 1
            if not progress.is_partial:
                self._counts.complete("cut", progress.unit)
                self._counts.complete("decided", progress.unit)
                step.shard.todo.remove(progress.unit)
            self._counts.end(progress.unit.name)
            if step.shard.is_done:
                self._push(Step("seal", step.shard))

    def _asked(self, step: Step, progress: UnitProgress, asked: AskResult) -> None:
        if isinstance(asked.end, LeftUndecided):
            self._left_undecided = self._left_undecided or asked.end
        else:
            self._judge_ended = self._judge_ended or asked.end
        progress.is_partial = asked.is_partial
        if not asked.is_partial:
            self._counts.complete("asked", progress.unit)
        if asked.end and not asked.has_scenes:
            self._in_flight -= 1  # no scene came back: the unit counts as not begun
        else:
            self._push(Step("cut", step.shard, progress))

    def _again(self, step: Step) -> None:
        if step.progress is None or step.kind == "try":
            self._push(step)
        else:
            self._push(Step("screen", step.shard, step.progress))

    def _judge_died(self, step: Step, reference: Any) -> None:
        """Replace the judge and ask the same question again: the answers that it had received are stored elsewhere."""
        try:
            self._judge.died(reference)
        except RunStopped as stop:
            self._stop = self._stop or stop
        if step.progress:
            self._ask(step.progress, step.shard)

    def _end_silent_steps(self) -> None:
        """Kill workers that hang, which counts as their death. Stop the run if one cannot be killed."""
        for reference in self._timeouts.silent():
            step = self._running[reference]
            _log.warning("%s of %s shows no sign of life; its worker is ended", step.kind, step.name)
            ray.cancel(reference, force=True)
        for reference in self._timeouts.stuck():
            step = self._running.pop(reference)
            self._stop = self._stop or RunStopped(
                f"the worker of {step.kind} of {step.name} hangs, and could not be ended within {GRACE_SECONDS:.0f} s"
            )

    # ---- units that kill their worker --------------------------------------------------------------------------

    def _worker_died(self, step: Step, evidence: str) -> None:
        progress = step.progress
        if progress is None:
            self._seal_deaths[step.shard.name] += 1
            if self._seal_deaths[step.shard.name] <= _DEATHS_ALLOWED:
                self._push(step)
            else:
                self._stop = self._stop or RunStopped(f"sealing {step.shard.name} kills its worker: {evidence}")
            return
        out, name, crashes = self._job.out, progress.unit.name, progress.crashes
        if step.kind == "try":
            clip = progress.untried[0].clip_id
            crashes.clips[clip] = crashes.clips.get(clip, 0) + 1
            crashes.publish(out, name)
            if clip in crashes.quarantined:
                _log.warning("clip %s is quarantined: it killed its worker twice, alone", clip)
                progress.untried.pop(0)
            self._try_next_clip(progress)
            return
        crashes.unit += 1
        crashes.publish(out, name)
        if crashes.unit > UNIT_CRASHES_ALLOWED:
            self._stop = self._stop or RunStopped(
                f"unit {name} killed its worker {crashes.unit} times, though none of its clips does so alone;"
                " give the machine more memory, or use fewer `workers`"
            )
            return
        _log.warning("the worker of unit %s died (%s); its clips are tried one by one", name, evidence)
        self._try_clips_alone(progress)

    def _try_clips_alone(self, progress: UnitProgress) -> None:
        progress.split()
        self._try_next_clip(progress)

    def _try_next_clip(self, progress: UnitProgress) -> None:
        if progress.untried:
            self._push(Step("try", progress.shard, progress))
        else:
            progress.merge()
            self._push(Step("screen", progress.shard, progress))
