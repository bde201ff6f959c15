"""The process that reads the headers of untrusted files. `header_reader.py` starts it with its end of a pipe:

    python header_child.py DESCRIPTOR

Each request is a JSON object: the limits, and `path`, which is null if the parent reads the file for the child. The
answer is a JSON object with `measured`, `raised` or `fault`. Any number of `read` requests may come before the answer;
the parent replies to each with bytes. The process ends when the parent closes the pipe or dies, and when a request
exceeds the limits.

Tested in tests/curation/media/test_header_reader.py.
"""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nextscene.common.sized_file import SizedFile
from nextscene.curation.media.probe import ImplausibleHeader, NoVideo, UnreadableFile, measure

BUFFER_BYTES = 64 << 10
OUT_OF_MEMORY = errno.ENOMEM
"""The exit status of a process that exceeded the memory limit."""
_EXPECTED = (UnreadableFile, NoVideo, ImplausibleHeader)


class _ServedFile(SizedFile):
    """A file that the parent process reads for this one."""

    def __init__(self, line: Connection, size: int) -> None:
        super().__init__(size)
        self._line = line

    def read_at(self, offset: int, size: int) -> bytes:
        wanted = min(size, BUFFER_BYTES)
        self._line.send_bytes(json.dumps({"read": [offset, wanted]}).encode())
        return self._line.recv_bytes(wanted)


def _answer(line: Connection, path: str | None, size: int) -> dict[str, Any]:
    """Measure one file and return the answer for the parent. Raise MemoryError."""
    try:
        if path is None:
            return {"measured": asdict(measure(io.BufferedReader(_ServedFile(line, size), BUFFER_BYTES)))}
        with open(path, "rb") as file:  # noqa: PTH123
            return {"measured": asdict(measure(file, Path(path)))}
    except _EXPECTED as error:
        return {"raised": [type(error).__name__, str(error)]}
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from error
        return {"fault": [error.errno, error.strerror or str(error)]}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error}"
        return {"raised": ["RuntimeError", said]}


def _serve(line: Connection) -> None:
    line.send_bytes(b"ready")
    at_start = _bytes_in_use()
    while True:
        try:
            request = json.loads(line.recv_bytes())
        except (EOFError, OSError):
            return
        _set_limits(request["seconds"], request["memory"])
        answer = _answer(line, request["path"], request["size"])
        # The memory that this file left over must be enough for the files after it.
        answer["is_last"] = _bytes_in_use() > (at_start + request["memory"]) // 2
        line.send_bytes(json.dumps(answer).encode())


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


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _serve(Connection(int(sys.argv[1])))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
