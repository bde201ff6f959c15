"""A stage on Ray Train that is told to stop: what its driver does, and what its workers see of it."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions
import ray.train

from nextscene.training.distributed import ray_train
from nextscene.training.errors import WorkersLost
from nextscene.training.machine_faults import DiskFull, LoaderKilled, OutOfMemory
from tests.training.stages import make_job, make_originals


class Trainer:
    """Ray's, as the driver knows it. It has the answer to SIGINT replaced where it can, as Ray's has."""

    def __init__(self, work: Any, train_loop_config: Any, **_: Any) -> None:
        self._job = train_loop_config["job"]

    def fit(self) -> Any:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        lines = ray_train._Lines("generator", self._job.folder / "stop-requested")
        before, waited = lines.stopping, threading.Event()
        while not lines.stopping and not waited.wait(0.01):
            pass
        return SimpleNamespace(return_value=(before, lines.stopping))


def test_workers_are_told_by_a_file_that_is_there_only_meanwhile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that a killed driver has left is not believed."""
    monkeypatch.setattr(ray_train, "TorchTrainer", Trainer)
    monkeypatch.setattr(ray_train, "_LOOK_EVERY_SECONDS", 0.01)
    job = make_job(tmp_path / "data", make_originals(tmp_path / "originals"), tmp_path / "run")
    job.folder.mkdir(parents=True)
    (job.folder / "stop-requested").touch()
    answers = iter([False, True])
    ours = signal.getsignal(signal.SIGINT)
    assert ray_train.train_on_ray(job, 2, False, 3, lambda: next(answers, True)) == (False, True)  # type: ignore[comparison-overlap]
    assert list(job.folder.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) == ours


@pytest.mark.parametrize(
    "error", [ray.exceptions.RaySystemError("the GCS is gone"), ray.train.WorkerGroupError("killed", {})]
)
def test_where_ray_fails_it_is_said_to(error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(_trainer: Trainer) -> None:
        raise error

    monkeypatch.setattr(ray_train, "TorchTrainer", Trainer)
    monkeypatch.setattr(Trainer, "fit", fail)
    job = make_job(tmp_path / "data", make_originals(tmp_path / "originals"), tmp_path / "run")
    with pytest.raises(WorkersLost, match=r"the GCS is gone|killed"):
        ray_train.train_on_ray(job, 2, False, 3, lambda: False)


@pytest.mark.parametrize("fault", [OutOfMemory, LoaderKilled, DiskFull])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_fault_of_one_of_several_workers_is_raised_for_ray(
    fault: type[Exception], workers: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The others wait for it in a collective. Alone, it is returned: a retry would meet the same fault."""

    def train(*_: object) -> None:
        raise error

    error = fault("a micro-batch does not fit")
    monkeypatch.setattr("nextscene.training.trainer.train", train)
    monkeypatch.setattr(ray_train, "current_world", lambda _timeout: SimpleNamespace(size=workers))
    job = make_job(tmp_path / "data", make_originals(tmp_path / "originals"), tmp_path / "run")
    if workers == 1:
        assert ray_train._work({"job": job}) is error
    else:
        with pytest.raises(fault) as raised:
            ray_train._work({"job": job})
        assert raised.value is error
