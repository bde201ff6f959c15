"""The mark of a folder that we write, `nextscene.json`: whatever holds something else is left alone.

Every command that writes or deletes claims its folder first. The mark is written before anything else, so that what a
killed run leaves is known as ours. What versions before the mark have left is known by what it holds.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from shards.filesystem import fault_of
from shards.layout import CALLS, CARD, CONFIG, LOCK, MARK, PLAN, owns
from shards.receipt import DamagedRecord, Manifest
from shards.storage import BadLocation, Storage, StorageFault, draft_of

DATASET = "dataset"
LATENTS = "latents"
RUN = "run"
VIDEOS = "videos"
EVALUATION = "evaluation"
TOYS = "toys"

_WORDS = {
    DATASET: "a dataset",
    LATENTS: "latents",
    RUN: "a training run",
    VIDEOS: "generated videos",
    EVALUATION: "an evaluation",
    TOYS: "toy checkpoints",
}
_VERSION = 1
_TRIES = 100
_NO_PLACE = (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class NotOurs(BadLocation):
    """A folder that holds something else than what is to be written there, or a place where none can be."""


def claim(out: Storage, kind: str) -> Storage:
    """The folder as one of `kind`, marked, made where there is none; it is written to only while the mark stands.

    Raises NotOurs, before anything is changed, for a folder that is not empty and not of this kind, for a whole bucket,
    and where no folder can be; StorageFault.
    """
    with _marked(out, kind):
        return out.anchored(MARK)


def check(out: Storage, kind: str) -> bool:
    """Whether the folder is marked as one of `kind` already. Raises NotOurs where `claim` would for what it holds."""
    check_folder(out)
    marked = _is_marked(out, kind)
    if not marked and not _EARLIER[kind].left(out):
        _check_empty(out, kind)
    return marked


@contextmanager
def claimed(out: Storage, kind: str) -> Iterator[Storage]:
    """`claim` for a block. Where an error ends it and nothing was made, a new mark and new folders are gone again.

    They stay where another process has claimed the folder meanwhile, where that cannot be known, and in object stores.
    """
    folders, before = out.missing_folders(), _names(out)
    with _marked(out, kind) as mark:
        try:
            yield out.anchored(MARK)
        except (Exception, KeyboardInterrupt):
            with suppress(StorageFault, OSError):
                if mark and mark.is_new and mark.is_mine() and _names(out) == before:
                    out.delete(MARK)
                    for folder in folders:
                        folder.rmdir()  # fails where something else is there by now
            raise


def check_folder(out: Storage) -> None:
    """Raises NotOurs where a file is, or is in the way of, what should be a local folder."""
    folder = out.local("")
    if folder is None:
        return
    try:
        found = next(place for place in (folder, *folder.parents) if place.exists() or place.is_symlink())
        is_dangling = not found.exists()
    except OSError as error:
        raise NotOurs(f"{out.shown} is not a place for a folder: {error.strerror}; name another folder") from error
    if is_dangling:
        where = "is a link" if found == folder else f"lies below a link, {found},"
        raise NotOurs(f"{out.shown} {where} to a place that is not there; make that, or name another folder")
    if not found.is_dir():
        where = "is a file" if found == folder else f"lies below a file, {found}"
        raise NotOurs(f"{out.shown} {where}; name a folder")


def _is_marked(out: Storage, kind: str) -> bool:
    """Raises NotOurs for a mark of another kind."""
    data = _piece(out, MARK)
    if not data or (_is_torn(data) and _EARLIER[kind].left(out)):  # none, or a machine went down as it was written
        return False
    value = json.loads(data) if {"kind", "version"} == _fields(data) else {}
    if str(value.get("kind")) not in _WORDS or value["version"] != _VERSION:
        raise NotOurs(
            f"{out.shown} holds a {MARK} that is not a mark of this version; name another folder, or, if"
            " the folder is ours, delete that file"
        )
    if value["kind"] != kind:
        raise NotOurs(f"{out.shown} holds {_WORDS[value['kind']]}, not {_WORDS[kind]}; name another folder")
    return True


def _is_torn(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return len(data) < _PIECE
    except RecursionError:
        pass
    return False


@dataclass(frozen=True)
class _Mark:
    """A local mark that is open, and whether it was not there before. Whoever works in its folder shares its lock."""

    path: Path
    handle: int
    is_new: bool

    def stands(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self.handle), self.path.stat())
        except FileNotFoundError:
            return False

    def is_mine(self) -> bool:
        """Whether nobody else works in the folder; from then on nobody begins to. Raises OSError without locks."""
        fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self.stands()


@contextmanager
def _marked(out: Storage, kind: str) -> Iterator[_Mark | None]:
    """Marks the folder if it is not; for the block, no other process removes the mark. None in an object store."""
    for _ in range(_TRIES):
        is_new = not check(out, kind)
        if is_new:
            _mark(out, kind)
        path = out.local(MARK)
        if path is None:
            yield None
            return
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            with suppress(OSError):  # a file system without locks, where no mark is ever removed
                fcntl.flock(handle, fcntl.LOCK_SH)
            if (mark := _Mark(path, handle, is_new)).stands():
                yield mark
                return
        finally:
            os.close(handle)
    raise StorageFault(f"cannot write in {out.shown}: its {MARK} is removed again and again; start once more")


def _mark(out: Storage, kind: str) -> None:
    """Does nothing where another process has just done it, or has removed the folder."""
    folder, mark = out.local(""), (json.dumps({"kind": kind, "version": _VERSION}) + "\n").encode()
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise _failure(out, fault) from fault
    try:
        damaged = _piece(out, MARK)
        if not out.create(MARK, mark) and not _is_marked(out, kind):
            out.take(MARK, damaged, mark)
    except StorageFault as fault:
        if folder is not None and isinstance(fault.__cause__, FileNotFoundError):
            return
        if isinstance(fault.__cause__, OSError):
            raise _failure(out, fault.__cause__) from fault
        raise


def _failure(out: Storage, fault: OSError) -> NotOurs | StorageFault:
    if fault.errno in _NO_PLACE:
        return NotOurs(f"{out.shown} is not a place for a folder: {fault.strerror}; name another folder")
    if fault.errno in _FORBIDDEN:
        return StorageFault(f"cannot write in {out.shown}: {fault.strerror}; make it writable, or name another folder")
    return fault_of("write", MARK, out.shown, fault)


def _check_empty(out: Storage, kind: str) -> None:
    if not out.is_local and "/" not in out.full("").strip("/"):
        raise NotOurs(f"{out.shown} is a whole bucket; name a prefix in it, such as {out.shown}/nsp")
    if not out.is_local and out.stat("") is not None:
        raise NotOurs(f"{out.shown} is a file; name a folder")
    for other, earlier in _EARLIER.items():
        if other != kind and earlier.left(out):
            raise NotOurs(f"{out.shown} holds {_WORDS[other]}, not {_WORDS[kind]}; name another folder")
    for name in _inside(out):
        if name != MARK and not _is_nothing(out, name) and not _EARLIER[kind].begun(out, name):
            if _is_marked(out, kind):  # by another process, meanwhile
                return
            raise NotOurs(
                f"{out.shown} holds {name!r} and no {MARK}, so it is not ours; name a folder that is empty or new"
            )


def _names(out: Storage) -> set[str]:
    """What lies in the folder, but for the mark and a lock that is given up."""
    return {*_inside(out)} - ({MARK} if _piece(out, LOCK) else {MARK, LOCK})


# ---- what does not count -----------------------------------------------------------------------------------------

_OF_SYSTEMS = re.compile(
    r"lost\+found/|@eaDir/|\.snapshots?/|\.Trash-\d+/|\.nfs[0-9a-f]+|\.directory|\.gitignore|\.gitkeep"
    r"|\.Trashes/|\.fseventsd/|\.Spotlight-V100/|\.TemporaryItems/|\.DS_Store|\._.*|\.localized"
    r"|System Volume Information/|\$RECYCLE\.BIN/|Thumbs\.db|desktop\.ini"
)
"""What file systems, desktops and git leave in folders that are empty for people."""


def _is_nothing(out: Storage, name: str) -> bool:
    """Whether a name in a folder means nothing: a system's, or what a run leaves that was killed as it began."""
    if _OF_SYSTEMS.fullmatch(name):
        return True
    if name.endswith("/"):
        return not any(out.names(name))
    if (final := draft_of(name)) is not None:
        return owns(final) or final == _RECORDS
    if not owns(name):
        return False
    data = _piece(out, name)
    return not data or name.startswith(".probe-") or (name == LOCK and b'"run_id"' in data)


