"""A folder on the local disk for the time of one piece of work, gone with it even if the worker is killed."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from nextscene.common.filesystem import StorageFault

_PREFIX = "nextscene-"
_LOCK = "alive"
_YOUNG_SECONDS = 60.0


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder below TMPDIR. Also removes those whose owner died: nobody holds their lock any more."""
    parent = Path(tempfile.gettempdir())
    try:
        folder, lock = claim_temporary_folder(parent, _PREFIX)
    except OSError as fault:
        raise StorageFault(f"cannot make a scratch folder in {parent}: {fault.strerror}; set TMPDIR") from fault
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def claim_temporary_folder(parent: Path, prefix: str) -> tuple[Path, TextIO]:
    """A new folder, and the lock that says that it is in use for as long as a process has it open.

    Removes the folders of that prefix that nobody uses any more. Raise OSError.
    """
    _remove_orphans(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = (folder / _LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


def release_folder(folder: Path) -> None:
    """Give up a claimed folder without removing it: nothing of ours will, from now on."""
    (folder / _LOCK).unlink(missing_ok=True)


def _remove_orphans(parent: Path, prefix: str) -> None:
    for folder in parent.glob(f"{prefix}*"):
        try:
            if time.time() - folder.stat().st_mtime < _YOUNG_SECONDS:
                continue  # its owner may not have taken the lock yet
            with (folder / _LOCK).open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # in use, gone by now, another user's, or not one of ours
