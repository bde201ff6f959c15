"""What supervisor and driver process tell each other."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol


class ToSupervisor(Protocol):
    """What a request calls again and again as it works."""

    def check(self) -> None:
        """Raise RunStopped once the work is to end."""

    def tick(self, *progress: Any) -> None:
        """Report progress, in whatever terms the caller of `supervise` understands."""


class RayRequest(Protocol):
    """What is to be done on Ray. It pickles; `workers`, `address` and `training` are those of `cluster.connected`."""

    @property
    def workers(self) -> int | None: ...

    @property
    def address(self) -> str | None: ...

    @property
    def training(self) -> bool: ...

    @property
    def stop_seconds(self) -> float:
        """How long it may take to end once it is told to."""

    def work(self, supervisor: ToSupervisor) -> Any:
        """Do it, in a process that is connected, and return what it came to."""


@dataclass(frozen=True)
class Stop:
    """To the driver: end in order, for this reason."""

    reason: str


@dataclass(frozen=True)
class Leave:
    """To the driver: end now, as at an interrupt."""


@dataclass(frozen=True)
class Connected:
    """Ray is there. `processes` are its servers on this machine, name and process number."""

    processes: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Moved:
    """Progress of the work, as the request reported it."""

    progress: tuple[Any, ...]


@dataclass(frozen=True)
class Alive:
    """The driver process runs. Its work has been waiting in one call of Ray for so many seconds."""

    in_ray_seconds: float


@dataclass(frozen=True)
class ClusterAnswered:
    """The cluster's control service (GCS) has answered, and said whether it takes this machine's node for alive."""

    node_is_alive: bool


@dataclass(frozen=True)
class Logged:
    """A log record, its text made."""

    record: logging.LogRecord


@dataclass(frozen=True)
class Printed:
    """Whole lines for `stream`, "stdout" or "stderr"."""

    stream: str
    lines: str


@dataclass(frozen=True)
class Ended:
    """What the request came to, or the error that ended it, with its traceback as text."""

    result: Any = None
    error: BaseException | None = None
    traceback: str = ""
