"""Handling of the signals that ask a command to end, from its first import to its exit."""

from __future__ import annotations

import atexit
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
"""Signals of terminals and schedulers; SIGUSR1 is Slurm's warning before the time limit."""


class StopSignal(KeyboardInterrupt):
    """A signal that arrived while a command was running."""


class _Phase(Enum):
    STARTING = 0
    WORKING = 1
    NOTING = 2
    ENDING = 3


class StopSignals:
    """The signal handler of this process. Its reaction depends on the phase:

    - STARTING, before the command begins: exit at once, since there is nothing to clean up.
    - WORKING: raise StopSignal. While that propagates, only SIGINT raises it again, to interrupt the cleanup.
    - NOTING, within `noted`: call `note` for the first signal and raise nothing. A later SIGINT raises StopSignal.
    - ENDING, as the process exits: ignore signals, except that SIGINT exits at once.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        """The number of the first signal, which determines the exit code."""
        self._phase = _Phase.STARTING
        self._raised: Callable[[], StopSignal | None] = lambda: None
        self._note: Callable[[str], None] = lambda _said: None

    def install(self) -> Mapping[signal.Signals, Any]:
        """Install the handler for the signals that this process does not ignore, and return the handlers before.

        A process started by `nohup`, or by a shell in the background, continues to ignore the signals that these make
        it ignore. Outside the main thread, do nothing and return an empty mapping.
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
        """Restore the handlers that `install` returned."""
        for number, handler in before.items():
            signal.signal(number, handler)

    def begin(self) -> None:
        """Enter the phase WORKING: from now on a signal raises StopSignal in the main thread."""
        self.first, self._raised = None, lambda: None
        self._phase = _Phase.WORKING

    def end(self) -> None:
        """Enter the phase ENDING: from now on signals raise nothing."""
        self._phase = _Phase.ENDING

    @contextmanager
    def noted(self, note: Callable[[str], None]) -> Iterator[None]:
        """Within this context, call `note` with the name of the first signal; raise StopSignal at a SIGINT after it.

        `note` runs between any two instructions of the main thread, so it must not print through a buffer.
        """
        self._note, self._phase = note, _Phase.NOTING
        try:
            yield
        finally:
            if self.first is None:  # otherwise the command is ending, and repeats of the signal must not raise
                self._phase = _Phase.WORKING

    @property
    def code(self) -> int:
        """The exit code of a command that was asked to end."""
        return INTERRUPTED if self.first in (None, signal.SIGINT) else STOPPED

    @property
    def words(self) -> str:
        """The first words of the line that reports why the command ended."""
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
        """Return a new StopSignal, and keep a weak reference to it.

        If other code swallows the exception, the reference dies and the next signal raises again. So no frame of its
        traceback may keep the exception in a variable: that cycle would keep it alive.
        """
        stop = StopSignal(self.words)
        self._raised = weakref.ref(stop)
        return stop


def _name(number: int | None) -> str:
    return signal.Signals(number or signal.SIGINT).name


def _leave_to_the_parent() -> None:
    """Reset the handlers in a forked child: the parent handles signals to the process group. SIGTERM ends the child."""
    for number in SIGNALS:
        if signal.getsignal(number) == STOPS._answer:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)


def _ignore_repeats() -> None:
    """Ignore repeated requests to end: in its last moments Python resets other handlers to the default."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        if signal.getsignal(number) == STOPS._answer:
            signal.signal(number, signal.SIG_IGN)


STOPS = StopSignals()
atexit.register(_ignore_repeats)
os.register_at_fork(after_in_child=_leave_to_the_parent)
