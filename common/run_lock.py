"""The lock that keeps a second driver out of OUT: a file with a heartbeat."""

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
"""So long after its last heartbeat a run still counts on its lease, which others take from it later."""

WAIT_SECONDS = 90.0
_LOOK_SECONDS = 1.0
_MOST_GAP_SECONDS = 10.0
_RACES = 10
_UNWRITTEN = f"the heartbeat could not be written for {STALE_SECONDS:.0f} s"
_log = logging.getLogger(__name__)


def holder(out: Storage) -> Holder | None:
    """Who holds OUT's lock, dead or alive. An empty one was given up where it could not be deleted."""
    data = _read(out)
    return Holder.of(data) if data else None


def is_running(out: Storage) -> bool:
    """Return whether the run that holds OUT's lock is alive.

    Where its process cannot be seen, and no clock tells the age of its heartbeat, the next one is waited for.
    """
    watch = LeaseWatch()
    while True:
        content, age = _look(out)
        if not content:
            return False
        found, unchanged = Holder.of(content), watch.look(content)
        if found.state is ProcessState.ALIVE or watch.has_changed:
            return True
        if found.is_over(unchanged, age):
            return False
        if found.age is not None or age is not None:
            return True
        if unchanged > 1.5 * BEAT_SECONDS:
            return False
        clocks.sleep(_LOOK_SECONDS)


def live_holder(out: Storage) -> Holder | None:
    """Who holds OUT's lock and is alive, seen as `is_running` does."""
    found = holder(out)
    return found if found and is_running(out) else None


class Heartbeat:
    """The beating of a held lock. `check` is cheap and is called wherever the run is about to change OUT."""

    def __init__(self, out: Storage, me: Holder, since: float) -> None:
        self.out = out.with_fence(LOCK, me.run_id)
        """OUT, into which is written only while this run holds the lock: by the driver and by its workers."""
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
        """Raise RunStopped when another run has taken the lock, or the heartbeat could not be written for long.

        A run that was stopped, as its machine was suspended, looks at its lock before it goes on.
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
                clocks.sleep(_LOOK_SECONDS)
        if self._lost:
            raise RunStopped(self._lost)

    def end(self) -> None:
        """Give the lock up. If that fails, it is a dead run's: the next takes it over."""
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
        """To be called by one thread at a time."""
        begun = clocks.elapsed()
        try:
            self._me = next_beat(self._me)
            mine = self._mine()
            if mine is None or not self._lock.compare_and_swap(LOCK, mine, self._me.to_bytes()):
                self._lost = f"run.lock of {self._lock.display_uri} {describe_loss(self._lock)}; this run steps back"
            elif not self._lock.has_conditional_writes and clocks.elapsed() - begun >= STALE_SECONDS:
                # Another may have taken the lock in the middle, and this heartbeat have replaced what it wrote.
                self._lost = f"this run was stopped while it wrote its heartbeat to {self._lock.display_uri}"
            self._last, self._failing = begun, None
        except StorageFault as fault:
            _log.warning("heartbeat: %s", fault)
            if self._failing is None:
                self._failing = clocks.awake()
            elif clocks.awake() - self._failing > STALE_SECONDS:
                self._lost = f"{_UNWRITTEN}: {fault}"

    def _mine(self) -> bytes | None:
        """What the lock holds; None if that is not this run."""
        data = _read(self._lock)
        return data if data and Holder.of(data).run_id == self._me.run_id else None


@contextmanager
def hold_lock(out: Storage, run_id: str, wait_seconds: float = WAIT_SECONDS) -> Iterator[Heartbeat]:
    """Hold OUT. Takes over from a dead run; one that may live on another host is waited for.

    Raise RunStopped at once for a run that is seen to live here, else when it still holds OUT after `wait_seconds`.
    """
    heartbeat = Heartbeat(out, *_taken(out, run_id, wait_seconds))
    try:
        yield heartbeat
    finally:
        heartbeat.end()


def describe_loss(out: Storage) -> str:
    """Return what has become of a lock that was held: who has it now, or that it is gone or damaged."""
    now = holder(out)
    if now is None:
        return "is gone: is the disk mounted? Did another run end it?"
    if now.is_unreadable:
        return DAMAGED
    return f"was taken by another run, on {now.host}, process {now.pid}"


def _taken(out: Storage, run_id: str, wait_seconds: float) -> tuple[Holder, float]:
    """Return what was written into the lock, and since when it is held."""
    watch, told = LeaseWatch(_MOST_GAP_SECONDS), False
    races = 0
    while races < _RACES:
        since, me = clocks.elapsed(), Holder.me(run_id)
        if out.create(LOCK, me.to_bytes()):
            return me, since
        before, store_age = _look(out)
        other = Holder.of(before) if before else None
        if before is None:
            races += 1
        elif other is None or other.is_over(watch.look(before), store_age):
            if out.take_over(LOCK, before, me.to_bytes()):
                return me, since
            races += 1
        elif other.state is ProcessState.ALIVE or watch.watched >= wait_seconds:
            raise RunStopped(_kept_out(out, other, watch))
        else:
            if not told:
                _log.warning(
                    "--out %s: a run on %s, process %s, holds it; for up to %.0f s it is waited for that it ends or"
                    " is found dead",
                    out.display_uri,
                    other.host,
                    other.pid,
                    wait_seconds,
                )
                told = True
            clocks.sleep(_LOOK_SECONDS)
    raise RunStopped(f"--out {out.display_uri}: several runs are starting there at once; start one")


def _kept_out(out: Storage, other: Holder, watch: LeaseWatch) -> str:
    who = f"--out {out.display_uri}: a run on {other.host}, process {other.pid}, "
    if other.state is ProcessState.ALIVE or watch.has_changed:
        return f"{who}is at work there; wait for it, or stop it"
    return (
        f"{who}holds it, and was watched for {watch.watched:.0f} s only: whether it is dead is known after"
        f" {STALE_SECONDS:.0f} s without a heartbeat; let this one wait for so long, by --limits.lock-wait-seconds"
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
