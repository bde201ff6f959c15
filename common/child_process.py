"""A child process that works on an untrusted file, limited in time and memory."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from nextscene.common.environment import clean_environment

_EVIDENCE_BYTES = 64 << 10
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.05  # seconds between two polls of a child
_FOR_THE_RUN = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGQUIT)
_CPUS_OF_ONE = 4  # ffmpeg's reader, decoder, scaler and encoder are threads of their own
# ffmpeg prints the address of the object that logs: it differs in each run.
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")


class ChildLimits(Protocol):
    """Limits of one child process: seconds of wall-clock time, and MiB of address space."""

    @property
    def clip_seconds(self) -> float: ...

    @property
    def clip_memory_mb(self) -> int: ...


@dataclass(frozen=True)
class ChildResult:
    """The end of a child: `code` is its exit status, negative for a signal, None after a timeout.

    `stderr` is the end of its standard error.
    """

    code: int | None
    stderr: str
    cpu_seconds: float


def run(line: Sequence[str], limits: ChildLimits) -> ChildResult:
    """Run a command in a process group of its own, within the limits' time and memory, and wait for its end."""
    with tempfile.TemporaryFile() as errors:
        with _signals_blocked():
            child = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                env=clean_environment(),
            )
        _set_limits(child.pid, limits)
        used: resource.struct_rusage | None = None
        try:
            used = _used_until_end(child, limits.clip_seconds)
        finally:
            # Also on an interrupt, and for processes that the child started.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            code = child.returncode if used else None
            used = used or _reap(child)
        size = errors.seek(0, os.SEEK_END)
        errors.seek(max(0, size - _EVIDENCE_BYTES))
        text = errors.read().decode("utf-8", "replace")
    return ChildResult(code, _ADDRESS.sub("", text).strip(), used.ru_utime + used.ru_stime if used else 0.0)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals for the block: a child started in it ignores those that a scheduler sends to a whole job.

    Otherwise the child would end in the middle of a file, as if the file were damaged. The run decides whether to stop.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_RUN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _set_limits(pid: int, limits: ChildLimits) -> None:
    """Limit the child's CPU time and memory in the kernel, so that it ends even if its parent is killed."""
    if not hasattr(resource, "prlimit"):
        return
    memory = limits.clip_memory_mb << 20
    try:
        resource.prlimit(pid, resource.RLIMIT_AS, (memory, memory))
        seconds = _CPUS_OF_ONE * round(limits.clip_seconds) + 1
        resource.prlimit(pid, resource.RLIMIT_CPU, (seconds, seconds))
    except ProcessLookupError:
        return  # it has ended already


def _used_until_end(child: subprocess.Popen[bytes], seconds: float) -> resource.struct_rusage | None:
    """Wait for the child's end, and return its resource usage; None after a timeout."""
    until, pause = time.monotonic() + seconds, _SHORTEST_PAUSE
    while (used := _reap(child, os.WNOHANG)) is None and time.monotonic() < until:
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return used


def _reap(child: subprocess.Popen[bytes], options: int = 0) -> resource.struct_rusage | None:
    """Return the resource usage of this child alone, or None while it runs. Other children are not reaped."""
    pid, status, used = os.wait4(child.pid, options)
    if not pid:
        return None
    child.returncode = os.waitstatus_to_exitcode(status)
    return used
