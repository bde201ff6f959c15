"""The members of a zip, from the directory at its end alone (PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.6).

A directory of up to 16 MiB, some 100,000 members, is read once, and a longer one twice, in ranges of that size. 16
bytes a member are kept meanwhile.
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from nextscene.common.sized_file import FileWindow
from nextscene.curation.sources.members.member import (
    BAD_NAME,
    ENCRYPTED,
    IMPLAUSIBLE,
    LINK,
    OUTSIDE,
    OVERLAPPING,
    UNKNOWN_METHOD,
    ArchiveFile,
    BadArchive,
    Member,
    usable_name,
)
from nextscene.curation.sources.members.unpacking import LOCAL_HEADER, Method, Packing
from nextscene.curation.sources.members.zip_end import DirectoryPlace, find_directory

_ENTRY = struct.Struct("<4sBBHHHHHLLLHHHHHLL")
_ENTRY_SIGNATURE = b"PK\x01\x02"
_READ_BYTES = 16 << 20
_IN_FIELD = 0xFFFFFFFF
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075
_IS_ENCRYPTED, _IS_UTF8, _HAS_HIDDEN_HEADERS = 1 << 0, 1 << 11, 1 << 13
_FAT, _UNIX = 0, 3
_METHODS: dict[int, Method] = {0: "stored", 8: "deflate"}
_MAX_RATIO = 100
_SMALL = 64 << 20
"""A member up to this size may be deflated to any share; one above it to 1/100, which no video or image is."""


class _Damaged(Exception):
    """An error: the directory makes no sense from here on. The message is a phrase."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the directory, with the values that the format moves into its further fields put back."""

    name: bytes
    unicode_name: bytes
    system: int
    flags: int
    method: int
    crc: int
    stored: int
    size: int
    offset: int
    mode: int

    @property
    def has_backslashes(self) -> bool:
        """Return whether backslashes separate the parts of its name, as old programs for Windows write them."""
        return self.system == _FAT and b"/" not in self.name

    @property
    def is_folder(self) -> bool:
        return self.name.endswith((b"/", b"\\") if self.has_backslashes else b"/")

    @property
    def end(self) -> int:
        """Return the least offset at which the member's bytes can end."""
        return self.offset + LOCAL_HEADER.size + len(self.name) + self.stored


def members_of_zip(archive: ArchiveFile) -> Iterator[Member]:
    """Yield the files in a zip, in the order of its directory. Folders are left out. Raise BadArchive."""
    place = find_directory(archive)
    directory = _opened(FileWindow(archive.file, place.offset, place.size), place.size)
    overlapping = _find_overlapping(directory, place)
    directory.seek(0)
    number = 0
    try:
        for number, entry in enumerate(_entries(directory, place.size), 1):  # noqa: B007
            if not entry.is_folder:
                yield _member(archive, place, entry, entry.offset in overlapping)
    except _Damaged as damage:
        raise _damaged(archive, f"its directory is damaged behind {number} entries: {damage}") from damage
    if number & 0xFFFF != place.count & 0xFFFF:  # some programs write the lower two bytes alone
        raise _damaged(archive, f"its directory has {number} entries, and should have {place.count}")


def _opened(window: FileWindow, size: int) -> BinaryIO:
    return io.BytesIO(window.read()) if size <= _READ_BYTES else cast(BinaryIO, io.BufferedReader(window, _READ_BYTES))


def _damaged(archive: ArchiveFile, detail: str) -> BadArchive:
    return archive.bad("archive_damaged", detail)


def _entries(directory: BinaryIO, size: int) -> Iterator[_Entry]:
    left = size
    while left >= _ENTRY.size:
        fixed = directory.read(_ENTRY.size)
        if len(fixed) < _ENTRY.size or not fixed.startswith(_ENTRY_SIGNATURE):
            raise _Damaged("no entry follows")
        values = _ENTRY.unpack(fixed)
        lengths = values[11:14]
        left -= _ENTRY.size + sum(lengths)
        if left < 0:
            raise _Damaged("an entry is longer than the directory")
        name, further, _ = (directory.read(length) for length in lengths)
        yield _entry(values, name, further)
    if left:
        raise _Damaged(f"{left} bytes follow that are not an entry")


