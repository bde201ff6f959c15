"""A folder, searched to its depths: videos, images and tars. A caption is a `.txt` of the same name beside the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import UsageMistake
from curation.sources.clip import MAX_CAPTION_BYTES, MEDIA_SUFFIXES, Clip
from curation.sources.tar import clips_of_tar
from shards.storage import Storage, StorageFault

_MAX_DEPTH = 64
_NAMES_AT_ONCE = 4096


def clips_of_folder(root: Storage) -> Iterator[Clip]:
    """The clips below `root`, in the order of their relative paths as UTF-8. Hidden names are passed over."""
    for folder, name, neighbours in _walk(root, "", ()):
        path = f"{folder}{name}"
        suffix = PurePosixPath(name).suffix.lower()
        if suffix == ".tar":
            yield from clips_of_tar(root, path)
        elif suffix in MEDIA_SUFFIXES:
            text = f"{PurePosixPath(name).stem}.txt"
            caption = _read_caption(root, f"{folder}{text}") if text in neighbours else ""
            yield Clip(name=path, identity=path, location=path, caption=caption)


@dataclass(frozen=True)
class _Names:
    """The sorted names in one folder, folders ending in "/". Kept in Arrow, so a folder of a million files fits."""

    sorted: pa.Array

    @staticmethod
    def of(names: Iterator[str]) -> _Names:
        batches = []
        while batch := list(islice(names, _NAMES_AT_ONCE)):
            batches.append(pa.array(batch, pa.large_string()))
        together = pa.chunked_array(batches, pa.large_string()).combine_chunks()
        return _Names(together.take(pc.sort_indices(together)))

    def __iter__(self) -> Iterator[str]:
        for name in self.sorted:
            yield name.as_py()

    def __contains__(self, name: str) -> bool:
        low, high = 0, len(self.sorted)
        while low < high:
            middle = (low + high) // 2
            # Arrow sorts by UTF-8 bytes, Python by code points: these are the same order.
            if self.sorted[middle].as_py() < name:
                low = middle + 1
            else:
                high = middle
        return low < len(self.sorted) and bool(self.sorted[low].as_py() == name)


def _walk(root: Storage, folder: str, above: tuple[object, ...]) -> Iterator[tuple[str, str, _Names]]:
    here = _identity(root, folder)
    if here in above:
        raise UsageMistake(f"{root.shown}/{folder} is a link that leads back to a folder above it; remove it")
    if len(above) > _MAX_DEPTH:
        raise UsageMistake(f"{root.shown}/{folder[:80]}…: folders nest deeper than {_MAX_DEPTH}")
    try:
        names = _Names.of(name for name in root.names(folder) if not name.startswith("."))
    except UnicodeEncodeError as error:
        raise UsageMistake(f"{root.shown}/{folder}: the file name {error.object!r} is not UTF-8; rename it") from error
    for name in names:
        if name.endswith("/"):
            yield from _walk(root, f"{folder}{name}", (*above, here))
        else:
            yield folder, name, names


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
