"""The mark of a folder that this package writes, `nextscene.json`: a folder with other content is left alone.

Every command that writes or deletes claims its folder first. The mark is written before anything else, so that what a
killed run leaves is known as ours. Folders of versions before the mark are known by their content.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nextscene.common.fence import LOCK
from nextscene.common.filesystem import storage_fault
from nextscene.common.storage import BadLocation, Storage, StorageFault
from nextscene.shards.format.layout import MARK
from nextscene.shards.format.unmarked_folders import (
    DATASET,
    EVALUATION,
    LATENTS,
    PIECE,
    RUN,
    SHAPES,
    TOYS,
    UNMARKED_KINDS,
    VIDEOS,
    is_ignored,
    json_fields,
    list_names,
    read_piece,
)

__all__ = [
    "DATASET",
    "EVALUATION",
    "KIND_NAMES",
    "LATENTS",
    "RUN",
    "SHAPES",
    "TOYS",
    "VIDEOS",
    "NotOurs",
    "check",
    "check_folder",
    "claim",
    "claimed",
]

KIND_NAMES = {
    DATASET: "a dataset",
    LATENTS: "latents",
    RUN: "a training run",
    VIDEOS: "generated videos",
    EVALUATION: "an evaluation",
    TOYS: "toy checkpoints",
    SHAPES: "a world of shapes",
}
_VERSION = 1
_TRIES = 100
_IMPOSSIBLE = (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class NotOurs(BadLocation):
    """A folder that has other content than the kind to be written there, or a path that cannot be a folder."""


def claim(out: Storage, kind: str) -> Storage:
    """Mark the folder as one of `kind`, create it if necessary, and return it anchored to the mark.

    Raise NotOurs, before anything is changed, for a folder that is not empty and not of this kind, for a whole bucket,
    and if a folder cannot be there. Raise StorageFault.
    """
    with _marked(out, kind):
        return out.with_anchor(MARK)


def check(out: Storage, kind: str) -> bool:
    """Return whether the folder has the mark of `kind`. Raise NotOurs if `claim` would because of its content."""
    check_folder(out)
    marked = _is_marked(out, kind)
    if not marked and not UNMARKED_KINDS[kind].is_held(out):
        _check_empty(out, kind)
    return marked


@contextmanager
def claimed(out: Storage, kind: str) -> Iterator[Storage]:
    """Claim the folder for a block. If an error ends the block and nothing was written, undo the claim.

    The mark and new folders are kept if another process has claimed the folder meanwhile, if that cannot be known, and
    in object stores.
    """
    folders, before = out.missing_folders(), _names(out)
    with _marked(out, kind) as mark:
        try:
            yield out.with_anchor(MARK)
        except (Exception, KeyboardInterrupt):
            with suppress(StorageFault, OSError):
                if mark and mark.is_new and mark.is_mine() and _names(out) == before:
                    out.delete(MARK)
                    for folder in folders:
                        folder.rmdir()  # fails if it is not empty
            raise


def check_folder(out: Storage) -> None:
    """Raise NotOurs if a file is where a local folder should be, or in the way of one."""
    folder = out.local_path("")
    if folder is None:
        return
    try:
        found = next(place for place in (folder, *folder.parents) if place.exists() or place.is_symlink())
        is_dangling = not found.exists()
    except OSError as error:
        raise NotOurs(
            f"{out.display_uri} is not a place for a folder: {error.strerror}; name another folder"
        ) from error
    if is_dangling:
        where = "is a link" if found == folder else f"lies below a link, {found},"
        raise NotOurs(f"{out.display_uri} {where} to a place that is not there; make that, or name another folder")
    if not found.is_dir():
        where = "is a file" if found == folder else f"lies below a file, {found}"
        raise NotOurs(f"{out.display_uri} {where}; name a folder")


def _is_marked(out: Storage, kind: str) -> bool:
    """Return whether the folder has the mark of `kind`. Raise NotOurs for a mark of another kind."""
    data = read_piece(out, MARK)
    if not data or (_is_torn(data) and UNMARKED_KINDS[kind].is_held(out)):  # no mark, or one cut short by a crash
        return False
    value = json.loads(data) if {"kind", "version"} == json_fields(data) else {}
    if str(value.get("kind")) not in KIND_NAMES or value["version"] != _VERSION:
        raise NotOurs(
            f"{out.display_uri} holds a {MARK} that is not a mark of this version; name another folder, or, if"
            " the folder is ours, delete that file"
        )
    if value["kind"] != kind:
        raise NotOurs(
            f"{out.display_uri} holds {KIND_NAMES[value['kind']]}, not {KIND_NAMES[kind]}; name another folder"
        )
    return True


def _is_torn(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return len(data) < PIECE
    except RecursionError:
        pass
    return False


@dataclass(frozen=True)
class _Mark:
    """A local mark that is open, and whether it is new. Every process that works in the folder shares its lock."""

    path: Path
    handle: int
    is_new: bool

    def exists(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self.handle), self.path.stat())
        except FileNotFoundError:
            return False

    def is_mine(self) -> bool:
        """Lock the mark, so that no other process begins to work in the folder; return whether the mark still exists.

        Raise OSError if another process works in the folder, or the file system has no locks.
        """
        fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self.exists()


@contextmanager
def _marked(out: Storage, kind: str) -> Iterator[_Mark | None]:
    """Mark the folder if it has no mark; for the block, no other process removes it. None in an object store."""
    for _ in range(_TRIES):
        is_new = not check(out, kind)
        if is_new:
            _mark(out, kind)
        path = out.local_path(MARK)
        if path is None:
            yield None
            return
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            with suppress(OSError):  # a file system without locks: marks are never removed there
                fcntl.flock(handle, fcntl.LOCK_SH)
            if (mark := _Mark(path, handle, is_new)).exists():
                yield mark
                return
        finally:
            os.close(handle)
    raise StorageFault(
        f"cannot write in {out.display_uri}: its {MARK} is removed again and again; run the command again"
    )


def _mark(out: Storage, kind: str) -> None:
    """Write the mark. Do nothing if another process has just written it, or has removed the folder."""
    folder, mark = out.local_path(""), (json.dumps({"kind": kind, "version": _VERSION}) + "\n").encode()
    try:
        if folder is not None:
            _make_folder(folder)
    except OSError as fault:
        raise _failure(out, fault) from fault
    try:
        damaged = read_piece(out, MARK)
        if not out.create(MARK, mark) and not _is_marked(out, kind):
            out.take_over(MARK, damaged, mark)
    except StorageFault as fault:
        if folder is not None and isinstance(fault.__cause__, FileNotFoundError):
            return
        if isinstance(fault.__cause__, OSError):
            raise _failure(out, fault.__cause__) from fault
        raise


def _make_folder(folder: Path) -> None:
    """Create a folder and those above it. Try again if another process removes one of them at that moment."""
    for attempts_left in reversed(range(_TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError):
            if not attempts_left or folder.exists():
                raise
        else:
            return


def _failure(out: Storage, fault: OSError) -> NotOurs | StorageFault:
    if fault.errno in _IMPOSSIBLE:
        return NotOurs(f"{out.display_uri} is not a place for a folder: {fault.strerror}; name another folder")
    if fault.errno in _FORBIDDEN:
        return StorageFault(
            f"cannot write in {out.display_uri}: {fault.strerror}; make it writable, or name another folder"
        )
    return storage_fault("write", MARK, out.display_uri, fault)


def _check_empty(out: Storage, kind: str) -> None:
    if not out.is_local and "/" not in out.full_path("").strip("/"):
        raise NotOurs(f"{out.display_uri} is a whole bucket; name a prefix in it, such as {out.display_uri}/nsp")
    if not out.is_local and out.stat("") is not None:
        raise NotOurs(f"{out.display_uri} is a file; name a folder")
    for other, earlier in UNMARKED_KINDS.items():
        if other != kind and earlier.is_held(out):
            raise NotOurs(f"{out.display_uri} holds {KIND_NAMES[other]}, not {KIND_NAMES[kind]}; name another folder")
    for name in list_names(out):
        if name != MARK and not is_ignored(out, name) and not UNMARKED_KINDS[kind].may_be_begun(out, name):
            if _is_marked(out, kind):  # another process has marked it meanwhile
                return
            raise NotOurs(
                f"{out.display_uri} holds {name!r} and no {MARK}, so it is not ours; name a folder that is empty or new"
            )


def _names(out: Storage) -> set[str]:
    """Return the names in the folder, other than the mark and a lock that was given up."""
    return {*list_names(out)} - ({MARK} if read_piece(out, LOCK) else {MARK, LOCK})
