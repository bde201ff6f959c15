"""Clips of one unit at work side by side: each thread has a reader and a scratch folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from nextscene.common.prefetch import prefetch_map
from nextscene.common.scratch import scratch_folder
from nextscene.curation.sources.reader import SourceReader

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class ClipWorkspace:
    """Where one clip at a time is worked on."""

    reader: SourceReader
    scratch: Path


def side_by_side(
    reader: Callable[[Path], SourceReader], step: Callable[[A, ClipWorkspace], B], items: Iterable[A], at_once: int
) -> Iterator[B]:
    """Yield what `step` makes of each item, in order, `at_once` at a time; at most twice as many results are held.

    The heavy work is done by child processes, so threads are enough to keep that many cores busy. The first that raises
    ends it, once those that are under way have ended.
    """
    with ExitStack() as stack:
        benches: SimpleQueue[ClipWorkspace] = SimpleQueue()
        for _ in range(at_once):
            scratch = stack.enter_context(scratch_folder())
            benches.put(ClipWorkspace(reader(scratch), scratch))

        def at_a_bench(item: A) -> B:
            bench = benches.get()
            try:
                return step(item, bench)
            finally:
                benches.put(bench)

        yield from prefetch_map(at_a_bench, items, at_once, held=2 * at_once)
