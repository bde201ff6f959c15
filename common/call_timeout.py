"""A call that may hang for ever, waited for within bounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_GRACE_SECONDS = 10.0
_LOOK_SECONDS = 0.1


def call_with_timeout(action: Callable[[], T], seconds: float) -> T:
    """Call it in a thread, and returns or raises what it does. Raise TimeoutError when it takes longer.

    Where the wait is interrupted by a signal, the call is given a few seconds to end first.
    """
    ended = threading.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            errors.append(error)
        finally:
            ended.set()

    try:
        threading.Thread(target=call, daemon=True).start()
        _wait(ended, seconds)
    except BaseException:
        _wait(ended, _GRACE_SECONDS)
        raise
    if not ended.is_set():
        raise TimeoutError
    if errors:
        raise errors[0]
    return results[0]


def _wait(ended: threading.Event, seconds: float) -> None:
    """In short waits: a signal that another thread raises would not end a long one."""
    until = time.monotonic() + seconds
    while not ended.wait(_LOOK_SECONDS) and time.monotonic() < until:
        pass
