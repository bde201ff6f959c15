"""A bound on code that runs inside this process and may never return: a C library at work on a stranger's file."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2


@contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """Ends the process if the block is not done in time. The engine then takes it for what it is: a clip that kills.

    An exception would not do: a library that hangs may hold the interpreter's lock and never look for one.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
