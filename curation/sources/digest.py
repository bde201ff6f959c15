"""Digests that show whether a file with another modification time still has the planned contents.

Tested in tests/curation/run/test_source_changes.py.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from nextscene.common.joined_storage import open_local_files
from nextscene.curation.sources.clip import WHOLE_FILE
from nextscene.curation.sources.members.parquet_cells import is_in_parquet
from nextscene.curation.sources.members.unpacking import is_in_gzip

_PIECE = 1 << 20
_AT_ONCE = 8

Region = tuple[tuple[Path, ...], int, int]
"""A local file, or its pieces, and the offset and number of a clip's bytes in it; WHOLE_FILE stands for all bytes."""


class ByteRange(Protocol):
    """The range of a clip's bytes in their file."""

    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def packed(self) -> str: ...


def region_of(files: tuple[Path, ...], clip: ByteRange) -> Region:
    """Return the region of a clip's bytes, given the local file that they are in, or its pieces.

    A gzipped tar and a Parquet table count as a whole: no part of them is the clip's alone.
    """
    return (
        (files, 0, WHOLE_FILE)
        if is_in_gzip(clip.packed) or is_in_parquet(clip.packed)
        else (files, max(0, clip.offset), clip.length)
    )


def digest(where: Region) -> str:
    """Return the sha256 of the first and the last MiB of a clip's bytes. Raise OSError."""
    files, offset, length = where
    with open_local_files(files) as file:
        end = file.seek(0, io.SEEK_END) if length == WHOLE_FILE else offset + length
        file.seek(offset)
        found = hashlib.sha256(file.read(min(_PIECE, end - offset)))
        file.seek(max(file.tell(), end - _PIECE))
        found.update(file.read(max(0, end - file.tell())))
    return found.hexdigest()


def digests(regions: Iterable[Region]) -> Mapping[Region, str]:
    """Return the digest of each region; "" if it cannot be read. The outcome of its clip will say why."""
    wanted = list(dict.fromkeys(regions))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(wanted, pool.map(_digest_or_none, wanted), strict=True))


def _digest_or_none(where: Region) -> str:
    try:
        return digest(where)
    except OSError:
        return ""
