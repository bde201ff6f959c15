"""The run lock: a file with a heartbeat that keeps a second driver out of OUT."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nextscene.common import clocks
from nextscene.common.errors import RunStopped
from nextscene.common.fence import DAMAGED, LOCK
from nextscene.common.lease import STALE_SECONDS, Holder, LeaseWatch, next_beat
from nextscene.common.process_identity import ProcessState
from nextscene.common.storage import Storage, StorageFault

BEAT_SECONDS = 10.0
CONFIRM_SECONDS = 45.0
"""Seconds after its last heartbeat that a run relies on its lease; others take the lock over only later."""

WAIT_SECONDS = 90.0
_POLL_SECONDS = 1.0
_MAX_GAP_SECONDS = 10.0
_MAX_RACES = 10
_UNWRITTEN = f"the heartbeat could not be written for {STALE_SECONDS:.0f} s"
_log = logging.getLogger(__name__)


def holder(out: Storage) -> Holder | None:
    """Return the holder of OUT's lock, dead or alive, or None if there is none.

    An empty lock has no holder: it was given up in a storage where it could not be deleted.
    """
    data = _read(out)
    return Holder.of(data) if data else None


def is_running(out: Storage) -> bool:
    """Return whether the run that holds OUT's lock is alive.

    If its process cannot be seen, and no clock gives the age of its heartbeat, wait for the next one.
    """
    watch = LeaseWatch()
    while True:
        content, age = _look(out)
        if not content:
            return False
        found, unchanged = Holder.of(content), watch.observe(content)
        if found.state is ProcessState.ALIVE or watch.has_changed:
            return True
        if found.has_expired(unchanged, age):
            return False
        if found.age is not None or age is not None:
            return True
        if unchanged > 1.5 * BEAT_SECONDS:
            return False
        clocks.sleep(_POLL_SECONDS)


def live_holder(out: Storage) -> Holder | None:
    """Return the holder of OUT's lock if it is alive by `is_running`, else None."""
    found = holder(out)
    return found if found and is_running(out) else None


class Heartbeat:
    """The heartbeat of a held lock. `check` is cheap; it is called wherever the run is about to change OUT."""

    def __init__(self, out: Storage, me: Holder, since: float) -> None:
        self.out = out.with_fence(LOCK, me.run_id)
        """OUT, written to only while this run holds the lock, by the driver and by its workers."""
        self._lock = out.with_anchor(LOCK)
        self._me = me
        self._last = since
        self._failing: float | None = None
        self._lost = ""
        self._beating = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name="run.lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise RunStopped if another run has taken the lock, or the heartbeat could not be written for long.

        After a suspend, a run checks its lock before it continues.
        """
        since = clocks.awake()
        while not self._lost and self._is_unconfirmed:
            if clocks.awake() - since > STALE_SECONDS:
                raise RunStopped(f"{_UNWRITTEN}: {self._lock.display_uri} does not answer in time")
            if self._beating.acquire(blocking=False):
                try:
                    self._beat()
                finally:
                    self._beating.release()
            if not self._lost and self._is_unconfirmed:
                clocks.sleep(_POLL_SECONDS)
        if self._lost:
            raise RunStopped(self._lost)

    def end(self) -> None:
        """Release the lock. If that fails, the lock is that of a dead run, and the next run takes it over."""
        self._stop.set()
        self._thread.join()
        if not self._lost:
            try:
                if (mine := self._mine()) is not None:
                    self._lock.delete_if_equal(LOCK, mine)
            except StorageFault as fault:
                _log.info("run.lock stays behind: %s", fault)

    @property
    def _is_unconfirmed(self) -> bool:
        return clocks.elapsed() - self._last > CONFIRM_SECONDS

    def _live(self) -> None:
        while not self._lost and not clocks.wait(self._stop, BEAT_SECONDS):
            with self._beating:
                self._beat()

    def _beat(self) -> None:
        """Write a heartbeat. Call it in one thread at a time."""
        begun = clocks.elapsed()
        try:
            self._me = next_beat(self._me)
            mine = self._mine()
            if mine is None or not self._lock.compare_and_swap(LOCK, mine, self._me.to_bytes()):
                self._lost = f"run.lock of {self._lock.display_uri} {describe_loss(self._lock)}; this run stops"
            elif not self._lock.has_conditional_writes and clocks.elapsed() - begun >= STALE_SECONDS:
                # Another run may have taken the lock meanwhile, and this heartbeat replaced its content.
                self._lost = f"this run was stopped while it wrote its heartbeat to {self._lock.display_uri}"
            self._last, self._failing = begun, None
        except StorageFault as fault:
            _log.warning("heartbeat: %s", fault)
            if self._failing is None:
                self._failing = clocks.awake()
            elif clocks.awake() - self._failing > STALE_SECONDS:
                self._lost = f"{_UNWRITTEN}: {fault}"

    def _mine(self) -> bytes | None:
        """Return the content of the lock, or None if it is not this run's."""
        data = _read(self._lock)
        return data if data and Holder.of(data).run_id == self._me.run_id else None


