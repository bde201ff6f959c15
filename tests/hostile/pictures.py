"""Images whose headers claim what no memory holds, refer to themselves, or unpack without end."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

from PIL import Image

from tests.hostile.containers import MOST, box, chunk, numbers

_BOMB_BYTES = 256 << 20


@cache
def _bomb() -> bytes:
    """A quarter of a megabyte that unpacks to a thousand times as much."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(_BOMB_BYTES >> 20)) + packer.flush()


def _saved(form: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (600, 600), "red").save(file, form)
    return file.getvalue()


# ---- PNG -------------------------------------------------------------------------------------------------------


def _png_chunk(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data) if size is None else size) + kind + data + struct.pack(">I", crc)


def _png(*chunks: bytes, width: int = 600, height: int = 600) -> bytes:
    head = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rest = _saved("PNG")[33:]
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + rest


# ---- TIFF and Exif ---------------------------------------------------------------------------------------------


def _ifd(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


_SIZE = ((256, 4, 1, 600), (257, 4, 1, 600))


def _tiff(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    listed = sorted([*_SIZE, (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), *entries])
    return b"II*\0" + struct.pack("<I", 8) + _ifd(*listed, following=following)


def _big_tiff() -> bytes:
    entries = b"".join(struct.pack("<HHQQ", tag, 4, MOST << 20, 600) for tag in range(256, 1256))
    return b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + struct.pack("<Q", 1 << 60) + entries


# ---- JPEG ------------------------------------------------------------------------------------------------------


def _segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def _jpeg(*segments: bytes) -> bytes:
    whole = _saved("JPEG")
    return whole[:2] + b"".join(segments) + whole[2:]


def _exif(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    return _segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + _ifd(*entries, following=following))


def _profile(place: int, count: int, data: bytes) -> bytes:
    return _segment(0xE2, b"ICC_PROFILE\0" + bytes([place, count]) + data)


# ---- others ----------------------------------------------------------------------------------------------------


def _webp(*chunks: bytes) -> bytes:
    extended = chunk(b"VP8X", bytes([0x2C, 0, 0, 0]) + (599).to_bytes(3, "little") * 2)
    return chunk(b"RIFF", b"WEBP", extended, *chunks, _saved("WEBP")[12:])


def _avif(*boxes: bytes) -> bytes:
    hdlr = box(b"hdlr", numbers(0, 0), b"pict", bytes(13))
    return box(b"ftyp", b"avif", numbers(0), b"avifmif1miaf") + box(b"meta", numbers(0), hdlr, *boxes) + bytes(4000)


def _bmp(width: int, height: int) -> bytes:
    return struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, MOST, 0)


IMAGES: dict[str, Callable[[], bytes]] = {
    "png: a text of 256 MB": lambda: _png(_png_chunk(b"zTXt", b"a\0\0" + _bomb())),
    "png: 100 such texts": lambda: _png(_png_chunk(b"zTXt", b"a\0\0" + _bomb()) * 100),
    "png: a profile of 256 MB": lambda: _png(_png_chunk(b"iCCP", b"a\0\0" + _bomb())),
    "png: 2^31 wide and high": lambda: _png(width=2**31 - 1, height=2**31 - 1),
    "png: 200,000 texts": lambda: _png(_png_chunk(b"tEXt", b"a\0b") * 200_000),
    "png: a chunk of 4 GB": lambda: _png(_png_chunk(b"eXIf", b"II*\0", MOST)),
    "png: 4G frames": lambda: _png(_png_chunk(b"acTL", numbers(MOST, 0))),
    "tif: directories in a loop": lambda: _tiff(following=8),
    "tif: below itself": lambda: _tiff((330, 4, 1, 8), (0x8769, 4, 1, 8)),
    "tif: 4G values each": lambda: _tiff(*((40000 + n, 12, MOST, 8) for n in range(5000))),
    "tif: 4G strips": lambda: _tiff((273, 4, MOST, 8), (279, 4, MOST, 8)),
    "tif: a profile of 4 GB": lambda: _tiff((34675, 7, MOST, 8)),
    "tif: 2^60 entries of 2^52 values": _big_tiff,
    "jpg: 65,000 segments": lambda: _jpeg(_segment(0xEC, b"") * 65_000),
    "jpg: 255 profiles of 64 KB, twice": lambda: _jpeg(
        *(_profile(n % 255 + 1, 255, b"x" * 65_000) for n in range(510))
    ),
    "jpg: directories in a loop": lambda: _jpeg(_exif((0x8769, 4, 1, 8), (0x8825, 4, 1, 8), following=8)),
    "jpg: 4G values each": lambda: _jpeg(_exif(*((40000 + n, 12, MOST, 8) for n in range(4000)))),
    "jpg: 65,535 wide and high": lambda: _jpeg(
        _segment(0xC0, struct.pack(">BHHB", 8, 0xFFFF, 0xFFFF, 3) + b"\1\x11\0\2\x11\1\3\x11\1")
    ),
    "webp: a profile of 4 GB": lambda: _webp(b"ICCP" + struct.pack("<I", MOST - 1)),
    "webp: Exif in a loop": lambda: _webp(chunk(b"EXIF", b"II*\0\x08\0\0\0" + _ifd((0x8769, 4, 1, 8), following=8))),
    "webp: 16,384 wide and high": lambda: chunk(
        b"RIFF", b"WEBP", chunk(b"VP8X", b"\x02\0\0\0" + b"\xff" * 6), chunk(b"ANIM", bytes(6)), b"ANMF" * 50_000
    ),
    "avif: items, 4G": lambda: _avif(
        box(b"iinf", numbers(0x01000000, MOST)), box(b"iloc", numbers(0x02000000), b"\x44\x40", numbers(MOST))
    ),
    "avif: items that refer to themselves": lambda: _avif(
        box(b"pitm", numbers(0), b"\0\1"), box(b"iref", numbers(0), box(b"dimg", b"\0\1\xff\xff" + b"\0\1" * 0xFFFF))
    ),
    "gif: 65,535 wide": lambda: b"GIF89a\xff\xff\xff\xff\xf7\0\0" + bytes(768) + b"\x21\xff\xff" * 9000,
    "bmp: 1,000,000,000 wide": lambda: _bmp(1_000_000_000, 2),
    "bmp: -2^31 high": lambda: _bmp(600, -(2**31)),
}
