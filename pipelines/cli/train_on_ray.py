"""A stage of the training as a request to the supervised process that works on Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nextscene.common.awake_clock import AwakeClock
from nextscene.common.errors import RayFailed, RunStopped, UsageError
from nextscene.common.ray_cluster.cluster import cluster_address
from nextscene.common.ray_cluster.messages import ToSupervisor
from nextscene.common.ray_cluster.supervisor import supervise
from nextscene.pipelines.cli.step_progress import StepProgress
from nextscene.pipelines.cli.stop_signals import STOPS
from nextscene.training.errors import WorkersLost
from nextscene.training.job import TrainingJob

if TYPE_CHECKING:
    from nextscene.training.summary import StageSummary

_LOOK_SECONDS = 1.0
_WITHOUT_ROOM_SECONDS = 1800.0
_SILENT_SECONDS = 7200.0
"""Longer than loading, a step, an evaluation or a checkpoint should take."""


@dataclass(frozen=True)
class TrainOnRay:
    """Does `job` with so many `ranks` of the cluster at `address`, its own if None. `workers` is of CPUs: all."""

    job: TrainingJob
    ranks: int
    failures: int
    address: str | None
    workers: None = None
    training: bool = True
    stop_seconds: float = 7200.0
    """For a step and a checkpoint; of the stage `rl` a step makes videos, and waits for verdicts."""

    def work(self, supervisor: ToSupervisor) -> StageSummary:
        """Return what the stage came to, unfinished where the supervisor ended it. Raise as `train_on_ray`.

        Raise UsageError or RunStopped for a cluster that is too small for the ranks.
        """
        import torch

        from nextscene.training.distributed.ray_train import train_on_ray  # Ray may be imported only now

        silence = _Silence(self.job.metrics)

        def stopping() -> bool:
            silence.check()
            try:
                supervisor.check()
            except RunStopped:
                return True
            return False

        gpus = torch.cuda.is_available()
        _wait_for_room(self.ranks, "GPU" if gpus else "CPU", cluster_address(self.address) is None, supervisor.check)
        try:
            return train_on_ray(self.job, self.ranks, gpus, self.failures, stopping)
        except WorkersLost as lost:
            raise RayFailed(str(lost)) from lost


class _Silence:
    """How long no step and no evaluation was written down: a worker that is paused, or lost unseen, says nothing."""

    def __init__(self, metrics: Path) -> None:
        self._metrics = metrics
        self._clock = AwakeClock()
        self._seen = self._size()
        self._since = 0.0

    def check(self) -> None:
        """Raise WorkersLost after two hours. To be called every moment."""
        now, size = self._clock.seconds(), self._size()
        if size != self._seen:
            self._seen, self._since = size, now
        elif now - self._since > _SILENT_SECONDS:
            raise WorkersLost(
                f"no step was finished in {_SILENT_SECONDS / 3600:g} hours: is a node of the cluster paused or gone?"
            )

    def _size(self) -> int:
        return self._metrics.stat().st_size if self._metrics.exists() else 0


def _wait_for_room(ranks: int, resource: str, alone: bool, check: Callable[[], None]) -> None:
    """Return once the cluster has one of the resource for each rank; nodes may join. Call `check` all the while.

    Raise UsageError where it is this machine `alone`, RunStopped after half an hour.
    """
    import ray

    clock = AwakeClock()
    while (there := int(ray.cluster_resources().get(resource, 0))) < ranks:
        if alone:
            raise UsageError(
                f"--workers {ranks} needs {ranks} {resource}s, and this machine has {there}; give --workers {there} or"
                " fewer, or the --ray-address of a cluster"
            )
        if clock.seconds() > _WITHOUT_ROOM_SECONDS:
            raise RunStopped(
                f"the Ray cluster has {there} {resource}s, --workers {ranks} needs {ranks}, and no node joined within"
                f" {_WITHOUT_ROOM_SECONDS / 60:.0f} minutes; add nodes, or give fewer --workers"
            )
        check()
        time.sleep(_LOOK_SECONDS)


def train_supervised(job: TrainingJob, ranks: int, failures: int, address: str | None) -> StageSummary:
    """Train the stage on Ray until it is done, or a signal has it end after a step, with a checkpoint.

    Raise UsageError, TrainingStopped and DamagedShard as `train` does, and RunStopped where Ray fails.
    """
    watch = StepProgress(job.recipe.name)

    def check() -> None:
        if watch.stopping:
            raise RunStopped(STOPS.words)

    try:
        job.recipe.gradient_accumulation_steps(ranks)
    except ValueError as error:
        raise UsageError(str(error)) from error
    request = TrainOnRay(job, ranks, failures, address)
    with watch.stopped_by_signals():
        return supervise(request, lambda *_: None, check)  # type: ignore[no-any-return]
