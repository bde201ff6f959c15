"""The records at the end of a zip, which say where its directory is.

Tested in tests/curation/sources/members/test_zip_directory.py.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from nextscene.curation.sources.members.member import ArchiveFile

_END = struct.Struct("<4sHHHHLLH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQHHLLQQQQ")
_END_SIGNATURE, _LOCATOR_SIGNATURE, _END64_SIGNATURE = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_TAIL = 256 << 10
"""The end of a file that is read at once. A comment has up to 64 KiB; the directory of a small zip fits in, too."""


@dataclass(frozen=True)
class DirectoryPlace:
    """The place of a zip's directory: `size` bytes at `offset` of the file, with `count` entries.

    The zip says that it is at `claimed_offset`, and the members' offsets count as that does: something may stand before
    the zip.
    """

    offset: int
    size: int
    count: int
    claimed_offset: int

    @property
    def shift(self) -> int:
        """Return the number of bytes before the zip in its file."""
        return self.offset - self.claimed_offset


@dataclass(frozen=True)
class _Tail:
    """The last bytes of a file, which begin at `begin`."""

    archive: ArchiveFile
    begin: int
    data: bytes

    def read(self, offset: int, size: int) -> bytes:
        if offset >= self.begin:
            return self.data[offset - self.begin : offset - self.begin + size]
        if offset < 0:
            return b""
        self.archive.file.seek(offset)
        return self.archive.file.read(size)


def find_directory(archive: ArchiveFile) -> DirectoryPlace:
    """Return where the directory is. Raise BadArchive if it is missing, or is not where it should be."""
    size = archive.entry.size
    begin = max(0, size - _TAIL)
    archive.file.seek(begin)
    tail = _Tail(archive, begin, archive.file.read(size - begin))
    at = _end_record(tail)
    if at is None:
        what = "it has no directory at its end: it was not fetched as a whole, or is not a zip"
        raise archive.bad("archive_incomplete", what)
    _, disk, of_disk, _, count, length, claimed, _ = _END.unpack(tail.read(at, _END.size))
    end, disks = at, {disk, of_disk}
    locator = tail.read(at - _LOCATOR.size, _LOCATOR.size)
    if locator.startswith(_LOCATOR_SIGNATURE):
        end, (disk, of_disk, count, length, claimed) = _end64(archive, tail, at, locator)
        disks = {disk, of_disk}
    if disks - {0}:
        what = "it is the last of several disks, which cannot be read; join them with zip -s 0"
        raise archive.bad("archive_unknown", what)
    place = DirectoryPlace(end - length, length, count, claimed)
    if place.shift < 0:
        what = f"its directory of {length} bytes at byte {claimed} has no room: a part of the file is missing"
        raise archive.bad("archive_incomplete", what)
    return place


def _end_record(tail: _Tail) -> int | None:
    """Return the offset of the last record of a zip: the one whose comment ends the file, else the last one."""
    last, at = None, len(tail.data)
    while (at := tail.data.rfind(_END_SIGNATURE, 0, at + 3)) >= 0:
        if at + _END.size <= len(tail.data):
            rest = len(tail.data) - at - _END.size - _END.unpack_from(tail.data, at)[-1]
            if rest == 0:
                return tail.begin + at
            if rest > 0 and last is None:
                last = tail.begin + at
    return last


def _end64(archive: ArchiveFile, tail: _Tail, at: int, locator: bytes) -> tuple[int, tuple[int, int, int, int, int]]:
    """Return the offset of the ZIP64 record, and its disks, count, size and offset of the directory.

    It is where the locator says, or right before the locator if something stands before the zip.
    """
    claimed = int(_LOCATOR.unpack(locator)[2])
    for offset in (claimed, at - _LOCATOR.size - _END64.size):
        record = tail.read(offset, _END64.size) if offset < at else b""
        if len(record) == _END64.size and record.startswith(_END64_SIGNATURE):
            _, _, _, _, disk, of_disk, _, count, length, begin = _END64.unpack(record)
            return offset, (disk, of_disk, count, length, begin)
    raise archive.bad("archive_damaged", "its ZIP64 record is not where its locator says")
