"""A stage as a request to the supervisor of Ray: when it is told to stop, and what is raised where Ray fails."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from nextscene.common.errors import RayFailed, RunStopped, UsageError
from nextscene.pipelines.cli import train_on_ray
from nextscene.pipelines.cli.stop_signals import STOPS
from nextscene.pipelines.cli.train_on_ray import TrainOnRay, train_supervised
from nextscene.training.distributed import ray_train
from nextscene.training.errors import WorkersLost
from nextscene.training.job import TrainingJob
from tests.training.stages import make_job, make_originals


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What Ray says that the cluster has; this test may change it."""
    cluster = {"CPU": 2.0}
    monkeypatch.setattr(ray, "cluster_resources", lambda: dict(cluster))
    monkeypatch.setattr(train_on_ray, "_LOOK_SECONDS", 0.0)
    return cluster


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return make_job(tmp_path / "data", make_originals(tmp_path / "originals"), tmp_path / "run")


class Told:
    """A supervisor that has the work stop at once, or does not."""

    def __init__(self, to_stop: bool = False) -> None:
        self._to_stop = to_stop

    def check(self) -> None:
        if self._to_stop:
            raise RunStopped("stopped by SIGTERM")

    def tick(self, *_: Any) -> None: ...


@pytest.mark.parametrize("to_stop", [False, True])
def test_workers_stop_once_the_supervisor_says_so(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, to_stop: bool
) -> None:
    monkeypatch.setattr(ray_train, "train_on_ray", lambda *given: given[-1]())
    assert TrainOnRay(job, 2, 3, None).work(Told(to_stop)) is to_stop


def test_too_many_lost_workers_are_for_the_supervisor_to_explain(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> None:
        raise WorkersLost("more than 3 workers were lost")

    monkeypatch.setattr(ray_train, "train_on_ray", lost)
    with pytest.raises(RayFailed, match="more than 3 workers were lost"):
        TrainOnRay(job, 2, 3, None).work(Told())


def test_a_signal_has_the_supervisor_end_the_work_in_order(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def supervised(_request: Any, _tick: Any, check: Any) -> str:
        check()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(RunStopped, match="stopped by SIGTERM"):
            check()
        return "a summary"

    monkeypatch.setattr(train_on_ray, "supervise", supervised)
    before = STOPS.install()
    try:
        STOPS.begin()
        assert train_supervised(job, 2, 3, None) == "a summary"  # type: ignore[comparison-overlap]
    finally:
        STOPS.end()
        STOPS.restore(before)


@pytest.mark.parametrize("grows", [True, False])
def test_workers_that_finish_no_step_for_long_are_lost(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, grows: bool
) -> None:
    """The clock is that of processes that run: a look counts as two seconds at most."""
    now = iter(range(0, 1_000_000, 2000))
    monkeypatch.setattr("nextscene.common.awake_clock._LONGEST_STEP_SECONDS", 2000.0)
    monkeypatch.setattr("nextscene.common.awake_clock.time", SimpleNamespace(monotonic=lambda: float(next(now))))
    job.folder.mkdir(parents=True)

    def train(*given: Any) -> str:
        for _ in range(10):
            given[-1]()
            if grows:
                with job.metrics.open("a") as metrics:
                    metrics.write("{}\n")
        return "a summary"

    monkeypatch.setattr(ray_train, "train_on_ray", train)
    request = TrainOnRay(job, 2, 3, None)
    if grows:
        assert request.work(Told()) == "a summary"  # type: ignore[comparison-overlap]
    else:
        with pytest.raises(RayFailed, match="no step was finished in 2 hours"):
            request.work(Told())


def test_a_machine_that_is_too_small_is_wrong_usage(job: TrainingJob) -> None:
    with pytest.raises(UsageError, match="--workers 3 needs 3 CPUs, and this machine has 2; give --workers 2 or"):
        TrainOnRay(job, 3, 3, None).work(Told())


def test_a_node_that_joins_is_waited_for(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, cluster: dict[str, float]
) -> None:
    class Joining(Told):
        def check(self) -> None:
            cluster["CPU"] += 1

    monkeypatch.setattr(ray_train, "train_on_ray", lambda *_: "a summary")
    assert TrainOnRay(job, 4, 3, "10.0.0.1:6379").work(Joining()) == "a summary"  # type: ignore[comparison-overlap]


def test_a_cluster_that_stays_too_small_stops_the_run(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_on_ray, "_WITHOUT_ROOM_SECONDS", 0.0)
    with pytest.raises(RunStopped, match=r"has 2 CPUs, --workers 3 needs 3, .* add nodes"):
        TrainOnRay(job, 3, 3, "10.0.0.1:6379").work(Told())


def test_a_stop_ends_the_wait_for_nodes(job: TrainingJob) -> None:
    with pytest.raises(RunStopped, match="stopped by SIGTERM"):
        TrainOnRay(job, 3, 3, "10.0.0.1:6379").work(Told(to_stop=True))
