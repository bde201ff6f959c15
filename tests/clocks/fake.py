"""Clocks that stand still until a test moves them, or until somebody sleeps."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.clocks.shim import Machine

HERE = Machine("here", "boot-here", "pid:[1]")


class FakeClocks:
    """A machine's clocks. `every` second of a sleep what is `meanwhile` to happen does."""

    def __init__(self) -> None:
        self.wall_now, self.awake_now, self.boottime_now = 1_700_000_000.0, 500.0, 900.0
        self.slept = 0.0
        self.meanwhile: Callable[[float], None] = lambda _: None

    def installed(self, monkeypatch: pytest.MonkeyPatch, machine: Machine = HERE) -> None:
        machine.installed(self, monkeypatch.setattr)

    def pass_by(self, seconds: float) -> None:
        """Time goes by."""
        self.wall_now += seconds
        self.awake_now += seconds
        self.boottime_now += seconds

    def suspend(self, seconds: float) -> None:
        """The machine was suspended for so long."""
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
        """A heartbeat's thread beats when the test has it do so, and not by itself."""
        return threading.Event.wait(event)
