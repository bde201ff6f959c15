"""The check that a judge still works for a live run that holds the lock of its output."""

from __future__ import annotations

from nextscene.common import clocks
from nextscene.common.fence import LOCK
from nextscene.common.lease import Holder, LeaseWatch
from nextscene.common.process_identity import ProcessState
from nextscene.common.run_lock import describe_loss
from nextscene.common.storage import Storage, StorageFault
from nextscene.judge.errors import JudgeStopped

_LOOK_SECONDS = 0.1
_READ_SECONDS = 2.0


class RunOwnershipCheck:
    """A check that stops the calls of a run that has died or lost its lock, so that nothing more is paid for.

    `check` is called before each question: it looks for the process ten times a second at most, and reads the lock
    every two seconds.
    """

    def __init__(self, out: Storage, run_id: str) -> None:
        self._out = out
        self._run_id = run_id
        self._watch = LeaseWatch()
        self._holder: Holder | None = None
        self._read = self._looked = float("-inf")

    def check(self) -> None:
        """Raise JudgeStopped with the cause."""
        now = clocks.elapsed()
        if now - self._read >= _READ_SECONDS:
            self._read_lock()
            self._read = now
        elif now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        if self._holder is not None and self._holder.state is ProcessState.ENDED:
            raise self._stopped(f"its process, {self._holder.pid} on {self._holder.host}, has ended")

    def _read_lock(self) -> None:
        """Raise JudgeStopped if the lock cannot be read, belongs to another run, or has not changed for too long."""
        try:
            content, store_age = self._out.read_with_age(LOCK)
        except FileNotFoundError:
            content, store_age = b"", None
        except StorageFault as fault:
            raise self._stopped(f"its lock cannot be read: {fault}") from fault
        found = Holder.of(content) if content else None
        if found is None or found.run_id != self._run_id:
            if found is None and self._holder is not None and self._holder.state is ProcessState.ENDED:
                return  # that it ended is the cause, and not that it gave its lock up
            raise self._stopped(f"its lock {describe_loss(self._out)}")
        self._holder = found
        if found.state is ProcessState.UNKNOWN and found.has_expired(self._watch.observe(content), store_age):
            raise self._stopped(
                f"its heartbeat has not been written for a minute, on {found.host}, process {found.pid}"
            )

    def _stopped(self, cause: str) -> JudgeStopped:
        return JudgeStopped(f"nothing more is asked for run {self._run_id} into {self._out.display_uri}: {cause}")
