"""The messages between supervisor and driver process, and the interfaces of their work.

Tested in tests/common/ray_cluster/test_supervisor.py.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol


class ToSupervisor(Protocol):
    """The calls that a request makes regularly while it works."""

    def check(self) -> None:
        """Raise RunStopped once the work must end."""

    def tick(self, *progress: Any) -> None:
        """Report progress, in whatever terms the caller of `supervise` understands."""


class RayRequest(Protocol):
    """A piece of work on Ray, picklable; `workers`, `address` and `training` are those of `cluster.connected`."""

    @property
    def workers(self) -> int | None: ...

    @property
    def address(self) -> str | None: ...

    @property
    def training(self) -> bool: ...

    @property
    def stop_seconds(self) -> float:
        """Return how long it may take to end after it was asked to stop."""

    def work(self, supervisor: ToSupervisor) -> Any:
        """Do the work, in a process that is connected, and return its result."""


@dataclass(frozen=True)
class Stop:
    """To the driver: stop the work in order, for this reason."""

    reason: str


@dataclass(frozen=True)
class Leave:
    """To the driver: end now, as after an interrupt."""


@dataclass(frozen=True)
class Connected:
    """Ray is ready. `processes` are its servers on this machine, each with name and process number."""

    processes: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Moved:
    """Progress of the work, as the request reported it."""

    progress: tuple[Any, ...]


@dataclass(frozen=True)
class Alive:
    """The driver process runs. Its main thread has waited in one call of Ray for `in_ray_seconds`."""

    in_ray_seconds: float


@dataclass(frozen=True)
class ClusterAnswered:
    """The cluster's control service (GCS) has answered, and said whether this machine's node is alive."""

    node_is_alive: bool


@dataclass(frozen=True)
class Logged:
    """A log record with its text formatted."""

    record: logging.LogRecord


@dataclass(frozen=True)
class Printed:
    """Complete lines for `stream`, "stdout" or "stderr"."""

    stream: str
    lines: str


@dataclass(frozen=True)
class Ended:
    """The result of the request, or the error that ended it, with its traceback as text."""

    result: Any = None
    error: BaseException | None = None
    traceback: str = ""
