"""Child processes that read untrusted files: kept from file to file, with limits on CPU time and memory.

Tested in tests/curation/media/test_header_reader.py.
"""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable
from typing import Any

from nextscene.common.child_server import ChildServer
from nextscene.common.environment import clean_python_environment
from nextscene.common.errors import RunStopped
from nextscene.curation.config import RunLimits

_MAX_ANSWER_BYTES = 1 << 20
_AT_WORK_SECONDS = 0.1
"""Least CPU time of a working child within `limits.clip_seconds`. A child that used less waits for a disk."""


class ChildDied(Exception):
    """An error: a child ended before it answered. `code` is its exit status, negative for a signal.

    The message is that, with the last line on its stderr.
    """

    def __init__(self, child: ChildServer) -> None:
        self.code = child.wait()
        ended = f"status {self.code}" if self.code >= 0 else signal.Signals(-self.code).name
        super().__init__(f"{ended}{child.last_stderr_line()}")


class ChildPool:
    """The children of this process that run one script, as many as work at once. They have no credentials.

    A child is started when all others are at work, and again after a death.
    """

    def __init__(self, script: str, called: str) -> None:
        self._script = script
        self._called = called
        self._idle: list[ChildServer] = []

    def ask(self, talk: Callable[[ChildServer], dict[str, Any]]) -> dict[str, Any]:
        """Return the answer of a child, which `talk` gets from it. A child that has grown too much is ended.

        Raise what `talk` raises; then the child is ended too. Raise RunStopped if no child can be started.
        """
        try:
            child = self._idle.pop()
        except IndexError:
            child = self._start()
        try:
            answer = talk(child)
        except BaseException:
            child.end()
            raise
        if answer["is_last"]:
            child.end()
        else:
            self._idle.append(child)
        return answer

    def close(self) -> None:
        while self._idle:
            self._idle.pop().end()

    def forget(self) -> None:
        """Drop the children after a fork: they belong to the parent process."""
        self._idle = []

    def _start(self) -> ChildServer:
        try:
            return ChildServer(self._script, environment=clean_python_environment())
        except OSError as error:
            raise RunStopped(f"{socket.gethostname()}: {self._called} cannot be started: {error}") from error


def send(child: ChildServer, data: bytes) -> None:
    """Send a message to a child. Raise ChildDied."""
    try:
        child.pipe.send_bytes(data)
    except OSError:
        raise ChildDied(child) from None


def receive(child: ChildServer, limits: RunLimits) -> bytes:
    """Return the next message of a child. Raise ChildDied, or TimeoutError if its disk does not answer."""
    used = -1.0
    while not child.pipe.poll(limits.clip_seconds):
        before, used = used, child.cpu_seconds()
        if used - before < _AT_WORK_SECONDS:  # a child at work is ended by the kernel when its time is up
            raise TimeoutError(errno.ETIMEDOUT, f"its disk has not answered in {limits.clip_seconds:g} s")
    try:
        return child.pipe.recv_bytes(_MAX_ANSWER_BYTES)
    except (EOFError, OSError):
        raise ChildDied(child) from None
