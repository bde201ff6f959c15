"""A temporary folder for one piece of work. It is deleted later even if the process was killed.

Tested in tests/faults/test_object_store.py.
"""

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
    """Yield a new folder below TMPDIR, and delete it. Also delete those whose process died: their lock is free.

    Raise StorageFault.
    """
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
    """Return a new folder, and the open lock file that marks it as in use.

    Delete the folders with that prefix that no process uses any more. Raise OSError.
    """
    _remove_orphans(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = (folder / _LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


def release_folder(folder: Path) -> None:
    """Give up a claimed folder without deleting it: from now on this package never deletes it."""
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
            continue  # in use, already deleted, another user's, or another program's
