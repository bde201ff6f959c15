"""Atomic changes of files on a local disk: write a draft, sync it, rename it; create and delete exclusively."""

from __future__ import annotations

import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import TypeVar

P = TypeVar("P", bound=PurePath)
UNFINISHED = ".unfinished"
"""The suffix of a draft: a file that a writer has not finished, or that a killed writer left."""

_DRAFT = re.compile(rf"\.(?P<final>.+)\.[0-9a-f]{{8}}{re.escape(UNFINISHED)}", re.DOTALL)
_LOCK_TRIES = 100
_LOCK_WAIT_SECONDS = 0.02


def final_name_of_draft(name: str) -> str | None:
    """Return the name of the file that a draft was to become, or None if `name` is not that of a draft."""
    found = _DRAFT.fullmatch(name)
    return found["final"] if found else None


def draft_of(final: P) -> P:
    """Return a new name for a draft, in the same folder as `final`. Readers and listings ignore drafts."""
    return final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")


def write_file(path: Path, data: bytes) -> None:
    """Replace a file atomically. Raise OSError.

    For a file with one writer at a time: the next writer overwrites the draft that a killed one left.
    """
    draft = path.with_name(f".{path.name}{UNFINISHED}")
    write_synced(draft, data)
    rename_synced(draft, path)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk. Raise OSError."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def rename_synced(draft: Path, final: Path) -> None:
    """Give a synced draft its final name, and wait until the name is on the disk. Raise OSError."""
    draft.replace(final)
    _sync(final.parent)


def sync_tree(folder: Path) -> None:
    """Wait until a folder, and all files and folders in it, are on the disk. Raise OSError."""
    for path in (folder, *folder.rglob("*")):
        _sync(path)


def create_file(path: Path, draft: Path, data: bytes) -> bool:
    """Create a file unless it exists, by way of `draft`, and return whether it was created. Raise OSError.

    Exactly one of several concurrent callers creates it, and no reader sees part of it.
    """
    draft.write_bytes(data)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    return True


def unlink_if_equal(final: Path, before: bytes) -> bool:
    """Delete a small file if it contains `before`, and return whether it did. At most one concurrent caller does."""
    mine = draft_of(final)
    try:
        if final.read_bytes() != before:
            return False
        final.rename(mine)
        if mine.read_bytes() == before:
            return True
        with suppress(FileExistsError):
            os.link(mine, final)  # another process replaced the file meanwhile: restore what it wrote
    except FileNotFoundError:
        pass
    finally:
        mine.unlink(missing_ok=True)
    return False


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, if the file system has locks.

    Wait two seconds at most: a holder may be suspended. Without the lock a race needs three processes at the same
    moment.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_WAIT_SECONDS)
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
