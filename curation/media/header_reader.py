"""Headers read in a child process with limits on CPU time and memory, as an untrusted file may hang or kill its reader.

Each process that reads headers has one such child, which is kept from file to file. The child has no credentials: files
that are not on a local disk are read for it.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from nextscene.common.child_server import ChildServer
from nextscene.curation.config import RunLimits
from nextscene.curation.media import child_loop, header_child
from nextscene.curation.media.child_pool import ChildDied, ChildPool, receive, send
from nextscene.curation.media.color import Color
from nextscene.curation.media.probe import ImplausibleHeader, Measured, NoVideo, UnreadableFile

_MAX_READS = 10_000
"""Limit for the reads of 64 KiB that one file may take if it is read for the child. Sound files take some dozens."""
_ERRORS: Mapping[str, type[Exception]] = {
    error.__name__: error for error in (UnreadableFile, NoVideo, ImplausibleHeader, RuntimeError)
}


class HeaderError(Exception):
    """An error: the headers of a file cannot be read within the limits."""


class HeaderReader:
    """A reader of files' headers in a child process, which is started when first needed and again after each death."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children = ChildPool(header_child.__file__, "the process that reads headers")

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
        try:
            answer = self._children.ask(lambda child: _answer(child, file, limits))
        except ChildDied as death:
            raise _header_error(death, limits) from None
        if "measured" in answer:
            fields = answer["measured"]
            return Measured(**{**fields, "color": Color(**fields["color"])})
        if "fault" in answer:
            raise OSError(*answer["fault"])
        name, said = answer["raised"]
        raise _ERRORS[name](said)

    def close(self) -> None:
        self._children.close()

    def forget(self) -> None:
        """Drop the child after a fork: it belongs to the parent process."""
        self._lock = threading.Lock()
        self._children.forget()


def _answer(child: ChildServer, file: BinaryIO | Path, limits: RunLimits) -> dict[str, Any]:
    """Return the child's answer. Raise ChildDied, HeaderError if it reads too often, OSError for an unreadable file."""
    served = None if isinstance(file, Path) else file
    request = {
        "path": str(file) if served is None else None,
        "size": 0 if served is None else served.seek(0, os.SEEK_END),
        "seconds": limits.header_seconds,
        "memory": limits.header_memory_mb << 20,
    }
    send(child, json.dumps(request).encode())
    for _ in range(_MAX_READS):
        answer: dict[str, Any] = json.loads(receive(child, limits))
        if "read" not in answer or served is None:
            return answer
        offset, size = answer["read"]
        served.seek(offset)
        send(child, served.read(size))
    raise HeaderError(f"its headers take more than {_MAX_READS:,} reads")


def _header_error(death: ChildDied, limits: RunLimits) -> HeaderError:
    if death.code == -signal.SIGXCPU:
        return HeaderError(f"its headers take more than {limits.header_seconds:g} s of CPU time")
    if death.code == child_loop.OUT_OF_MEMORY:
        return HeaderError(f"its headers take more than {limits.header_memory_mb:,} MB of memory")
    return HeaderError(f"its headers end the process that reads them: {death}")


HEADER_READER = HeaderReader()
"""The header reader of this process."""

atexit.register(HEADER_READER.close)
os.register_at_fork(after_in_child=HEADER_READER.forget)
