"""A Python program of ours that runs beside this process and answers its requests through a pipe."""

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
    """One run of a program: `python SCRIPT DESCRIPTOR ARGUMENTS…`, the descriptor being its end of the pipe.

    Its first message says that it is ready: what it takes to start counts against no request. It must end when the pipe
    is closed. Raise ChildProcessError for one that does not start.
    """

    def __init__(self, script: str, *arguments: str, environment: Mapping[str, str]) -> None:
        self.line, theirs = Pipe()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", script, str(theirs.fileno()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=environment,
            )
        with suppress(EOFError, OSError):
            if self.line.poll(_START_SECONDS):
                self.line.recv_bytes()
                return
        said = self.last_words()
        self.end()
        raise ChildProcessError(f"{script} does not start{said}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def cpu_seconds(self) -> float:
        """What it has used until now."""
        used = psutil.Process(self._process.pid).cpu_times()
        return float(used.user + used.system)

    def death(self) -> int:
        """Wait for its end and return its exit status, negative for a signal."""
        self.line.close()
        return self._process.wait()

    def last_words(self) -> str:
        """The last line that it wrote to stderr, as the end of a sentence."""
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _EVIDENCE_BYTES))
        lines = self._errors.read().decode("utf-8", "replace").splitlines()
        return f"; {lines[-1]}" if lines else ""

    def kill(self) -> None:
        """Also from another thread."""
        self._process.kill()

    def end(self) -> None:
        self.line.close()
        self.kill()
        self._process.wait()
        self._errors.close()
