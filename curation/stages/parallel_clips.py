"""Parallel work on the clips of one unit: each thread has its own reader and scratch folder."""

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
    """The reader and scratch folder of one thread."""

    reader: SourceReader
    scratch: Path


def map_clips(
    reader: Callable[[Path], SourceReader], step: Callable[[A, ClipWorkspace], B], items: Iterable[A], at_once: int
) -> Iterator[B]:
    """Yield the result of `step` for each item, in order. `at_once` items are worked on in parallel.

    At most twice as many results wait in memory. Child processes do the heavy work, so threads are enough to keep that
    many cores busy. The first step that raises ends all, after the steps under way have ended.
    """
    with ExitStack() as stack:
        workspaces: SimpleQueue[ClipWorkspace] = SimpleQueue()
        for _ in range(at_once):
            scratch = stack.enter_context(scratch_folder())
            workspaces.put(ClipWorkspace(reader(scratch), scratch))

        def in_workspace(item: A) -> B:
            workspace = workspaces.get()
            try:
                return step(item, workspace)
            finally:
                workspaces.put(workspace)

        yield from prefetch_map(in_workspace, items, at_once, held=2 * at_once)
