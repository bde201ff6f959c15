"""What stands open while anything may be asked. Whoever meets the end of the run closes it, for all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nextscene.judge.errors import JudgeStopped


class ShutdownSignal:
    """Closes once, with a reason, and tells those who listen. For one event loop.

    `check_ownership` raises JudgeStopped once the run that asks is gone.
    """

    def __init__(self, check_ownership: Callable[[], None] = lambda: None) -> None:
        self.check_ownership = check_ownership
        self.reason: Exception | None = None
        self._triggered = asyncio.Event()
        self._listeners: list[Callable[[Exception], None]] = []

    def add_listener(self, listener: Callable[[Exception], None]) -> None:
        """`listener` is called with the reason when the gate closes."""
        self._listeners.append(listener)

    def trigger(self, reason: Exception) -> None:
        """From now on nothing is sent. The first reason counts."""
        if self.reason is None:
            self.reason = reason
            self._triggered.set()
            for listener in self._listeners:
                listener(reason)

    def check(self) -> None:
        """Raises the reason for which nothing may be sent."""
        if self.reason is None:
            try:
                self.check_ownership()
            except JudgeStopped as stop:
                self.trigger(stop)
        if self.reason is not None:
            raise self.reason

    async def sleep(self, seconds: float) -> None:
        """Waits for so long, or raises the reason as soon as the gate is closed."""
        try:
            async with asyncio.timeout(seconds):
                await self._triggered.wait()
        except TimeoutError:
            return
        self.check()