def _entry(values: tuple[int, ...], name: bytes, further: bytes) -> _Entry:
    _, _, system, _, flags, method, _, _, crc, stored, size, *_, mode, offset = values
    fields = dict(_fields(further))
    large = io.BytesIO(fields.get(_ZIP64, b""))
    size, stored, offset = (
        int.from_bytes(large.read(8), "little") if value == _IN_FIELD and _ZIP64 in fields else value
        for value in (size, stored, offset)
    )
    unicode_path = fields.get(_UNICODE_PATH, b"")
    is_of_name = unicode_path[:1] == b"\x01" and int.from_bytes(unicode_path[1:5], "little") == zlib.crc32(name)
    return _Entry(
        name,
        unicode_path[5:] if is_of_name else b"",
        system,
        flags,
        method,
        crc,
        stored,
        size,
        offset,
        mode >> 16 if system == _UNIX else 0,
    )


def _fields(further: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(further):
        kind, length = struct.unpack_from("<HH", further, at)
        yield kind, further[at + 4 : at + 4 + length]
        at += 4 + length


def _find_overlapping(directory: BinaryIO, place: DirectoryPlace) -> frozenset[int]:
    """Return the offsets of the members that share bytes with another. Such zips unpack to far more than they have."""
    begins, ends = array("Q"), array("Q")
    try:
        for entry in _entries(directory, place.size):
            if entry.end <= place.claimed_offset and not entry.is_folder:
                begins.append(entry.offset)
                ends.append(entry.end)
    except _Damaged:
        pass  # the second reading reports it
    starts: npt.NDArray[np.uint64] = np.frombuffer(begins, np.uint64)
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.frombuffer(ends, np.uint64)[order]
    latest = np.maximum.accumulate(reach) if len(reach) else reach
    into_next = reach[:-1] > starts[1:]
    from_before = latest[:-1] > starts[1:]
    return frozenset(starts[:-1][into_next].tolist()) | frozenset(starts[1:][from_before].tolist())


def _member(archive: ArchiveFile, place: DirectoryPlace, entry: _Entry, overlaps: bool) -> Member:
    name, wrong = _name(entry)
    method = _METHODS.get(entry.method)
    flaw, detail = "", ""
    if wrong:
        flaw, detail = BAD_NAME, f"its name cannot be used: {wrong}"
    elif entry.flags & (_IS_ENCRYPTED | _HAS_HIDDEN_HEADERS):
        flaw, detail = ENCRYPTED, "it is encrypted; unpack it with its password"
    elif method is None:
        flaw, detail = UNKNOWN_METHOD, f"it is packed by method {entry.method}; 0 (stored) and 8 (deflate) can be read"
    elif stat.S_IFMT(entry.mode) not in (0, stat.S_IFREG):
        flaw, detail = LINK, "it is a link or a device"
    elif entry.end > place.claimed_offset:
        flaw, detail = OUTSIDE, f"its bytes would end at {entry.end}, beyond the members of its archive"
    elif overlaps:
        flaw, detail = OVERLAPPING, "its bytes are in part those of another member"
    elif entry.size > max(_SMALL, _MAX_RATIO * entry.stored):
        flaw, detail = IMPLAUSIBLE, f"it claims to have {entry.size} bytes, stored in {entry.stored}"
    return Member(
        name,
        archive.location,
        place.shift + entry.offset,
        entry.stored,
        str(Packing(method or "stored", entry.crc, entry.size)),
        archive.entry.size,
        archive.entry.mtime_ns,
        flaw,
        detail,
    )


def _name(entry: _Entry) -> tuple[str, str]:
    """Return a member's name, and why it cannot be used; "" if it can.

    A name is UTF-8 if its entry says so. Else it should be in code page 437, but many programs write UTF-8 there too.
    """
    raw = entry.unicode_name or entry.name
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        if entry.flags & _IS_UTF8 or entry.unicode_name:
            return raw.decode("utf-8", "backslashreplace"), f"byte 0x{raw[error.start]:02X} in it is not UTF-8"
        name = raw.decode("cp437")
    return usable_name(name.replace("\\", "/") if entry.has_backslashes else name)
