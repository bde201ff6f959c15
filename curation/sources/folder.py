"""A folder, searched to its depths: videos, images and tars. A caption is a `.txt` of the same name beside the file."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from itertools import islice
from operator import methodcaller
from pathlib import PurePosixPath

import pyarrow as pa

from curation.errors import UsageMistake
from curation.sources.clip import MAX_CAPTION_BYTES, MEDIA_SUFFIXES, Clip
from curation.sources.tar import clips_of_tar
from shards.storage import Storage, StorageFault

_MAX_DEPTH = 64
_NAMES_AT_ONCE = 32768


def clips_of_folder(root: Storage) -> Iterator[Clip]:
    """The clips below `root`, in the order of their relative paths as UTF-8. Hidden names are passed over."""
    for folder, name, has_text in _walk(root, "", ()):
        path = f"{folder}{name}"
        suffix = PurePosixPath(name).suffix.lower()
        if suffix == ".tar":
            yield from clips_of_tar(root, path)
        elif suffix in MEDIA_SUFFIXES:
            caption = _read_caption(root, f"{folder}{_text_of(name)}") if has_text else ""
            yield Clip(name=path, identity=path, location=path, caption=caption)


def _sorted(names: Iterator[str]) -> Iterator[str]:
    """In order, held in Arrow as sorted runs: a folder of a million names fits."""
    runs = []
    while batch := sorted(islice(names, _NAMES_AT_ONCE)):
        runs.append(pa.array(batch, pa.string()))
    return heapq.merge(*(map(methodcaller("as_py"), run) for run in runs))


def _text_of(name: str) -> str:
    return f"{PurePosixPath(name).stem}.txt"


def _with_texts(names: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Each of the sorted names, and whether a `.txt` of the same stem is among them.

    All names that begin with a stem and a dot stand together, so no others are kept in memory.
    """
    ahead: deque[str] = deque()
    behind: list[str] = []
    while (name := ahead.popleft() if ahead else next(names, None)) is not None:
        stem = PurePosixPath(name).stem
        while (not ahead or ahead[-1].startswith(f"{stem}.")) and (following := next(names, None)) is not None:
            ahead.append(following)
        yield name, _text_of(name) in behind or _text_of(name) in ahead
        behind = [text for text in behind if name.startswith(text.removesuffix("txt"))]
        if name.endswith(".txt"):
            behind.append(name)


def _walk(root: Storage, folder: str, above: tuple[object, ...]) -> Iterator[tuple[str, str, bool]]:
    here = _identity(root, folder)
    if here in above:
        raise UsageMistake(f"{root.shown}/{folder} is a link that leads back to a folder above it; remove it")
    if len(above) > _MAX_DEPTH:
        raise UsageMistake(f"{root.shown}/{folder[:80]}…: folders nest deeper than {_MAX_DEPTH}")
    try:
        names = _sorted(name for name in root.names(folder) if not name.startswith("."))
    except UnicodeEncodeError as error:
        raise UsageMistake(f"{root.shown}/{folder}: the file name {error.object!r} is not UTF-8; rename it") from error
    for name, has_text in _with_texts(names):
        if name.endswith("/"):
            yield from _walk(root, f"{folder}{name}", (*above, here))
        else:
            yield folder, name, has_text


def _identity(root: Storage, folder: str) -> object:
    """What tells a folder from all others, by whatever links it is reached."""
    local = root.local(folder)
    if local is None:
        return folder
    try:
        stat = local.stat()
    except OSError as fault:
        raise StorageFault(f"cannot list {local}: {fault.strerror}") from fault
    return stat.st_dev, stat.st_ino


def _read_caption(root: Storage, path: str) -> str:
    data = root.read(path, 0, MAX_CAPTION_BYTES)
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise UsageMistake(f"{root.shown}/{path}: the caption is not UTF-8 text") from error
