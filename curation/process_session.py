"""The processes of one session: what a process that leads it has started, also where the parents are gone."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil


def kill_session(leader: int) -> None:
    """Kill every process of the leader's session and their children, which may have sessions of their own, it last."""
    members = [process for process in psutil.process_iter() if process.pid != leader and _is_of(process.pid, leader)]
    children: list[psutil.Process] = []
    for member in members:
        with suppress(psutil.NoSuchProcess):
            children += member.children(recursive=True)
    for process in {*members, *children}:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    with suppress(ProcessLookupError):
        os.kill(leader, signal.SIGKILL)


def _is_of(pid: int, leader: int) -> bool:
    try:
        return os.getsid(pid) == leader
    except (ProcessLookupError, PermissionError):
        return False
