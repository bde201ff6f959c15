"""The content of a lock file, and the end of the lease that it grants.

Tested in tests/common/test_run_lock.py.
"""

from __future__ import annotations

import json
import math
import socket
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psutil

from nextscene.common import clocks
from nextscene.common.process_identity import ProcessIdentity, ProcessState, namespace

STALE_SECONDS = 60.0
STORE_STALE_SECONDS = 2 * STALE_SECONDS
"""The limit by a store's own clock, whose times are whole seconds, and which may be set too."""

_NOBODY = "?"


@dataclass(frozen=True)
class Holder:
    """The holder of a lock. Each heartbeat increments `count`, so that the content changes.

    `awake` is the time of the heartbeat by the kernel's monotonic clock, `beat` by the wall clock, for people.
    `older_start` is the start of the process as older versions wrote it, which knew no boot ids.
    """

    run_id: str
    process: ProcessIdentity
    count: int = 0
    awake: float = 0.0
    beat: float = 0.0
    older_start: float | None = None

    @staticmethod
    def me(run_id: str, count: int = 0) -> Holder:
        return Holder(run_id, ProcessIdentity.me(), count, clocks.awake(), clocks.utc_seconds())

    @property
    def host(self) -> str:
        return self.process.host

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_unreadable(self) -> bool:
        """Return whether the lock contains what no run writes: it was cut short by a crash, or overwritten."""
        return self.run_id == _NOBODY

    @property
    def beat_text(self) -> str:
        """Return when its heartbeat was made, by the wall clock of its host."""
        try:
            return f"{datetime.fromtimestamp(self.beat, UTC):%Y-%m-%d %H:%M:%S} UTC"
        except (ValueError, OverflowError, OSError):
            return "unknown"

    @property
    def state(self) -> ProcessState:
        """Return whether its process runs, as far as that can be seen from here."""
        if self.is_unreadable:
            return ProcessState.ENDED
        return self.process.state if self.older_start is None else self._state_by_older_start()

    def has_expired(self, unchanged: float, store_age: float | None) -> bool:
        """Return whether its lease has expired.

        `unchanged` is the number of seconds that the lock was watched without a change; `store_age` is the number of
        seconds since it was written, by the store's own clock, if there is one. A process that is seen to run never
        loses its lease.
        """
        if (state := self.state) is not ProcessState.UNKNOWN:
            return state is ProcessState.ENDED
        ages = unchanged >= STALE_SECONDS, (self.age or 0.0) >= STALE_SECONDS, (store_age or 0.0) >= STORE_STALE_SECONDS
        return any(ages)

    @property
    def age(self) -> float | None:
        """Return the age of the heartbeat in seconds by the kernel's clock; None if it is another kernel's."""
        return clocks.awake() - self.awake if self.process.shares_kernel else None

    def _state_by_older_start(self) -> ProcessState:
        """Compare the older start, which moves with the wall clock: it can prove life, never death."""
        if (self.host, self.process.pid_space) != (socket.gethostname(), namespace("pid")):
            return ProcessState.UNKNOWN
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - (self.older_start or 0.0)) < 1
            return ProcessState.ALIVE if is_same and process.status() != psutil.STATUS_ZOMBIE else ProcessState.UNKNOWN
        except psutil.Error:
            return ProcessState.UNKNOWN

    def to_bytes(self) -> bytes:
        """Return the content of the lock file, which older versions can read too.

        They know these six fields, and take a lock with any other field for that of a dead run. They do not know this
        `pid_space`, take the run for one of another host, and go by `beat`.
        """
        process = self.process
        return json.dumps(
            {
                "run_id": self.run_id,
                "host": process.host,
                "pid": process.pid,
                "process_started": 0.0,
                "beat": self.beat,
                "pid_space": {
                    "boot_id": process.boot_id,
                    "pid_space": process.pid_space,
                    "time_space": process.time_space,
                    "start": process.start,
                    "count": self.count,
                    "awake": self.awake,
                },
            }
        ).encode()

    @staticmethod
    def of(data: bytes) -> Holder:
        """Return the holder that a lock file names. One cut short by a crash has no holder."""
        try:
            return _holder(json.loads(data))
        except (ValueError, TypeError, KeyError):
            return Holder(_NOBODY, ProcessIdentity(_NOBODY, -1, "", "", "", ""))


def _holder(value: dict[str, Any]) -> Holder:
    space = value["pid_space"]
    older = None if isinstance(space, dict) else float(value["process_started"])
    known = {"pid_space": space} if older is not None else space
    process = ProcessIdentity(
        value["host"],
        int(value["pid"]),
        known.get("boot_id", ""),
        known["pid_space"],
        known.get("time_space", ""),
        known.get("start", ""),
    )
    return Holder(value["run_id"], process, known.get("count", 0), known.get("awake", 0.0), float(value["beat"]), older)


class LeaseWatch:
    """A measurement of how long a lock was watched, and of how long it has not changed, in seconds.

    Between two readings at most `max_gap` seconds count: whatever suspended the watcher may have suspended the holder
    too.
    """

    def __init__(self, max_gap: float = math.inf) -> None:
        self.watched = self.unchanged = 0.0
        self.has_changed = False
        self._max_gap = max_gap
        self._content: bytes | None = None
        self._read_at = 0.0

    def observe(self, content: bytes) -> float:
        """Return the number of seconds that the lock has had this content."""
        now = clocks.awake()
        if self._content is not None:
            gap = min(now - self._read_at, self._max_gap)
            self.watched += gap
            self.unchanged += gap
        if content != self._content:
            self.has_changed = self.has_changed or self._content is not None
            self.unchanged = 0.0
        self._content, self._read_at = content, now
        return self.unchanged


def next_beat(holder: Holder) -> Holder:
    """Return the holder as its next heartbeat writes it."""
    return replace(holder, count=holder.count + 1, awake=clocks.awake(), beat=clocks.utc_seconds())
