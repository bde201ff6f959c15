"""Holders of the lock on OUT: a process of this machine, and one elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nextscene.common.fence import LOCK
from nextscene.common.lease import Holder
from nextscene.common.process_identity import ProcessIdentity
from nextscene.common.storage import Storage

ELSEWHERE = ProcessIdentity("another-host", 7, "another-boot", "pid:[1]", "time:[1]", "99")


def elsewhere(**changed: Any) -> Holder:
    """Return the run `theirs` on another host, with some fields changed."""
    return replace(Holder("theirs", ELSEWHERE, 3, 400.0, 1_700_000_000.0), **changed)


def here(pid: int, run_id: str = "theirs") -> Holder:
    """Return a run with the process of that number, as it names itself."""
    start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return replace(Holder.me(run_id), process=replace(ProcessIdentity.me(), pid=pid, start=start))


def put(out: Storage, holder: Holder) -> None:
    """Write the lock as `holder` does."""
    out.write(LOCK, holder.to_bytes())
