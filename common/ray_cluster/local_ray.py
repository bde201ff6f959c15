"""A Ray of our own, in a child process: it starts within a time limit and is ended in whatever state it is.

Its folder is below RAY_TMPDIR, else TMPDIR, and is deleted with it, even after a SIGKILL of either process.

Tested in tests/common/ray_cluster/test_cluster.py.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, TextIO

import psutil

from nextscene.common.environment import own_python_environment
from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.ray_cluster import start_child
from nextscene.common.ray_cluster.logs import last_error_line
from nextscene.common.ray_cluster.start_child import SERVERS, end_family, runs
from nextscene.common.ray_cluster.start_errors import StartFault, cluster_error, start_error
from nextscene.common.scratch import claim_temporary_folder, release_folder

_LOOPBACK = "127.0.0.1"
_OBJECT_STORE_BYTES = 100 << 20
_PREFIX = "ns-ray-"
_SOCKET_FOLDER_CHARACTERS = 27  # a socket's path has 107 at most; our folder and Ray add up to 80
_MIN_FREE_BYTES = 64 << 20
_IMPORT_SECONDS = 60.0
_START_SECONDS = 50.0
_ANSWER_SECONDS = 25.0
_END_SECONDS = 20.0
_POLL_SECONDS = 0.1
_ELSEWHERE = "free some, or set RAY_TMPDIR or TMPDIR to a folder that can be written to"
_TRIES = 2
_log = logging.getLogger(__name__)


class NotReady(Exception):
    """Ray, or the cluster, was not ready: the error that it raised, or a timeout."""

    def __init__(self, fault: StartFault | None, seconds: float = 0) -> None:
        super().__init__()
        self.fault = fault or StartFault("TimeoutError", f"nothing within {seconds:g} s")


class RayProcess:
    """One run of `start_child.py`."""

    def __init__(self, settings: Mapping[str, Any], output: Path | None = None, lock: TextIO | None = None) -> None:
        self._pipe, child_end = Pipe()
        held = [lock.fileno()] if lock else []
        with child_end, (output or Path(os.devnull)).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", start_child.__file__, str(child_end.fileno()), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[child_end.fileno(), *held],
                start_new_session=True,
                env=own_python_environment(),
            )

    def address(self, seconds: float, to_import: float = _IMPORT_SECONDS) -> str:
        """Return the cluster's address once it is ready. Raise NotReady if that takes `seconds` after the import."""
        self._next(to_import)
        return self._next(seconds)["address"]

    def _next(self, seconds: float) -> dict[str, str]:
        try:
            until = time.monotonic() + seconds
            while not self._pipe.poll(_POLL_SECONDS):  # short waits: a long one ignores signals of other threads
                if time.monotonic() > until:
                    raise NotReady(None, seconds)
            message: dict[str, str] = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError) as end:
            raise NotReady(StartFault("ChildProcessError", f"its process ended with {self._process.wait()}")) from end
        if message["state"] == "failed":
            raise NotReady(StartFault(message["kind"], message["text"], message["cause"]))
        return message

    def children(self) -> list[psutil.Process]:
        """Return the processes that it started itself."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children()
        return []

    def end(self, keep: bool = False) -> None:
        """End it with all processes that it started; `keep` leaves its folder."""
        if keep:
            with suppress(OSError):
                self._pipe.send_bytes(b"keep")
        self._pipe.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            end_family(psutil.Process(self._process.pid))
            self._process.wait()


def check_cluster(address: str) -> None:
    """Connect from a child process, since Ray may hang or abort. Raise UsageError, RunStopped."""
    process = RayProcess({"address": address})
    try:
        process.address(_ANSWER_SECONDS, to_import=_ANSWER_SECONDS)
    except NotReady as end:
        raise cluster_error(address, end.fault) from end
    finally:
        process.end()


@contextmanager
def own_ray(workers: int | None) -> Iterator[str]:
    """Start Ray on this machine alone, on loopback, with `workers` CPUs; yield its address. Raise UsageError,
    RunStopped.

    Its logs are kept if it does not start, or if one of its servers dies.
    """
    own = _started(workers)
    try:
        yield own.address
    finally:
        died = own.died()
        own.end(keep=died)
        if died:
            _log.warning("a process of Ray itself died; its logs are in %s", own.folder)


class _OwnRay:
    """A session of Ray and its folder. Raise UsageError, RunStopped if the folder cannot be made."""

    def __init__(self, workers: int | None) -> None:
        self.folder, self._lock = _folder()
        self._servers: list[psutil.Process] = []
        self.address = ""
        settings = {
            "address": "local",
            "num_cpus": workers,
            "include_dashboard": False,
            "_temp_dir": str(self.folder),
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_node_ip_address": _LOOPBACK,
        }
        self._process = RayProcess(settings, self.folder / "ray.log", self._lock)

    def start(self) -> None:
        """Raise NotReady."""
        self.address = self._process.address(_START_SECONDS)
        self._servers = [process for process in self._process.children() if process.name() in SERVERS]

    def died(self) -> bool:
        """Return whether one of its servers has ended though nobody ended it."""
        return not all(map(runs, self._servers))

    def end(self, keep: bool) -> None:
        self._process.end(keep)
        if keep:
            release_folder(self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _started(workers: int | None) -> _OwnRay:
    for tries_left in reversed(range(_TRIES)):
        own = _OwnRay(workers)
        try:
            own.start()
        except NotReady as end:
            own.end(keep=not tries_left)
            if not tries_left:
                _check_space(own.folder.parent)
                raise start_error(end.fault, str(own.folder), last_error_line(own.folder)) from end
            _log.info("Ray did not start, and is started again: %s", end.fault.line)
        except BaseException:
            own.end(keep=False)
            raise
        else:
            return own
    raise AssertionError


def _folder() -> tuple[Path, TextIO]:
    place = _place()
    try:
        place.mkdir(parents=True, exist_ok=True)
        _check_space(place)
        _check_file_size()
        return claim_temporary_folder(place, _PREFIX)
    except OSError as fault:
        raise RunStopped(f"cannot make Ray's folder in {place}: {fault.strerror}; {_ELSEWHERE}") from fault


def _place() -> Path:
    named = os.environ.get("RAY_TMPDIR")
    if named and len(named) > _SOCKET_FOLDER_CHARACTERS:
        raise UsageError(
            f"RAY_TMPDIR {named} is too long for the names of sockets; name a folder of at most"
            f" {_SOCKET_FOLDER_CHARACTERS} characters"
        )
    try:
        place = named or tempfile.gettempdir()
    except FileNotFoundError as fault:
        raise RunStopped(f"{fault.strerror}: none can be written to; {_ELSEWHERE}") from fault
    return Path(place if len(place) <= _SOCKET_FOLDER_CHARACTERS else "/tmp")  # noqa: S108 - in a folder of our own


def _check_space(place: Path) -> None:
    free = shutil.disk_usage(place).free
    if free < _MIN_FREE_BYTES:
        raise RunStopped(
            f"Ray needs {_MIN_FREE_BYTES >> 20} MB in {place}, where {free / 2**20:.0f} MB are left; {_ELSEWHERE}"
        )


def _check_file_size() -> None:
    """Raise RunStopped if the limit of file sizes is below the servers' shared memory: they would die silently."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and limit < _OBJECT_STORE_BYTES:
        raise RunStopped(
            f"Ray needs files of {_OBJECT_STORE_BYTES >> 20} MB, and this shell allows {limit / 2**20:.1f} MB;"
            " raise that by ulimit -f unlimited"
        )