# ---- versions before the mark ------------------------------------------------------------------------------------

_PIECE = 1 << 16
_RECORDS = "videos.jsonl"
_STEP = re.compile(r"step-\d+(\.unfinished)?/")
_OF_CHECKPOINT = ("recipe", "stage", "step", "samples", "world", "model", "bridge")  # it begins so, and may be long
_OF_JOURNAL = {"event", "step", "lr"}


@dataclass(frozen=True)
class _Earlier:
    """How a folder of a kind is known that has no mark.

    `left` says whether it holds such; `begun`, of a name in it, whether a run of this kind may have left that which was
    killed before it came to anything.
    """

    left: Callable[[Storage], bool]
    begun: Callable[[Storage, str], bool] = lambda _out, _name: False


def _holds_dataset(out: Storage) -> bool:
    return b"plan_sha256" in _piece(out, CONFIG) or b"nextscene." in _piece(out, PLAN, from_end=True)


def _holds_latents(out: Storage) -> bool:
    if _piece(out, CARD).startswith(b"Latents of the clips of a dataset"):
        return True
    try:
        shards = Manifest.read(out).shards
        return bool(shards) and shards[0].receipt(out).members == ("json", "latent")
    except (FileNotFoundError, DamagedRecord):
        return False


def _holds_run(out: Storage) -> bool:
    return any(_is_export(out, name) or _is_stage(out, name) for name in _folders(out))


