"""Failures of the machine under a training run: each becomes one line that says what to change.

| failure | raised by torch or the system as | here |
|---|---|---|
| no memory on the GPU | torch.OutOfMemoryError, RuntimeError of a library of CUDA | OutOfMemory |
| no memory on the host | MemoryError, RuntimeError of torch's CPU allocator, OSError | OutOfMemory |
| a process of the loader was killed | RuntimeError, in the main thread, wherever that is | LoaderKilled |
| no space on the disk | OSError, SafetensorError, RuntimeError of torch's writer | DiskFull |
| another process of the run has ended | RuntimeError of gloo, DistBackendError of NCCL | PeerLost |

All but the last are TrainingStopped, so torchrun and Ray do not start the run again. After a lost process they do.

Tested in tests/training/test_machine_faults.py.
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.distributed import DistBackendError

from nextscene.common.errors import StoppedError
from nextscene.common.text import first_line
from nextscene.training.errors import TrainingStopped
from nextscene.training.job import TrainingJob

_NO_MEMORY = re.compile(r"out of memory|can(no|')t allocate memory|_ALLOC_FAILED", re.IGNORECASE)
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|PytorchStreamWriter failed writing")
_KILLED = re.compile(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (is killed by signal: (?P<name>\w[\w ]*)|exited)")
_LOST = re.compile(r"gloo/transport|Connection (closed|reset) by peer")
_FEWER = "lower `data.micro_batch`, or set `parallel.checkpointing` to full"
_SHARD_MORE = f"use more GPUs, or set `parallel.gather_language` to false; {_FEWER}"


class OutOfMemory(TrainingStopped):
    """A lack of memory. The message has the shape that did not fit, and the setting to change."""


class LoaderKilled(TrainingStopped):
    """A process that decodes clips was killed, most often for lack of memory."""


class DiskFull(TrainingStopped):
    """A lack of space on the disk of the run."""


class PeerLost(StoppedError):
    """Another process of the run has ended. That process reports why."""


@contextmanager
def memory_for(describe: Callable[[], str], remedy: str = _FEWER) -> Iterator[None]:
    """Raise OutOfMemory for a lack of memory in this context. `describe` returns what does not fit, with its shape."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"{_memory(error)} is too small for {describe()}; {remedy}") from error


@contextmanager
def machine_faults(job: TrainingJob) -> Iterator[None]:
    """Raise the errors above for failures of a job in this context."""
    with _quiet_threads():
        try:
            yield
        except Exception as error:
            if fault := _fault(error, job):
                raise fault from error
            raise


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is a lack of memory, on the GPU or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and _NO_MEMORY.search(str(error)) is not None


def _fault(error: Exception, job: TrainingJob) -> StoppedError | None:
    if isinstance(error, StoppedError):
        return None
    data = job.recipe.data
    micro_batches = f"micro-batches of {data.micro_batch} × {data.max_frames} frames of {data.width}×{data.height}"
    if is_out_of_memory(error):
        return OutOfMemory(f"{_memory(error)} is too small for the model with {micro_batches}; {_SHARD_MORE}")
    if killed := _KILLED.search(str(error)):
        how = f"was killed ({killed['name'].strip()})" if killed["name"] else "has ended"
        return LoaderKilled(
            f"one of the {data.workers} processes that decode {micro_batches} {how}, most often for lack of memory;"
            " lower `data.workers`"
        )
    if _is_full(error):
        return DiskFull(f"the disk of {job.folder} is full, or its quota is used up; make room there")
    if isinstance(error, DistBackendError) or (isinstance(error, RuntimeError) and _LOST.search(str(error))):
        return PeerLost(f"another process of this run has ended, or does not answer: {first_line(error)}")
    return None


def _memory(error: BaseException) -> str:
    on_gpu = isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error) or "CUBLAS" in str(error)
    return "the GPU's memory" if on_gpu else "the memory of this machine"


def _is_full(error: BaseException | None) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return error is not None and _NO_SPACE.search(str(error)) is not None


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Print no traceback of a thread that finds the disk full, such as TensorBoard's: the main thread reports that."""
    usual = threading.excepthook

    def report(failure: threading.ExceptHookArgs) -> None:
        if not _is_full(failure.exc_value):
            usual(failure)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = usual
