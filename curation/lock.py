"""The lock that keeps a second driver out of OUT: a file with a heartbeat."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import psutil

from curation.errors import RunStopped, UsageMistake
from shards.layout import LOCK
from shards.storage import Storage, StorageFault

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who runs into OUT. `process_started` tells a living process from another with the same number."""

    run_id: str
    host: str
    pid_space: str
    pid: int
    process_started: float
    beat: float

    @staticmethod
    def me(run_id: str) -> Holder:
        here = socket.gethostname(), _pid_space()
        return Holder(run_id, *here, os.getpid(), psutil.Process().create_time(), time.time())

    @property
    def is_here(self) -> bool:
        """Whether its process would be seen from here."""
        return (self.host, self.pid_space) == (socket.gethostname(), _pid_space())

    @property
    def alive(self) -> bool:
        """On this host the process is looked for; elsewhere a heartbeat of the last minute counts as life."""
        if self.is_here:
            try:
                process = psutil.Process(self.pid)
                is_same = bool(abs(process.create_time() - self.process_started) < 1)
                return is_same and process.status() != psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                return False
        return time.time() - self.beat < STALE_SECONDS

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def of(data: bytes) -> Holder:
        """A lock cut short by a crash is held by nobody."""
        try:
            return Holder(**json.loads(data))
        except (ValueError, TypeError):
            return Holder("?", "?", "?", -1, 0.0, 0.0)


def holder(out: Storage) -> Holder | None:
    """Who holds OUT's lock, dead or alive. An empty one was given up where it could not be deleted."""
    data = _read(out)
    return Holder.of(data) if data else None


def _read(out: Storage) -> bytes | None:
    try:
        return out.read(LOCK)
    except FileNotFoundError:
        return None


def _pid_space() -> str:
    """Tells containers apart that share a host name but not their process numbers."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it is a link to no path
    except OSError:
        return ""


class Heartbeat:
    """The beating of a held lock. `check` is cheap and is called wherever the run is about to change OUT."""

    def __init__(self, out: Storage, me: Holder) -> None:
        self._out = out.anchored(LOCK)
        self._me = me
        self._lost = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run.lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises RunStopped when another run has taken the lock, or the heartbeat could not be written for long."""
        if self._lost:
            raise RunStopped(self._lost)

    def end(self) -> None:
        """Gives the lock up. If that fails, it is a dead run's: the next takes it over."""
        self._stop.set()
        self._thread.join()
        if not self._lost:
            try:
                if (mine := self._mine()) is not None:
                    self._out.give_up(LOCK, mine)
            except StorageFault as fault:
                _log.info("run.lock stays behind: %s", fault)

    def _mine(self) -> bytes | None:
        """What the lock holds; None if that is not this run."""
        data = _read(self._out)
        return data if data and Holder.of(data).run_id == self._me.run_id else None

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(BEAT_SECONDS):
            try:
                mine = self._mine()
                if mine is None or not self._out.swap(LOCK, mine, Holder.me(self._me.run_id).to_bytes()):
                    self._lost = f"run.lock of {self._out.shown} {self._end_of_it()}; this one steps back"
                    return
                last = time.monotonic()
            except StorageFault as fault:
                _log.warning("heartbeat: %s", fault)
                if time.monotonic() - last > STALE_SECONDS:
                    self._lost = f"the heartbeat could not be written for {STALE_SECONDS:.0f} s: {fault}"
                    return

    def _end_of_it(self) -> str:
        return (
            "was taken by another run" if _read(self._out) else "is gone: is the disk mounted? Did another run end it?"
        )


@contextmanager
def held(out: Storage, run_id: str) -> Iterator[Heartbeat]:
    """Holds OUT. Raises UsageMistake while a living run holds it; takes over from a dead one."""
    me = Holder.me(run_id)
    for _ in range(3):
        if out.create(LOCK, me.to_bytes()):
            break
        before = _read(out)
        other = Holder.of(before) if before else None
        if other is not None and other.alive:
            raise UsageMistake(
                f"--out {out.shown}: a run on {other.host}, process {other.pid}, is at work there;"
                " wait for it, or stop it"
            )
        if before is not None and out.take(LOCK, before, me.to_bytes()):
            break
    else:
        raise UsageMistake(f"--out {out.shown}: several runs are starting there at once; start one")
    heartbeat = Heartbeat(out, me)
    try:
        yield heartbeat
    finally:
        heartbeat.end()
