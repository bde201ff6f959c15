"""The clocks that leases are measured by. Clocks of two machines are never compared.

Tested in tests/common/test_run_lock.py.
"""

from __future__ import annotations

import threading
import time

_SINCE_BOOT = getattr(
    time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC
)  # the monotonic clock of macOS runs during a suspend


def utc_seconds() -> float:
    """Return the time of day, for people only: it may be wrong, and it may be set."""
    return time.time()


def awake() -> float:
    """Return the monotonic clock, which stops while the machine is suspended. All processes of one kernel share it."""
    return time.monotonic()


def elapsed() -> float:
    """Return the clock since boot, which runs while the machine is suspended."""
    return time.clock_gettime(_SINCE_BOOT)


def sleep(seconds: float) -> None:
    """Sleep for `seconds`."""
    time.sleep(seconds)


def wait(event: threading.Event, seconds: float) -> bool:
    """Wait for the event, `seconds` at most; return whether it was set."""
    return event.wait(seconds)
