"""A stage on Ray Train, on any nodes: a lost worker is replaced, and all continue from the last checkpoint."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from nextscene.common.errors import UsageError
from nextscene.common.text import first_line
from nextscene.shards.format.tar import DamagedShard
from nextscene.training.distributed.process_group import current_world
from nextscene.training.errors import TrainingStopped, WorkersLost
from nextscene.training.job import TrainingJob
from nextscene.training.summary import StageSummary, describe_step

_LINE_EVERY_SECONDS = 5.0
_LOOK_EVERY_SECONDS = 0.5
_STOP = "stop-requested"


def train_on_ray(
    job: TrainingJob, workers: int, gpus: bool, failures: int, stopping: Callable[[], bool]
) -> StageSummary:
    """Run the stage on `workers` workers of the cluster that this process is connected to.

    `job.run` must be a folder that all nodes can access. Up to `failures` lost workers are replaced. Once `stopping`
    returns True, the workers end after a step, with a checkpoint; so do workers that Ray restarts after that.

    Raise UsageError, TrainingStopped and DamagedShard as `train` does, and WorkersLost if too many workers were lost or
    Ray itself failed.
    """
    request = job.folder / _STOP
    job.folder.mkdir(parents=True, exist_ok=True)
    request.unlink(missing_ok=True)  # a driver that was killed may have left it

    def look() -> None:
        if stopping():
            request.touch()

    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=job.recipe.parallel.timeout_seconds),
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(job.folder.absolute()),
            failure_config=ray.train.FailureConfig(max_failures=failures),
        ),
    )
    try:
        ended = _fit(trainer, look).return_value
    except ray.train.TrainingFailedError as error:
        reason = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[-1]
        raise WorkersLost(f"more than {failures} workers were lost; the last one: {reason}") from error
    except ray.exceptions.RayError as error:
        raise WorkersLost(f"Ray failed: {first_line(error)}") from error
    finally:
        request.unlink(missing_ok=True)
    if isinstance(ended, Exception):
        raise ended
    return ended  # type: ignore[no-any-return]


def _fit(trainer: TorchTrainer, look: Callable[[], object]) -> Any:
    """Return or raise the outcome of `trainer.fit`, and call `look` regularly while it runs.

    It runs in another thread, because in the main thread it would replace our SIGINT handler with its own, which ends
    the run without a checkpoint.
    """
    ended: list[Any] = []
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            ended.append(trainer.fit())
        except BaseException as error:  # noqa: BLE001 - raised below, by the thread that waits
            failed.append(error)

    fitting = threading.Thread(target=fit, name="ray train", daemon=True)
    fitting.start()
    while fitting.is_alive():
        fitting.join(_LOOK_EVERY_SECONDS)
        look()
    if failed:
        raise failed[0]
    return ended[0]


def _work(config: Mapping[str, Any]) -> StageSummary | Exception:
    """Train as one worker. Errors that the user must fix are returned, because Ray retries after a raised error."""
    # Imported late: the driver does not need torch.
    from nextscene.training.machine_faults import DiskFull, LoaderKilled, OutOfMemory
    from nextscene.training.trainer import train

    job: TrainingJob = config["job"]
    world = current_world(job.recipe.parallel.timeout)
    try:
        # Always resume: the command has checked for an earlier run, and a retry continues this one.
        return train(replace(job, resume=True), world, _Lines(job.recipe.name, job.folder / _STOP))
    except (OutOfMemory, LoaderKilled, DiskFull) as error:
        if world.size > 1:  # the other workers wait for this one: Ray ends them, and names the error
            raise
        return error
    except (UsageError, TrainingStopped, DamagedShard) as error:
        return error


class _Lines:
    """An observer that prints the progress of the leading worker. Ray forwards its lines to the driver."""

    def __init__(self, name: str, request: Path) -> None:
        """Report for the recipe `name`. The file `request` exists once the run is to stop."""
        self._name, self._steps, self._request = name, 0, request
        self._told = time.monotonic()

    def begin(self, steps: int, done: int) -> None:
        self._steps = steps
        self.note(f"{done} of {steps} steps are done")

    @property
    def stopping(self) -> bool:
        return self._request.exists()

    def note(self, line: str) -> None:
        sys.stderr.write(f"{self._name}: {line}\n")

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        if time.monotonic() - self._told >= _LINE_EVERY_SECONDS:
            self._told = time.monotonic()
            self.note(f"step {step} of {self._steps}, {describe_step(numbers)}")
