"""Ray's servers on this machine: which of them died or is suspended explains a failure of Ray.

Tested in tests/common/ray_cluster/test_supervisor.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

_SERVERS = {"gcs_server": "GCS server", "raylet": "raylet"}
_AGENTS = {"ray::DashboardAgent": "dashboard agent", "ray::RuntimeEnvAgent": "runtime env agent"}
"""A raylet ends itself when one of its agents has died."""

DEAD, PAUSED = str(psutil.STATUS_DEAD), str(psutil.STATUS_STOPPED)
_LOOK_FOR_AGENTS_SECONDS = 5.0


def servers_of(session: str, raylet_socket: str) -> tuple[tuple[str, int], ...]:
    """Return name and process number of the servers on this machine that a driver of a Ray session depends on.

    If several nodes run on one machine, only the raylet of the driver's own node counts.
    """
    marks, found = {"gcs_server": f"/{session}/", "raylet": f"={raylet_socket}\0"}, []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            mark = marks.get(process.name())
            if mark and mark in "\0".join([*process.cmdline(), ""]):
                found.append((_SERVERS[process.name()], process.pid))
    return tuple(found)


class RayProcesses:
    """The servers of the Ray that a run works on, and their agents, polled regularly."""

    def __init__(self, servers: Iterable[tuple[str, int]] = ()) -> None:
        self._known: dict[psutil.Process, str] = {}
        self._first_dead: list[str] = []
        self._paused: dict[str, None] = {}
        self._server_died = False
        self._agents_looked_for = float("-inf")
        for name, pid in servers:
            with suppress(psutil.NoSuchProcess):
                self._known[psutil.Process(pid)] = name

    def poll(self) -> None:
        """Note which have died, and which are or were suspended."""
        self._find_agents()
        dead = []
        for process, name in list(self._known.items()):
            shown = f"{name} (process {process.pid})"
            state = _state(process)
            if state == PAUSED:
                self._paused[shown] = None
            elif state == DEAD:
                del self._known[process]
                dead.append(shown)
                self._server_died |= name in _SERVERS.values()
        self._first_dead = self._first_dead or dead

    @property
    def server_died(self) -> bool:
        """Return whether a server has died that Ray cannot work without."""
        return self._server_died

    def cause(self) -> str:
        """Return why Ray fails, as a sentence, or "" if nothing can be seen on this machine.

        The first that died is the cause, since one takes others with it: all that were found dead in one poll.
        """
        self.poll()
        if self._first_dead:
            return f"Ray's {' and '.join(self._first_dead)} died"
        if self._paused:
            return f"Ray's {next(iter(self._paused))} was paused"
        return ""

    def _find_agents(self) -> None:
        """Find the agents: they start later than their raylet, or long before if the Ray is a user's."""
        if time.monotonic() - self._agents_looked_for < _LOOK_FOR_AGENTS_SECONDS:
            return
        self._agents_looked_for = time.monotonic()
        for process, name in list(self._known.items()):
            if name != "raylet":
                continue
            with suppress(psutil.Error):
                for child in process.children():
                    with suppress(psutil.Error):
                        title = (child.cmdline() or [""])[0].strip()
                        if title in _AGENTS and child not in self._known:
                            self._known[child] = _AGENTS[title]


def state_of(pid: int) -> str:
    """Return DEAD, PAUSED, or another state in which a process runs."""
    try:
        return _state(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return DEAD


def _state(process: psutil.Process) -> str:
    try:
        state = str(process.status()) if process.is_running() else DEAD
    except psutil.NoSuchProcess:
        return DEAD
    return DEAD if state == psutil.STATUS_ZOMBIE else state
