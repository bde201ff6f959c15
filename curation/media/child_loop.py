"""The loop of a child process that reads untrusted files for `child_pool.py`, which gives it its end of a pipe.

Each request is a JSON object, with the limits `seconds` and `memory`; so is the answer. The process ends when the
parent closes the pipe or dies, and when a request exceeds the limits.

Tested in tests/curation/media/test_header_reader.py.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

OUT_OF_MEMORY = errno.ENOMEM
"""The exit status of a process that exceeded the memory limit."""

Answer = Callable[[Connection, dict[str, Any]], dict[str, Any]]
"""Answers a request. It may talk to the parent first, and raises MemoryError for a lack of memory."""


def serve(descriptor: int, answer: Answer) -> None:
    """Answer requests until the parent closes the pipe, whose end here has this descriptor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _serve(Connection(descriptor), answer)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _serve(line: Connection, answer: Answer) -> None:
    line.send_bytes(b"ready")
    at_start = _bytes_in_use()
    while True:
        try:
            request = json.loads(line.recv_bytes())
        except (EOFError, OSError):
            return
        _set_limits(request["seconds"], request["memory"])
        answered = answer(line, request)
        # The memory that this file left over must be enough for the files after it.
        answered["is_last"] = _bytes_in_use() > (at_start + request["memory"]) // 2
        line.send_bytes(json.dumps(answered).encode())


def _set_limits(seconds: float, memory: int) -> None:
    """Make the kernel end this process after `seconds` more of CPU time, and limit its memory to `memory` bytes."""
    most = {resource.RLIMIT_CPU: int(time.process_time() + seconds) + 1, resource.RLIMIT_AS: memory}
    for kind, soft in most.items():
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _bytes_in_use() -> int:
    """Return the size in bytes of the address space, which is what is limited; 0 if the system does not report it."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
            return int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:
        return 0
