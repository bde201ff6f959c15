"""Where pictures are developed: child processes, which may hang or die of a stranger's video without harm."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

from curation.config import Limits
from curation.report.strips import Strip, Task

_Child = tuple[BaseProcess, Connection]

_MOST_ROOMS = 4
_SLACK_SECONDS = 10.0


def develop(tasks: Sequence[Task], limits: Limits) -> list[Strip]:
    """A strip for each task, in order, within the limits' time and memory for each."""
    if not tasks:
        return []
    count = min(_MOST_ROOMS, os.cpu_count() or 1, len(tasks))
    rooms: SimpleQueue[_Room] = SimpleQueue()

    def one(task: Task) -> Strip:
        room = rooms.get()
        try:
            return room.develop(task)
        finally:
            rooms.put(room)

    with _opened(count, limits) as opened, ThreadPoolExecutor(count) as threads:
        for room in opened:
            rooms.put(room)
        try:
            return list(threads.map(one, tasks))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            for room in opened:
                room.stop()
            raise


@contextmanager
def _opened(count: int, limits: Limits) -> Iterator[list[_Room]]:
    rooms = [_Room(limits) for _ in range(count)]
    try:
        yield rooms
    finally:
        for room in rooms:
            room.close()


class _Room:
    """One child process, started when first needed and anew after each death."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._child: _Child | None = None

    def develop(self, task: Task) -> Strip:
        try:
            _, line = self._child or self._open()
            line.send(task)
            if line.poll(self._limits.clip_seconds + _SLACK_SECONDS):  # ffmpeg's own bound comes first
                strip: Strip = line.recv()
                return strip
            why = "no picture of it was done in time"
        except (EOFError, OSError):
            why = "it ended the process that was to decode it"
        self.close()
        return Strip(missing=why)

    def _open(self) -> _Child:
        context = multiprocessing.get_context("spawn")  # a fork would inherit locks that other threads hold
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._limits.clip_memory_mb << 20), daemon=True)
        process.start()
        self._child = process, ours
        theirs.close()
        ours.recv()  # it is ready: what it takes to start counts against no clip
        return self._child

    def stop(self) -> None:
        """From another thread: what is being developed ends now."""
        if child := self._child:
            child[0].kill()

    def close(self) -> None:
        if self._child:
            process, line = self._child
            self._child = None
            line.close()
            process.kill()
            process.join()


def _serve(line: Connection, memory: int) -> None:
    """Develops until the parent hangs up, which it also does by dying."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle
    with suppress(ValueError):  # a lower bound is set already
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with suppress(EOFError, OSError):
        line.send("ready")
        while True:
            task: Task = line.recv()
            try:
                strip = task.strip()
            except MemoryError:
                strip = Strip(missing="it takes more memory than a clip may")
            line.send(strip)
