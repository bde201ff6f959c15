"""A Python program of this package that runs beside this process and answers requests through a pipe.

Tested in tests/common/test_child_process.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe

import psutil

_START_SECONDS = 60.0
_EVIDENCE_BYTES = 4 << 10


class ChildServer:
    """One run of a program: `python SCRIPT DESCRIPTOR ARGUMENTS…`; the descriptor is its end of the pipe.

    Its first message means that it is ready, so that the time of its start counts against no request. It must end when
    the pipe is closed. Raise ChildProcessError if it does not start.
    """

    def __init__(self, script: str, *arguments: str, environment: Mapping[str, str]) -> None:
        self.pipe, child_end = Pipe()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        with child_end:
            self._process = subprocess.Popen(
                [sys.executable, "-P", script, str(child_end.fileno()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[child_end.fileno()],
                start_new_session=True,
                env=environment,
            )
        with suppress(EOFError, OSError):
            if self.pipe.poll(_START_SECONDS):
                self.pipe.recv_bytes()
                return
        reason = self.last_stderr_line()
        self.end()
        raise ChildProcessError(f"{script} does not start{reason}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used so far."""
        used = psutil.Process(self._process.pid).cpu_times()
        return float(used.user + used.system)

    def wait(self) -> int:
        """Close the pipe, wait for its end, and return its exit status, negative for a signal."""
        self.pipe.close()
        return self._process.wait()

    def last_stderr_line(self) -> str:
        """Return the last line that it wrote to stderr, as "; LINE", or ""."""
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _EVIDENCE_BYTES))
        lines = self._errors.read().decode("utf-8", "replace").splitlines()
        return f"; {lines[-1]}" if lines else ""

    def kill(self) -> None:
        """Kill it. May be called from another thread."""
        self._process.kill()

    def end(self) -> None:
        self.pipe.close()
        self.kill()
        self._process.wait()
        self._errors.close()
