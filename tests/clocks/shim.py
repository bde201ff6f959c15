"""Simulated machines: a process sees a simulated time, host name and boot.

The modules of the lock get replacements of `time`, `threading`, `psutil` and `socket`. Simulated time is `rate` times
as fast as real time. A machine's clocks are in a small file that its processes share and the test may change.
"""

from __future__ import annotations

import importlib
import importlib.util
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Protocol

import psutil

MODULES = tuple(
    f"nextscene.{name}"
    for name in (
        "common.clocks",
        "common.process_identity",
        "common.lease",
        "common.run_lock",
        "judge.run_ownership",
        "curation.run.unit_judge",
    )
)
VARIABLE = "SIMULATED_MACHINE"
_FORMAT = "5d"
_BEGUN_AT = 1_700_000_000.0


class Clocks(Protocol):
    """The clocks of a simulated machine, in place of the kernel's."""

    def wall(self) -> float: ...
    def awake(self) -> float: ...
    def boottime(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...
    def wait(self, event: threading.Event, seconds: float | None) -> bool: ...


class SharedClocks:
    """The clocks of a machine, in a file: offsets from simulated time, in seconds."""

    def __init__(self, file: Path) -> None:
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 0)

    @staticmethod
    def make(file: Path, rate: float, begun: float, wall: float = 0.0) -> SharedClocks:
        """Return new clocks, with a wall clock that is wrong by `wall` seconds.

        `begun` is the real monotonic time at which simulated time begins: clocks with the same `begun` agree.
        """
        file.write_bytes(struct.pack(_FORMAT, rate, begun, wall, 0.0, 0.0))
        return SharedClocks(file)

    def move(self, wall: float = 0.0, awake: float = 0.0, boottime: float = 0.0) -> None:
        """Add these seconds to the clocks."""
        rate, begun, *offsets = self._values()
        moved = [offset + by for offset, by in zip(offsets, (wall, awake, boottime), strict=True)]
        self._memory[:] = struct.pack(_FORMAT, rate, begun, *moved)

    def wall(self) -> float:
        return _BEGUN_AT + self._now() + self._values()[2]

    def awake(self) -> float:
        return 1_000.0 + self._now() + self._values()[3]

    def boottime(self) -> float:
        return 1_000.0 + self._now() + self._values()[4]

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / self._values()[0])

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        return threading.Event.wait(event, None if seconds is None else seconds / self._values()[0])

    def _now(self) -> float:
        rate, begun, *_ = self._values()
        return (time.monotonic() - begun) * rate

    def _values(self) -> tuple[float, ...]:
        return struct.unpack(_FORMAT, self._memory[:])


@dataclass(frozen=True)
class Machine:
    """The machine that a process sees. `container` is the namespace of its process numbers."""

    host: str
    boot_id: str
    container: str

    def installed(self, clocks: Clocks, put: Callable[[ModuleType, str, object], None] = setattr) -> None:
        """Make the lock's modules in this process see this machine."""
        for name in MODULES:
            if importlib.util.find_spec(name):
                self.put_into(importlib.import_module(name), clocks, put)

    def put_into(
        self, module: ModuleType, clocks: Clocks, put: Callable[[ModuleType, str, object], None] = setattr
    ) -> None:
        """Replace the clocks and names that one module uses by those of the machine."""
        for name, substitute in self._substitutes(clocks).items():
            if hasattr(module, name):
                put(module, name, substitute)

    def _substitutes(self, clocks: Clocks) -> Mapping[str, object]:
        by_number = {time.CLOCK_BOOTTIME: clocks.boottime, time.CLOCK_MONOTONIC: clocks.awake}
        own_time = SimpleNamespace(
            time=clocks.wall,
            monotonic=clocks.awake,
            sleep=clocks.sleep,
            CLOCK_BOOTTIME=time.CLOCK_BOOTTIME,
            CLOCK_MONOTONIC=time.CLOCK_MONOTONIC,
            clock_gettime=lambda number: by_number[number](),
        )

        class Event(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                return clocks.wait(self, timeout)

        class Process(psutil.Process):
            def create_time(self) -> float:
                """Return the start time. It moves with the wall clock, as the boot time is wall clock minus uptime."""
                return float(super().create_time()) + clocks.wall() - clocks.boottime()

        return {
            "time": own_time,
            "threading": _like(threading, Event=Event),
            "psutil": _like(psutil, Process=Process),
            "socket": SimpleNamespace(gethostname=lambda: self.host),
            "_boot_id": lambda: self.boot_id,
            "namespace": lambda kind: self.container if kind == "pid" else "time:[1]",
            "_pid_space": lambda: self.container,
        }


def _like(module: ModuleType, **changed: object) -> Any:
    return SimpleNamespace(**{**vars(module), **changed})


def of_environment() -> tuple[Machine, SharedClocks] | None:
    """Return the machine and clocks that the environment names; None if it names none."""
    if VARIABLE not in os.environ:
        return None
    file, host, boot_id, container = os.environ[VARIABLE].split("|")
    return Machine(host, boot_id, container), SharedClocks(Path(file))
