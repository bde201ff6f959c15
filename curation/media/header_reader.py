"""Headers read in a child process with limits on CPU time and memory, as an untrusted file may hang or kill its reader.

Each process that reads headers has one such child, which is kept from file to file. The child has no credentials: files
that are not on a local disk are read for it.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import signal
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from nextscene.common.child_server import ChildServer
from nextscene.common.environment import clean_python_environment
from nextscene.common.errors import RunStopped
from nextscene.curation.config import RunLimits
from nextscene.curation.media import header_child
from nextscene.curation.media.color import Color
from nextscene.curation.media.probe import ImplausibleHeader, Measured, NoVideo, UnreadableFile

_MAX_READS = 10_000
"""Limit for the reads of 64 KiB that one file may take if it is read for the child. Sound files take some dozens."""
_MAX_ANSWER_BYTES = 1 << 20
_AT_WORK_SECONDS = 0.1
"""Least CPU time of a working child within `limits.clip_seconds`. A child that used less waits for a disk."""
_ERRORS: Mapping[str, type[Exception]] = {
    error.__name__: error for error in (UnreadableFile, NoVideo, ImplausibleHeader, RuntimeError)
}


class HeaderError(Exception):
    """An error: the headers of a file cannot be read within the limits."""


class HeaderReader:
    """A reader of files' headers in a child process, which is started when first needed and again after each death."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: ChildServer | None = None

    def measure(self, file: BinaryIO | Path, limits: RunLimits) -> Measured:
        """Return what `curation.media.probe.measure` returns, or raise what it raises.

        A path must be a link without neighbors. Raise HeaderError if a file exceeds the limits twice, the second time
        in a new child; OSError if it cannot be read; RunStopped if the child cannot be started.
        """
        with self._lock:
            try:
                return self._ask(file, limits)
            except HeaderError:
                return self._ask(file, limits)

    def _ask(self, file: BinaryIO | Path, limits: RunLimits) -> Measured:
        child = self._child or _start_child()
        self._child = None
        try:
            answer = _answer(child, file, limits)
        except BaseException:
            child.end()
            raise
        if answer["is_last"]:
            child.end()
        else:
            self._child = child
        if "measured" in answer:
            fields = answer["measured"]
            return Measured(**{**fields, "color": Color(**fields["color"])})
        if "fault" in answer:
            raise OSError(*answer["fault"])
        name, said = answer["raised"]
        raise _ERRORS[name](said)

    def close(self) -> None:
        if child := self._child:
            self._child = None
            child.end()

    def forget(self) -> None:
        """Drop the child after a fork: it belongs to the parent process."""
        self._lock = threading.Lock()
        self._child = None


def _start_child() -> ChildServer:
    """Start a child process. Raise RunStopped if that fails."""
    try:
        return ChildServer(header_child.__file__, environment=clean_python_environment())
    except OSError as error:
        raise RunStopped(
            f"{socket.gethostname()}: the process that reads headers cannot be started: {error}"
        ) from error


def _answer(child: ChildServer, file: BinaryIO | Path, limits: RunLimits) -> dict[str, Any]:
    """Return the child's answer. Raise HeaderError if the child dies before it answers or reads too often.

    Raise OSError if the file cannot be read.
    """
    served = None if isinstance(file, Path) else file
    request = {
        "path": str(file) if served is None else None,
        "size": 0 if served is None else served.seek(0, os.SEEK_END),
        "seconds": limits.header_seconds,
        "memory": limits.header_memory_mb << 20,
    }
    _send(child, json.dumps(request).encode(), limits)
    for _ in range(_MAX_READS):
        answer: dict[str, Any] = json.loads(_receive(child, limits))
        if "read" not in answer or served is None:
            return answer
        offset, size = answer["read"]
        served.seek(offset)
        _send(child, served.read(size), limits)
    raise HeaderError(f"its headers take more than {_MAX_READS:,} reads")


def _send(child: ChildServer, data: bytes, limits: RunLimits) -> None:
    try:
        child.pipe.send_bytes(data)
    except OSError:
        raise _death(child, limits) from None


def _receive(child: ChildServer, limits: RunLimits) -> bytes:
    used = -1.0
    while not child.pipe.poll(limits.clip_seconds):
        before, used = used, child.cpu_seconds()
        if used - before < _AT_WORK_SECONDS:  # a child at work is ended by the kernel when its time is up
            raise TimeoutError(errno.ETIMEDOUT, f"its disk has not answered in {limits.clip_seconds:g} s")
    try:
        return child.pipe.recv_bytes(_MAX_ANSWER_BYTES)
    except (EOFError, OSError):
        raise _death(child, limits) from None


def _death(child: ChildServer, limits: RunLimits) -> HeaderError:
    code = child.wait()
    if code == -signal.SIGXCPU:
        return HeaderError(f"its headers take more than {limits.header_seconds:g} s of CPU time")
    if code == header_child.OUT_OF_MEMORY:
        return HeaderError(f"its headers take more than {limits.header_memory_mb:,} MB of memory")
    ended = f"status {code}" if code >= 0 else signal.Signals(-code).name
    return HeaderError(f"its headers end the process that reads them: {ended}{child.last_stderr_line()}")


HEADER_READER = HeaderReader()
"""The header reader of this process."""

atexit.register(HEADER_READER.close)
os.register_at_fork(after_in_child=HEADER_READER.forget)
