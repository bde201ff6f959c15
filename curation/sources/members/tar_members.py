"""The members of a tar, from its headers alone; of a gzipped tar, in one pass over its contents."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from nextscene.common.read_ahead import ReadAhead
from nextscene.curation.sources.cell_values import abbreviated
from nextscene.curation.sources.members.member import (
    BAD_NAME,
    LINK,
    SPARSE,
    ArchiveFile,
    BadArchive,
    Member,
    usable_name,
)
from nextscene.curation.sources.members.unpacking import Packing, open_gzip

_MAX_READ_BYTES = 4 << 20
_MAX_HEADER_BYTES = 4 << 20
"""Limit for the headers of one member, and for the global headers."""
_MAX_RATIO = 1100
"""More than the 1,032 bytes that gzip can pack into one."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file in a tar: its path there, and its `size` bytes at `offset`. `flaw` is LINK or SPARSE, or "" if it has
    bytes of its own. A hard link has those of the file that it names.
    """

    name: str
    offset: int
    size: int
    flaw: str = ""


def members_of_tar(archive: ArchiveFile) -> Iterator[Member]:
    """Yield the members of an uncompressed tar, in its order. Raise BadArchive."""
    for found in walk_tar(archive, headers_of(archive), archive.entry.size):
        yield _member(archive, found, "")


def members_of_gzipped_tar(archive: ArchiveFile) -> Iterator[Member]:
    """Yield the members of a gzipped tar, in its order. `offset` and `length` are those in the tar. Raise BadArchive.

    All of it is unpacked, since nothing else leads to its headers, and nothing of it is kept but a CRC-32 a member.
    """
    checksums: dict[int, int] = {}
    try:
        with open_gzip(archive.file) as tar:
            for found in walk_tar(archive, cast(BinaryIO, tar), archive.entry.size * _MAX_RATIO):
                if not found.flaw and found.offset not in checksums:
                    checksums[found.offset] = _checksum(tar, found)
                packing = Packing("gzip", checksums.get(found.offset, 0), found.size)
                yield _member(archive, found, str(packing))
    except EOFError as error:
        raise archive.bad("archive_incomplete", "it ends too early: it was not fetched as a whole") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise archive.bad("archive_damaged", f"it cannot be unpacked: {error}") from error


def headers_of(archive: ArchiveFile) -> BinaryIO:
    """Return the tar for reading its headers: in an object store, read ahead."""
    return archive.file if archive.is_local else cast(BinaryIO, ReadAhead(archive.file, archive.entry.size))


def walk_tar(archive: ArchiveFile, file: BinaryIO, end: int) -> Iterator[TarMember]:
    """Yield the files, links and devices in a tar, which is read from `file` and ends at `end` at the latest.

    Raise BadArchive where it is damaged, or after its end if something follows.
    """
    try:
        with _opened(file) as (tar, modest):
            places: dict[int, tuple[int, int]] = {}
            for info in tar:
                modest.begin_member(tar)
                # tarfile keeps each member that it has passed, and a long tar would fill the memory.
                tar.members = []  # type: ignore[attr-defined]
                if info.isdir():
                    continue
                name = str(PurePosixPath(info.name))
                if _has_contents(info) and not 0 <= info.size <= end - info.offset_data:
                    raise tarfile.ReadError(f"{name[:80]!a} claims {abbreviated(info.size)} bytes")
                found = _found(info, name, places)
                if not found.flaw:
                    places[hash(name)] = found.offset, found.size
                yield found
            # tarfile takes a header that it cannot read for the end of the archive.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise _damaged(archive, f"not a whole, uncompressed tar: no header at byte {tar.offset}")
            while rest := file.read(_MAX_READ_BYTES):
                if rest.strip(b"\0"):
                    raise _damaged(archive, "something follows its end; if tars were joined, take them apart")
    except (tarfile.ReadError, OverflowError) as error:
        raise _damaged(archive, f"not a whole, uncompressed tar: {error}") from error
    except (RecursionError, ValueError) as error:  # tarfile does not translate these
        raise _damaged(archive, f"not a sound tar: its headers make no sense: {error}") from error


def _damaged(archive: ArchiveFile, detail: str) -> BadArchive:
    return archive.bad("archive_damaged", detail)


def _found(info: tarfile.TarInfo, name: str, places: dict[int, tuple[int, int]]) -> TarMember:
    if info.issparse():
        return TarMember(name, 0, 0, SPARSE)
    if info.islnk():
        place = places.get(hash(str(PurePosixPath(info.linkname))))
        return TarMember(name, *place) if place else TarMember(name, 0, 0, LINK)
    return TarMember(name, info.offset_data, info.size) if info.isreg() else TarMember(name, 0, 0, LINK)


def _member(archive: ArchiveFile, found: TarMember, packed: str) -> Member:
    details = {LINK: "it is a link or a device", SPARSE: "it is stored as a sparse file"}
    name, wrong = usable_name(found.name)
    return Member(
        name,
        archive.location,
        found.offset,
        found.size,
        packed,
        archive.entry.size,
        archive.entry.mtime_ns,
        found.flaw or (BAD_NAME if wrong else ""),
        details[found.flaw] if found.flaw else wrong and f"its name cannot be used: {wrong}",
    )


def _checksum(tar: gzip.GzipFile, found: TarMember) -> int:
    tar.seek(found.offset)
    crc, left = 0, found.size
    while left:
        if not (data := tar.read(min(left, _MAX_READ_BYTES))):
            raise EOFError
        crc, left = zlib.crc32(data, crc), left - len(data)
    return crc


@contextmanager
def _opened(file: BinaryIO) -> Iterator[tuple[tarfile.TarFile, _BoundedReader]]:
    modest = _BoundedReader(file)
    with tarfile.open(fileobj=cast(BinaryIO, modest), mode="r:") as tar:
        yield tar, modest


def _has_contents(info: tarfile.TarInfo) -> bool:
    """Return whether the header is followed by as many bytes as it says. Links have none, sparse files have fewer."""
    return (info.isreg() or info.type not in tarfile.SUPPORTED_TYPES) and not info.issparse()


class _BoundedReader:
    """A file that limits the bytes read for one member, since the member's headers may claim any size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MAX_HEADER_BYTES
        self.seek, self.tell = file.seek, file.tell

    def begin_member(self, tar: tarfile.TarFile) -> None:
        """Reset the limit for the next member. Raise ReadError if the global headers have grown too large to keep."""
        self._left = _MAX_HEADER_BYTES
        if sum(len(name) + len(value) for name, value in tar.pax_headers.items()) > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"its global headers have more than {_MAX_HEADER_BYTES:,} bytes")

    def read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise tarfile.ReadError(f"the headers of one member have more than {_MAX_HEADER_BYTES:,} bytes")
        return self._file.read(size)
