"""The identity of a process, and whether it still runs.

Tested in tests/common/test_run_lock.py.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from pathlib import Path

import psutil

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
_STATE, _START = 0, 19  # indices of the fields after the name in /proc/PID/stat
_ENDED = frozenset("ZXx")


class ProcessState(Enum):
    """The state of a process, as far as it can be seen from here."""

    ALIVE = auto()
    ENDED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True)
class ProcessIdentity:
    """A process by its boot, its namespaces, its number and its start.

    Containers on one machine share the boot, but not the PID namespace; host names may repeat, and are for people.
    `start` is in ticks since the boot, never a time of day, which would move with the wall clock. Without /proc, as on
    macOS, `boot_id` is "", the host name is used in its place, and `start` is psutil's.
    """

    host: str
    pid: int
    boot_id: str
    pid_space: str
    time_space: str
    start: str

    @staticmethod
    def me() -> ProcessIdentity:
        return ProcessIdentity(
            socket.gethostname(), os.getpid(), boot_id(), namespace("pid"), namespace("time"), _start_of("self") or ""
        )

    @property
    def shares_kernel(self) -> bool:
        """Return whether its monotonic clock is that of this process."""
        return bool(self.boot_id) and (self.boot_id, self.time_space) == (boot_id(), namespace("time"))

    @property
    def state(self) -> ProcessState:
        """Return the state of the process; UNKNOWN if its number has no meaning in this boot and namespace."""
        if (self.boot_id, self.pid_space, self.time_space) != (boot_id(), namespace("pid"), namespace("time")):
            return ProcessState.UNKNOWN
        if not self.boot_id and self.host != socket.gethostname():
            return ProcessState.UNKNOWN
        try:
            if (start := _start_of(self.pid)) is not None:
                return ProcessState.ALIVE if start == self.start else ProcessState.ENDED
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return ProcessState.ENDED
        except PermissionError:
            pass
        return ProcessState.UNKNOWN  # it runs, and is hidden from this user


def boot_id() -> str:
    """Return the id of this boot of this machine, or "" if the system has none."""
    return _boot_id()


@lru_cache(maxsize=1)
def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def namespace(kind: str) -> str:
    """Return the id of a namespace of this process, such as "pid", or "" if the system has none."""
    try:
        return os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115 - it is a link to no path
    except OSError:
        return ""


def _start_of(pid: int | str) -> str | None:
    """Return when a process started, or None if that is unknown. Raise ProcessLookupError if it has ended."""
    if not _PROC.joinpath("self/stat").exists():
        return _start_by_psutil(None if pid == "self" else int(pid))
    if pid != "self" and not _proc_has_our_numbers():
        return None
    try:
        stat = _PROC.joinpath(str(pid), "stat").read_text(errors="replace")
    except (FileNotFoundError, PermissionError):
        return None  # ended, or hidden: the caller sends signal 0 to find out
    fields = stat.rpartition(")")[2].split()
    if fields[_STATE] in _ENDED:
        raise ProcessLookupError(pid)
    return fields[_START]


def _proc_has_our_numbers() -> bool:
    """Return whether /proc shows this process's own PID namespace, and not an outer one."""
    return os.readlink("/proc/self") == str(os.getpid())  # noqa: PTH115 - it is a link to a number


def _start_by_psutil(pid: int | None) -> str | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            raise ProcessLookupError(pid)
        return f"{process.create_time():.2f}"
    except psutil.NoSuchProcess as gone:
        raise ProcessLookupError(pid) from gone
    except psutil.AccessDenied:
        return None
