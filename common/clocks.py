"""The clocks that leases are counted by. No clock of one machine is ever compared with that of another."""

from __future__ import annotations

import threading
import time

_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS has one, which goes on during a sleep


def utc_seconds() -> float:
    """Return the wall clock's time, which is for people alone: it may be wrong, and it may be set."""
    return time.time()


def awake() -> float:
    """Return seconds that stand still while the machine is suspended, the same in all processes under one kernel."""
    return time.monotonic()


def elapsed() -> float:
    """Return seconds that go on while the machine is suspended."""
    return time.clock_gettime(_SINCE_BOOT)


def sleep(seconds: float) -> None:
    """Do nothing for so long."""
    time.sleep(seconds)


def wait(event: threading.Event, seconds: float) -> bool:
    """Wait for the event, but no longer; return whether it came."""
    return event.wait(seconds)
