"""Training of a stage as a request to the supervised process that runs on Ray."""

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
"""A limit above the longest expected time of loading, a step, an evaluation or a checkpoint."""


@dataclass(frozen=True)
class TrainOnRay:
    """A request to train `job` with `ranks` processes on the Ray cluster at `address`.

    If `address` is None, a cluster is started here. Up to `failures` lost workers are replaced. `workers`, the number
    of CPUs, is always None: all.
    """

    job: TrainingJob
    ranks: int
    failures: int
    address: str | None
    workers: None = None
    training: bool = True
    stop_seconds: float = 7200.0
    """Time allowed for a step and a checkpoint. In the stage `rl` a step generates videos and waits for verdicts."""

    def work(self, supervisor: ToSupervisor) -> StageSummary:
        """Train, and return the summary of the stage, which is not finished if the supervisor ended it.

        Raise UsageError or RunStopped if the cluster is too small for the ranks, RayFailed if workers are lost, and all
        other errors of `train_on_ray`.
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
    """The time since metrics were last written. It detects workers that are paused, or lost without an error."""

    def __init__(self, metrics: Path) -> None:
        self._metrics = metrics
        self._clock = AwakeClock()
        self._seen = self._size()
        self._since = 0.0

    def check(self) -> None:
        """Raise WorkersLost if nothing was written for two hours. Must be called at least every two seconds."""
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
    """Wait until the cluster has one unit of the resource for each rank; nodes may join. Call `check` every second.

    If the cluster is `alone`, this machine only, raise UsageError at once. Raise RunStopped after half an hour.
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
    """Train the stage on Ray until it is done, or until a signal ends it after a step, with a checkpoint.

    Raise UsageError, TrainingStopped and DamagedShard as `train` does, and RunStopped if Ray fails.
    """
    watch = StepProgress(job.recipe.name)

    def check() -> None:
        if watch.stopping:
            raise RunStopped(STOPS.words)

    try:
        job.recipe.check_ranks(ranks)
    except ValueError as error:
        raise UsageError(str(error)) from error
    request = TrainOnRay(job, ranks, failures, address)
    with watch.stopped_by_signals():
        return supervise(request, lambda *_: None, check)  # type: ignore[no-any-return]
