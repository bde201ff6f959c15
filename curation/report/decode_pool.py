"""A pool of child processes that decode pictures. An untrusted video may hang or kill one of them without harm."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue

from nextscene.common.child_server import ChildServer
from nextscene.common.environment import clean_python_environment, storage_environment
from nextscene.curation.config import RunLimits
from nextscene.curation.report.filmstrips import Filmstrip, FilmstripTask

_MAX_WORKERS = 4
_SLACK_SECONDS = 10.0


def decode_all(tasks: Sequence[FilmstripTask], limits: RunLimits) -> list[Filmstrip]:
    """Return a strip for each task, in order. Each task has the time and memory that the limits give a clip."""
    if not tasks:
        return []
    count = min(_MAX_WORKERS, os.cpu_count() or 1, len(tasks))
    workers: SimpleQueue[_Worker] = SimpleQueue()

    def one(task: FilmstripTask) -> Filmstrip:
        worker = workers.get()
        try:
            return worker.decode(task)
        finally:
            workers.put(worker)

    environment = clean_python_environment() if all(task.is_local for task in tasks) else storage_environment()
    with _workers(count, limits, environment) as opened, ThreadPoolExecutor(count) as threads:
        for worker in opened:
            workers.put(worker)
        try:
            return list(threads.map(one, tasks))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            for worker in opened:
                worker.stop()
            raise


@contextmanager
def _workers(count: int, limits: RunLimits, environment: Mapping[str, str]) -> Iterator[list[_Worker]]:
    workers = [_Worker(limits, environment) for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.close()


class _Worker:
    """One child process, started when first needed and again after each death."""

    def __init__(self, limits: RunLimits, environment: Mapping[str, str]) -> None:
        self._limits = limits
        self._environment = environment
        self._child: ChildServer | None = None

    def decode(self, task: FilmstripTask) -> Filmstrip:
        try:
            self._child = self._child or self._open()
            line = self._child.pipe
            line.send(task)
            if line.poll(self._limits.clip_seconds + _SLACK_SECONDS):  # ffmpeg's own limit ends it earlier
                strip: Filmstrip = line.recv()
                return strip
            why = "decoding took too long"
        except (EOFError, OSError):
            why = "it killed the process that decoded it"
        self.close()
        return Filmstrip(missing=why)

    def _open(self) -> ChildServer:
        memory = self._limits.clip_memory_mb << 20
        return ChildServer(__file__, str(memory), environment=self._environment)

    def stop(self) -> None:
        """End the current task at once. Called from another thread."""
        if child := self._child:
            child.kill()

    def close(self) -> None:
        if child := self._child:
            self._child = None
            child.end()


def _serve(line: Connection, memory: int) -> None:
    """Decode until the parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles an interrupt
    with suppress(ValueError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with suppress(EOFError, OSError):
        line.send_bytes(b"ready")
        while True:
            task: FilmstripTask = line.recv()
            try:
                strip = task.make()
            except MemoryError:
                strip = Filmstrip(missing="it takes more memory than a clip may")
            line.send(strip)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