@contextmanager
def hold_lock(out: Storage, run_id: str, wait_seconds: float = WAIT_SECONDS) -> Iterator[Heartbeat]:
    """Hold the lock of OUT for the block. Take it over from a dead run; wait for one that may live on another host.

    Raise RunStopped at once if its process is seen to live here, else if it still holds OUT after `wait_seconds`.
    """
    heartbeat = Heartbeat(out, *_acquire(out, run_id, wait_seconds))
    try:
        yield heartbeat
    finally:
        heartbeat.end()


def describe_loss(out: Storage) -> str:
    """Return what happened to a lock that was held: who has it now, or that it is gone or damaged."""
    now = holder(out)
    if now is None:
        return "is gone: is the disk mounted? Did another run end it?"
    if now.is_unreadable:
        return DAMAGED
    return f"was taken by another run, on {now.host}, process {now.pid}"


def _acquire(out: Storage, run_id: str, wait_seconds: float) -> tuple[Holder, float]:
    """Take the lock; return its content and the time since which it is held."""
    watch, has_warned = LeaseWatch(_MAX_GAP_SECONDS), False
    races = 0
    while races < _MAX_RACES:
        since, me = clocks.elapsed(), Holder.me(run_id)
        if out.create(LOCK, me.to_bytes()):
            return me, since
        before, store_age = _look(out)
        other = Holder.of(before) if before else None
        if before is None:
            races += 1
        elif other is None or other.has_expired(watch.observe(before), store_age):
            if out.take_over(LOCK, before, me.to_bytes()):
                return me, since
            races += 1
        elif other.state is ProcessState.ALIVE or watch.watched >= wait_seconds:
            raise RunStopped(_why_refused(out, other, watch))
        else:
            if not has_warned:
                _log.warning(
                    "%s: a run on %s, process %s, holds its lock; waiting up to %.0f s for its end",
                    out.display_uri,
                    other.host,
                    other.pid,
                    wait_seconds,
                )
                has_warned = True
            clocks.sleep(_POLL_SECONDS)
    raise RunStopped(f"{out.display_uri}: several runs are starting there at once; start one")


def _why_refused(out: Storage, other: Holder, watch: LeaseWatch) -> str:
    who = f"{out.display_uri}: a run on {other.host}, process {other.pid}, "
    if other.state is ProcessState.ALIVE or watch.has_changed:
        return f"{who}is at work there; wait for it, or stop it"
    return (
        f"{who}holds its lock, and was watched for {watch.watched:.0f} s only: whether it is dead is known after"
        f" {STALE_SECONDS:.0f} s without a heartbeat; let this one wait that long (limits.lock_wait_seconds)"
    )


def _look(out: Storage) -> tuple[bytes | None, float | None]:
    try:
        return out.read_with_age(LOCK)
    except FileNotFoundError:
        return None, None


def _read(out: Storage) -> bytes | None:
    try:
        return out.read(LOCK)
    except FileNotFoundError:
        return None
