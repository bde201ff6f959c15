"""Reading many small files in order, a few of them at once: an object store takes its time over each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

_AT_ONCE = 16


def ahead(read: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """`map(read, items)`, with up to 16 reads under way; what is read and not yet taken is bounded by that too."""
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(_AT_ONCE) as readers:
        try:
            for item in items:
                waiting.append(readers.submit(read, item))
                if len(waiting) == _AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for unread in waiting:
                unread.cancel()
