"""The ffmpeg binary: which build it is, and one bounded run of it."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import imageio_ffmpeg

from curation.config import Limits
from curation.errors import UsageMistake

_ANSWER_SECONDS = 30
_EVIDENCE_BYTES = 2000
_CPUS_OF_ONE = 4  # its reader, decoder, scaler and encoder are threads of their own
# Where in its memory ffmpeg keeps what speaks: other at each run.
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")


@cache
def executable() -> str:
    """imageio-ffmpeg's own binary, or the one that IMAGEIO_FFMPEG_EXE names."""
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise UsageMistake(f"no ffmpeg: {error}") from error


@cache
def build() -> str:
    """The build's version and a digest of all it says of itself; other builds make other bytes.

    Raises UsageMistake for a binary that does not answer or cannot encode H.264.
    """
    try:
        answer = subprocess.run(
            [executable(), "-hide_banner", "-version"],
            capture_output=True, timeout=_ANSWER_SECONDS, check=True, stdin=subprocess.DEVNULL,
            text=True, errors="replace",
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageMistake(f"ffmpeg at {executable()} does not tell its version: {error}") from error
    if not answer.startswith("ffmpeg version "):
        raise UsageMistake(f"ffmpeg at {executable()} does not tell its version: it says {answer[:40]!a}")
    if "--enable-libx264" not in answer:
        raise UsageMistake(f"ffmpeg at {executable()} is built without libx264; unset IMAGEIO_FFMPEG_EXE")
    version = answer.split()[2]
    return f"{version} {hashlib.sha256(answer.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Run:
    """How a child ended. `code` is the exit status, negative for a signal, None when its time was up."""

    code: int | None
    stderr: str
    cpu_seconds: float


def run(arguments: list[str], limits: Limits) -> Run:
    """Runs ffmpeg in a process group of its own, within the limits' time and memory, and waits for its end."""
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [executable(), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
        )  # fmt: skip
        _bound(child.pid, limits)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code: int | None
        try:
            code = child.wait(limits.clip_seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Also on an interrupt, and for whatever the child may have started itself.
            _kill_group(child)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = errors.seek(0, os.SEEK_END)
        errors.seek(max(0, size - _EVIDENCE_BYTES))
        text = errors.read().decode("utf-8", "replace")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(code, _ADDRESS.sub("", text).strip(), cpu)


def _bound(pid: int, limits: Limits) -> None:
    """A child that outlives its killed parent still ends: the kernel holds it to its CPU time and memory."""
    if not hasattr(resource, "prlimit"):
        return
    memory = limits.clip_memory_mb << 20
    try:
        resource.prlimit(pid, resource.RLIMIT_AS, (memory, memory))
        seconds = _CPUS_OF_ONE * round(limits.clip_seconds) + 1
        resource.prlimit(pid, resource.RLIMIT_CPU, (seconds, seconds))
    except ProcessLookupError:
        return  # it has ended already


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
