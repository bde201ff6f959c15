"""The signals that ask a command to end, and the one place that answers them, from the first import to the exit."""

from __future__ import annotations

import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from types import FrameType
from typing import Any

STOPPED, INTERRUPTED = 3, 130

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""What a terminal sends, and what schedulers do; SIGUSR1 is Slurm's warning before the time is up."""


class StopSignal(KeyboardInterrupt):
    """A signal that came while a command was at work."""


class _Phase(Enum):
    STARTING = 0
    WORKING = 1
    NOTING = 2
    ENDING = 3


class StopSignals:
    """How this process answers signals, by what it is doing.

    Before the command begins there is nothing to end in order. While it works, a signal raises StopSignal. Once that is
    on its way, only SIGINT raises it again, to cut short what the end is at. While it notes, nothing is raised for the
    first signal. As the process exits, signals are passed over, but SIGINT has it exit at once.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        """The number of the signal that came first, which decides the exit code."""
        self._phase = _Phase.STARTING
        self._raised: Callable[[], StopSignal | None] = lambda: None
        self._note: Callable[[str], None] = lambda _said: None

    def install(self) -> Mapping[signal.Signals, Any]:
        """Answer the signals that were not ignored when this process was started. Returns who answered them before.

        A process that was started by `nohup`, or by a shell in the background, goes on ignoring what these have it
        ignore.
        """
        if threading.current_thread() is not threading.main_thread():
            return {}
        known = {number: signal.getsignal(number) for number in SIGNALS}
        replaced = {number: old for number, old in known.items() if old not in (None, signal.SIG_IGN, self._answer)}
        for number in replaced:
            signal.signal(number, self._answer)
        return replaced

    @staticmethod
    def restore(before: Mapping[signal.Signals, Any]) -> None:
        """Give the signals back to those who answered them before `install`."""
        for number, handler in before.items():
            signal.signal(number, handler)

    def begin(self) -> None:
        """From now on a signal raises StopSignal in the main thread."""
        self.first, self._raised = None, lambda: None
        self._phase = _Phase.WORKING

    def end(self) -> None:
        """From now on nothing is raised any more."""
        self._phase = _Phase.ENDING

    @contextmanager
    def noted(self, note: Callable[[str], None]) -> Iterator[None]:
        """Meanwhile the first signal calls `note` with its name and raises nothing; a SIGINT after it raises.

        `note` runs between any two instructions of the main thread, so it must not print through a buffer.
        """
        self._note, self._phase = note, _Phase.NOTING
        try:
            yield
        finally:
            if self.first is None:  # else the end has begun, and others of the same signal are no reason to raise
                self._phase = _Phase.WORKING

    @property
    def code(self) -> int:
        """The exit code of a command that was asked to end."""
        return INTERRUPTED if self.first in (None, signal.SIGINT) else STOPPED

    @property
    def words(self) -> str:
        """What the line about the end begins with."""
        return "interrupted" if self.first in (None, signal.SIGINT) else f"stopped by {_name(self.first)}"

    def _answer(self, number: int, _frame: FrameType | None) -> None:
        again = self.first is not None
        self.first = self.first or number
        if self._phase is _Phase.STARTING:
            os.write(2, f"error: {self.words}; nothing was begun\n".encode())
            os._exit(self.code)
        elif self._phase is _Phase.ENDING:
            if number == signal.SIGINT:
                os._exit(self.code)
        elif self._phase is _Phase.NOTING and not again:
            self._note(_name(number))
        elif number == signal.SIGINT or (self._phase is _Phase.WORKING and self._raised() is None):
            raise self._stop()

    def _stop(self) -> StopSignal:
        """Remembered weakly: where somebody else's code has swallowed it, the next signal raises it again.

        So it must not be a variable of a frame that it has in its own traceback, which would keep it for long.
        """
        stop = StopSignal(self.words)
        self._raised = weakref.ref(stop)
        return stop


def _name(number: int | None) -> str:
    return signal.Signals(number or signal.SIGINT).name


def _leave_to_the_parent() -> None:
    """In a forked child: a signal to the whole group is the parent's to answer. SIGTERM ends the child, as it would."""
    for number in SIGNALS:
        if signal.getsignal(number) == STOPS._answer:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)


STOPS = StopSignals()
os.register_at_fork(after_in_child=_leave_to_the_parent)
