"""The form in which an archive stores a member, and the way back to the member's own bytes."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast, get_args

Method = Literal["stored", "deflate", "gzip"]
"""In a zip the bytes are stored as they are, or deflated. `gzip` packs the whole tar that the member is in."""

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
"""The header before a member of a zip; its last two fields are the lengths of a name and of further fields."""

_LOCAL_SIGNATURE = b"PK\x03\x04"
_PIECE = 1 << 20
_AHEAD = 4 << 20
_USUAL_NAME = 1 << 10
"""More than most names and further fields have, so that a short member is read at once."""


class DamagedMember(Exception):
    """An error: the bytes of a member are not those that its archive promises. The message is a phrase."""


@dataclass(frozen=True, slots=True)
class Packing:
    """The form in which a member is stored: a method, and the CRC-32 and the number of the member's own bytes."""

    method: Method
    crc: int
    size: int

    def __str__(self) -> str:
        return f"{self.method}:{self.crc:08x}:{self.size}"

    @staticmethod
    def parse(text: str) -> Packing:
        """Return the packing that `str` gave. Raise ValueError."""
        method, crc, size = text.split(":")
        if method not in get_args(Method):
            raise ValueError(f"{method!r} is not a known method of packing")
        return Packing(cast(Method, method), int(crc, 16), int(size))


def is_in_gzip(packed: str) -> bool:
    """Return whether a member that is stored like that, as text, is in a gzipped tar."""
    return packed.startswith("gzip:")


def stored_offset(file: BinaryIO, offset: int) -> int:
    """Return where the bytes of a zip's member begin, given the offset of its header. Raise DamagedMember."""
    file.seek(offset)
    header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or not header.startswith(_LOCAL_SIGNATURE):
        raise DamagedMember(f"its archive has no header at byte {offset}")
    *_, name, further = LOCAL_HEADER.unpack(header)
    return offset + LOCAL_HEADER.size + int(name) + int(further)


def unpack(archive: BinaryIO, offset: int, length: int, packing: Packing, target: Path) -> None:
    """Write a member's own bytes to `target`, in bounded memory, and no more than it may have.

    For the method `gzip`, `archive` is the tar from `open_gzip`. Raise DamagedMember if the number or the CRC-32 of the
    bytes is another one.
    """
    size = crc = 0
    with target.open("wb") as out:
        for data in _own_bytes(archive, offset, length, packing.method):
            size += len(data)
            if size > packing.size:
                raise DamagedMember(f"it has more than the {packing.size} bytes that its archive promises")
            crc = zlib.crc32(data, crc)
            out.write(data)
    _check(size, crc, packing)


def _check(size: int, crc: int, packing: Packing) -> None:
    if size != packing.size:
        raise DamagedMember(f"it has {size} bytes, and its archive promises {packing.size}")
    if crc != packing.crc:
        raise DamagedMember(f"its CRC-32 is {crc:08x}, and its archive promises {packing.crc:08x}")


def read_start(archive: BinaryIO, offset: int, length: int, packing: Packing, most: int) -> bytes:
    """Return the first `most` of a member's own bytes. Raise DamagedMember, as `unpack` if there are no more."""
    found = b""
    for data in _own_bytes(archive, offset, length, packing.method):
        found += data
        if len(found) >= most:
            break
    if packing.size <= most:
        _check(len(found), zlib.crc32(found), packing)
    return found[:most]


def open_gzip(file: BinaryIO) -> gzip.GzipFile:
    """Return the file that a gzip file packs. To seek back in it costs reading it from its beginning."""
    return gzip.GzipFile(fileobj=io.BufferedReader(cast(io.RawIOBase, file), _AHEAD), mode="rb")


def _own_bytes(archive: BinaryIO, offset: int, length: int, method: Method) -> Iterator[bytes]:
    if method == "gzip":
        try:
            archive.seek(offset)
            yield from _range(archive, length)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DamagedMember(f"its archive cannot be unpacked: {error}") from error
        return
    archive = io.BufferedReader(cast(io.RawIOBase, archive), min(_PIECE, LOCAL_HEADER.size + length + _USUAL_NAME))
    try:
        archive.seek(stored_offset(archive, offset))
        pieces = _range(archive, length)
        yield from pieces if method == "stored" else _inflated(pieces)
    finally:
        archive.detach()  # the file stays open


def _range(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length and (piece := file.read(min(length, _PIECE))):
        length -= len(piece)
        yield piece


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in pieces:
            while not inflater.eof and ((data := inflater.decompress(piece, _PIECE)) or inflater.unconsumed_tail):
                yield data
                piece = inflater.unconsumed_tail  # noqa: PLW2901
    except zlib.error as error:
        raise DamagedMember(f"it cannot be unpacked: {error}") from error
    if not inflater.eof:
        raise DamagedMember("its packed bytes end too early")
