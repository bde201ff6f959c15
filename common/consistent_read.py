"""Reading files that a process at work replaces by others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_ATTEMPTS = 5

S = TypeVar("S")
T = TypeVar("T")


def read_consistently(list_files: Callable[[], S], read: Callable[[S], T]) -> T:
    """Return `read(list_files())`; list and read again if a listed file is gone and the list has changed since.

    Raise FileNotFoundError if the list has not changed, or after five attempts.
    """
    for _ in range(_ATTEMPTS - 1):
        listed = list_files()
        try:
            return read(listed)
        except FileNotFoundError:
            if list_files() == listed:
                raise
    return read(list_files())
