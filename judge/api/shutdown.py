"""The shutdown signal of a run: the first error that ends it stops all calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nextscene.judge.errors import JudgeStopped


class ShutdownSignal:
    """A signal that is triggered once, with a reason, and calls its listeners. For one event loop.

    `check_ownership` raises JudgeStopped once the run is gone.
    """

    def __init__(self, check_ownership: Callable[[], None] = lambda: None) -> None:
        self.check_ownership = check_ownership
        self.reason: Exception | None = None
        self._triggered = asyncio.Event()
        self._listeners: list[Callable[[Exception], None]] = []

    def add_listener(self, listener: Callable[[Exception], None]) -> None:
        """Call `listener` with the reason when the signal is triggered."""
        self._listeners.append(listener)

    def trigger(self, reason: Exception) -> None:
        """Stop all calls. The first reason counts."""
        if self.reason is None:
            self.reason = reason
            self._triggered.set()
            for listener in self._listeners:
                listener(reason)

    def check(self) -> None:
        """Raise the reason if the signal is triggered, or if the run is gone."""
        if self.reason is None:
            try:
                self.check_ownership()
            except JudgeStopped as stop:
                self.trigger(stop)
        if self.reason is not None:
            raise self.reason

    async def sleep(self, seconds: float) -> None:
        """Wait, or raise the reason as soon as the signal is triggered."""
        try:
            async with asyncio.timeout(seconds):
                await self._triggered.wait()
        except TimeoutError:
            return
        self.check()
