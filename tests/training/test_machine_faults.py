"""Failures of the machine in a run: one line with the shape and the setting, or the place, and a run that continues."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from PIL import Image
from safetensors import SafetensorError

from nextscene.common import atomic
from nextscene.common.atomic import write_synced
from nextscene.common.errors import StoppedError
from nextscene.training.checkpoint_info import latest
from nextscene.training.errors import TrainingStopped
from nextscene.training.job import TrainingJob
from nextscene.training.machine_faults import PeerLost, machine_faults
from nextscene.training.metrics.logger import MetricsLogger
from nextscene.training.objectives.flow_matching import FlowMatching
from tests.training.objectives.grpo.toys import RL, brightness, rl_on_rank
from tests.training.stages import SMALL, Stage, by_ranks, on_rank, replace

RECIPE = replace(
    SMALL, steps=1, trainable=("bridge.*",), logging=replace(SMALL.logging, evaluate_clips=0, checkpoint_every=1)
)
EVALUATED = replace(RECIPE, logging=replace(RECIPE.logging, evaluate_clips=1))
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
TOO_MUCH = 1 << 60


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.made(tmp_path_factory.mktemp("stage"), RECIPE)


def told(job: TrainingJob, rank: Callable[..., Any] = on_rank, *arguments: Any) -> str:
    """The one line with which a run ends that is to be continued with."""
    with pytest.raises(TrainingStopped) as end:
        by_ranks(1, rank, job, *arguments)
    assert end.value.exit_code == 3 and "\n" not in str(end.value)
    return str(end.value)


# ---- memory -----------------------------------------------------------------------------------------------------


def on_the_gpu(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def on_the_host(*_: Any, **__: Any) -> None:
    torch.empty(TOO_MUCH)


def in_numpy(*_: Any, **__: Any) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("fails", "where"),
    [(on_the_gpu, "the GPU's memory"), (on_the_host, "the memory of this machine"), (in_numpy, "the memory of this")],
)
def test_a_micro_batch_that_does_not_fit_is_told_with_its_shape_and_the_setting(
    stage: Stage, tmp_path: Path, fails: Callable[..., None], where: str
) -> None:
    """Of 9 frames or 1, of 32×24: the first micro-batch has the same in each run."""
    with patch.object(LTXVideoTransformer3DModel, "forward", fails):
        line = told(stage.job(str(tmp_path), RECIPE))
    assert line.startswith(where) and "a micro-batch of 1 × 9 frames of 32×24, 144 tokens each" in line
    assert "lower `data.micro_batch`" in line


def test_latents_and_candidates_and_a_model_that_do_not_fit_are_told(stage: Stage, tmp_path: Path) -> None:
    with patch.object(AutoencoderKLLTXVideo, "encode", on_the_gpu):
        line = told(stage.job(str(tmp_path / "latents"), RECIPE))
    assert "the autoencoder with 1 × 9 frames of 32×24" in line and "latents before" in line
    with patch.object(LTXVideoTransformer3DModel, "forward", on_the_gpu):
        line = told(stage.job(str(tmp_path / "rl"), RL), rl_on_rank, brightness)
    assert "2 × 9 frames of 32×24, the candidates of one pass" in line and "`policy.batch`" in line
    with patch.object(LTXVideoTransformer3DModel, "from_pretrained", on_the_host):
        line = told(stage.job(str(tmp_path / "model"), RECIPE))
    assert "the model with micro-batches of 1 × 9 frames of 32×24" in line and "`parallel.gather_language`" in line


# torch tells of the death in whatever runs at that moment; in a finalizer, that is a warning, and is told again later.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_killed_process_of_the_loader_is_told(stage: Stage, tmp_path: Path) -> None:
    data, logging = replace(RECIPE.data, workers=1), replace(RECIPE.logging, checkpoint_every=0)
    job = stage.job(str(tmp_path), replace(RECIPE, steps=10**6, data=data, logging=logging))
    compute = FlowMatching.compute_gradient

    def killed(objective: FlowMatching, batches: Any, step: int) -> Any:
        if step == 1:
            (worker,) = {*psutil.Process().children()} - before
            worker.kill()
        return compute(objective, batches, step)

    before = {*psutil.Process().children()}
    with patch.object(FlowMatching, "compute_gradient", killed):
        line = told(job)
    process = "one of the 1 processes that decode micro-batches of 1 × 9 frames of 32×24"
    assert f"{process} was killed (Killed)" in line or f"{process} has ended" in line
    assert "lower `data.workers`" in line


# ---- disk -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """Something that a run writes, how the disk is full for it, and the checkpoint that is left."""

    fault: AbstractContextManager[Any]
    checkpoint: str | None


def write_all_but_checkpoints(path: Path, content: bytes) -> None:
    if path.name == "about.json":
        raise FULL
    write_synced(path, content)


WRITTEN = {
    "a checkpoint": Written(patch.object(atomic, "write_synced", write_all_but_checkpoints), None),
    "metrics": Written(patch.object(MetricsLogger, "log", side_effect=FULL), None),
    "samples": Written(patch.object(Image.Image, "save", side_effect=FULL), None),
    "the export": Written(
        patch("nextscene.training.trainer.export", side_effect=SafetensorError("I/O error: No space left on device")),
        "step-1",
    ),
}


@pytest.mark.parametrize("what", WRITTEN)
def test_a_full_disk_says_so(stage: Stage, tmp_path: Path, what: str) -> None:
    job = stage.job(str(tmp_path), EVALUATED if what == "samples" else RECIPE)
    with WRITTEN[what].fault:
        line = told(job)
    assert what != "a checkpoint" or "a checkpoint could not be written" in line
    assert str(job.folder) in line and ("is full" in line or "No space left" in line)
    newest = latest(job.checkpoints)
    assert (newest.name if newest else None) == WRITTEN[what].checkpoint


def test_a_thread_that_finds_the_disk_full_prints_no_traceback(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: seen.append(failure.exc_value))
    other = ValueError("another")

    def write(error: Exception) -> None:
        raise error

    with machine_faults(stage.job(str(tmp_path))):
        for error in (FULL, other):
            thread = threading.Thread(target=write, args=(error,))
            thread.start()
            thread.join()
    assert seen == [other]


# ---- processes --------------------------------------------------------------------------------------------------


def test_a_lost_process_is_a_one_line_fault_and_not_a_deliberate_stop(stage: Stage, tmp_path: Path) -> None:
    lost = RuntimeError(
        "[gloo/transport/tcp/pair.cc:537] Read error [10.0.0.2]:31: Connection reset by peer.\nSee logs"
    )
    with pytest.raises(PeerLost) as end, machine_faults(stage.job(str(tmp_path))):
        raise lost
    assert not isinstance(end.value, TrainingStopped) and isinstance(end.value, StoppedError)
    assert "another process of this run has ended" in str(end.value) and "\n" not in str(end.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("gloo/transport"), KeyError("x")])
def test_an_error_of_ours_stays_what_it_is(stage: Stage, tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as end, machine_faults(stage.job(str(tmp_path))):
        raise error
    assert end.value is error
