"""A call with a timeout, for functions that may hang.

Tested in tests/common/ray_cluster/test_cluster.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_GRACE_SECONDS = 10.0
_LOOK_SECONDS = 0.1


def call_with_timeout(action: Callable[[], T], seconds: float) -> T:
    """Call `action` in a thread, and return its result or raise its error. Raise TimeoutError after `seconds`.

    If a signal interrupts the wait, the call still has ten seconds to end.
    """
    ended = threading.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
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
    """Wait in short steps: a signal that arrives in another thread does not end a long wait."""
    until = time.monotonic() + seconds
    while not ended.wait(_LOOK_SECONDS) and time.monotonic() < until:
        pass