def _is_export(out: Storage, folder: str) -> bool:
    return folder == "export/" and {"recipe", "determining"} <= _fields(_piece(out, f"{folder}{MARK}"))


def _is_stage(out: Storage, folder: str) -> bool:
    """A checkpoint of ours, or before the first what is written of the steps."""
    if not out.is_folder(f"{folder}checkpoints"):
        return False
    if _fields(_piece(out, f"{folder}metrics.jsonl").partition(b"\n")[0]) >= _OF_JOURNAL:
        return True
    steps = filter(_STEP.fullmatch, out.names(f"{folder}checkpoints"))
    abouts = (_piece(out, f"{folder}checkpoints/{step}about.json") for step in steps)
    return any(all(f'"{name}":'.encode() in about for name in _OF_CHECKPOINT) for about in abouts)


def _holds_videos(out: Storage, folder: str = "") -> bool:
    """The first record, or what claims the file of one that is to come."""
    fields = _fields(_piece(out, f"{folder}{_RECORDS}").partition(b"\n")[0])
    return fields == {"file"} or {"file", "scene"} <= fields


def _holds_evaluation(out: Storage) -> bool:
    return any(_holds_videos(out, name) and out.is_folder(f"{name}videos") for name in _folders(out))


def _holds_toys(out: Storage, folder: str = "") -> bool:
    return {"version", "steps", "shards"} <= _fields(_piece(out, f"{folder}made.json"))


def _is_account(out: Storage, name: str) -> bool:
    """Paid answers: with their account, or before the first."""
    return name == f"{CALLS}/" and (out.stat(f"{CALLS}/account.json") is not None or not any(out.names(CALLS)))


def _is_ours(out: Storage, name: str) -> bool:
    """A folder with a mark of its own, as `make train` makes the toy checkpoints below the run, and before it; or a
    stage before its first step.
    """
    if not name.endswith("/"):
        return False
    return "kind" in _fields(_piece(out, f"{name}{MARK}")) or _holds_toys(out, name) or _is_waiting_for_steps(out, name)


def _is_waiting_for_steps(out: Storage, name: str) -> bool:
    if not {"checkpoints/"} <= {*out.names(name)} <= {"checkpoints/", "metrics.jsonl", "tensorboard/"}:
        return False
    return not any(out.names(f"{name}checkpoints")) and not _piece(out, f"{name}metrics.jsonl")


def _is_waiting_for_videos(out: Storage, name: str) -> bool:
    if not name.endswith("/"):
        return False
    inside = [inner for inner in out.names(name) if draft_of(inner) != _RECORDS]
    return _is_account(out, name) or (inside == ["videos/"] and not any(out.names(f"{name}videos")))


_EARLIER = {
    DATASET: _Earlier(_holds_dataset, _is_account),
    LATENTS: _Earlier(_holds_latents),
    RUN: _Earlier(_holds_run, _is_ours),
    VIDEOS: _Earlier(_holds_videos),
    EVALUATION: _Earlier(_holds_evaluation, _is_waiting_for_videos),
    TOYS: _Earlier(_holds_toys),
}


def _folders(out: Storage) -> Iterator[str]:
    if out.is_local:  # none of those that are asked for lies in an object store
        yield from (name for name in _inside(out) if name.endswith("/"))


def _inside(out: Storage) -> Iterator[str]:
    """The names in the folder; none where there is none, or where a start that failed removes it meanwhile."""
    try:
        yield from out.names("") if out.is_folder() else ()
    except StorageFault as fault:
        if not isinstance(fault.__cause__, FileNotFoundError):
            raise
    except FileNotFoundError:
        pass


def _piece(out: Storage, path: str, from_end: bool = False) -> bytes:
    """The begin or the end of a file; nothing where there is none."""
    entry = out.stat(path)
    if entry is None:
        return b""
    try:
        return out.read(path, max(0, entry.size - _PIECE) if from_end else 0, min(entry.size, _PIECE))
    except FileNotFoundError:  # gone since
        return b""


def _fields(data: bytes) -> set[str]:
    """The names in a JSON object; none of what is not one."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return set()
    return set(value) if isinstance(value, dict) else set()
