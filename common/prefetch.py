"""Prefetching: many small files read in order, a few at a time, since each read of an object store takes long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

_AT_ONCE = 16


def prefetch_map(
    read: Callable[[A], B], items: Iterable[A], at_once: int = _AT_ONCE, held: int = _AT_ONCE
) -> Iterator[B]:
    """Yield `map(read, items)` with up to `at_once` concurrent reads.

    At most `held` items are being read, or have a result that is not yet taken.
    """
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(at_once) as readers:
        try:
            for item in items:
                waiting.append(readers.submit(read, item))
                if len(waiting) == held:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for unread in waiting:
                unread.cancel()
