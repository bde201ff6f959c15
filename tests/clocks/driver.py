"""A driver without work: it takes the lock of OUT, checks that it still has it, and logs each time it would write."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage, StorageFault
from nextscene.judge.errors import JudgeStopped

_PAUSE_SECONDS = 0.05
_REAL_WRITE_SECONDS = 0.3


def drive(out: str, run_id: str, folder: Path) -> None:
    """Write until the file `end-RUN` is in the folder. If `pause-RUN` is there, stop as in a suspend."""
    place = Storage.at(out)
    place.write(f"seen-by-{run_id}", b"")  # connects to the store, which takes long
    _note(folder, run_id, "starts")
    try:
        with hold_lock(place, run_id) as heartbeat:
            _note(folder, run_id, "began")
            check_ownership = _ownership(place, run_id)
            into = getattr(heartbeat, "out", place)
            written = 0.0
            while not (folder / f"end-{run_id}").exists():
                if (pause := folder / f"pause-{run_id}").exists():
                    pause.unlink()
                    os.kill(os.getpid(), signal.SIGSTOP)
                heartbeat.check()
                check_ownership()
                _note(folder, run_id, "writes")
                if time.monotonic() - written > _REAL_WRITE_SECONDS:
                    into.write("written", run_id.encode())
                    written = time.monotonic()
                time.sleep(_PAUSE_SECONDS)
        _note(folder, run_id, "done")
    except (RunStopped, StorageFault) as stop:
        _note(folder, run_id, f"stopped: {stop}")
    except JudgeStopped as stop:
        _note(folder, run_id, f"asks no more: {stop}")
    except UsageError as mistake:
        _note(folder, run_id, f"refused: {mistake}")


def _ownership(place: Storage, run_id: str) -> Callable[[], None]:
    from nextscene.judge.run_ownership import RunOwnershipCheck

    check: Callable[[], None] = RunOwnershipCheck(place, run_id).check
    return check


def _note(folder: Path, run_id: str, what: str) -> None:
    with (folder / "log").open("a") as log:
        log.write(f"{run_id} {what}\n")


if __name__ == "__main__":
    drive(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
