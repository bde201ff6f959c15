"""A call that may hang for ever, waited for within bounds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_GRACE_SECONDS = 10.0


def in_time(action: Callable[[], T], seconds: float) -> T:
    """Calls it in a thread, and returns or raises what it does. Raises TimeoutError when it takes longer.

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

    threading.Thread(target=call, daemon=True).start()
    try:
        in_time = ended.wait(seconds)
    except BaseException:
        ended.wait(_GRACE_SECONDS)
        raise
    if not in_time:
        raise TimeoutError
    if errors:
        raise errors[0]
    return results[0]
