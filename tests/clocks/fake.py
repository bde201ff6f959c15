"""Clocks that do not move until a test moves them, or the code under test sleeps."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.clocks.shim import Machine

HERE = Machine("here", "boot-here", "pid:[1]")


class FakeClocks:
    """A machine's clocks. `meanwhile` is called after each sleep, with the total number of seconds slept."""

    def __init__(self) -> None:
        self.wall_now, self.awake_now, self.boottime_now = 1_700_000_000.0, 500.0, 900.0
        self.slept = 0.0
        self.meanwhile: Callable[[float], None] = lambda _: None

    def installed(self, monkeypatch: pytest.MonkeyPatch, machine: Machine = HERE) -> None:
        machine.installed(self, monkeypatch.setattr)

    def pass_by(self, seconds: float) -> None:
        """Move all clocks forward."""
        self.wall_now += seconds
        self.awake_now += seconds
        self.boottime_now += seconds

    def suspend(self, seconds: float) -> None:
        """Move the clocks as a suspend of the machine does: the monotonic clock stops."""
        self.wall_now += seconds
        self.boottime_now += seconds

    def wall(self) -> float:
        return self.wall_now

    def awake(self) -> float:
        return self.awake_now

    def boottime(self) -> float:
        return self.boottime_now

    def sleep(self, seconds: float) -> None:
        self.pass_by(seconds)
        self.slept += seconds
        self.meanwhile(self.slept)

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        """Wait for the event without a timeout: a heartbeat's thread beats only when the test makes it."""
        return threading.Event.wait(event)
