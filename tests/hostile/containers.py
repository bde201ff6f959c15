"""Videos whose headers claim what no memory holds: counts, sizes and depths, in every container that is read."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

MOST = 0xFFFFFFFF
"""The largest count that a field of four bytes has."""


# ---- MP4 -------------------------------------------------------------------------------------------------------


def box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + kind + data


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


_MATRIX = numbers(1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_FTYP = box(b"ftyp", b"isom", numbers(512), b"isommp41")
_TABLES = {
    b"stts": numbers(0, 1, 8, 1),
    b"stsc": numbers(0, 1, 1, 8, 1),
    b"stsz": numbers(0, 100, 8),
    b"stco": numbers(0, 1, 48),
}


def _entry(*inside: bytes, kind: bytes = b"avc1") -> bytes:
    head = bytes(6) + b"\0\1" + bytes(16) + struct.pack(">HHIIIH", 1280, 720, 72 << 16, 72 << 16, 0, 1)
    return box(kind, head, bytes(32), struct.pack(">Hh", 24, -1), *inside)


def track(tables: dict[bytes, bytes] | None = None, entry: bytes = b"", edits: bytes = b"") -> bytes:
    described = box(b"stsd", numbers(0, 1), entry or _entry())
    stbl = box(b"stbl", described, *(box(kind, data) for kind, data in ({**_TABLES, **(tables or {})}).items()))
    dinf = box(b"dinf", box(b"dref", numbers(0, 1), box(b"url ", numbers(1))))
    minf = box(b"minf", box(b"vmhd", numbers(1, 0, 0)), dinf, stbl)
    hdlr = box(b"hdlr", numbers(0, 0), b"vide", bytes(13))
    mdia = box(b"mdia", box(b"mdhd", numbers(0, 0, 0, 16, 8, 0)), hdlr, minf)
    tkhd = box(b"tkhd", numbers(7, 0, 0, 1, 0, 8, 0, 0, 0, 0), _MATRIX, numbers(1280 << 16, 720 << 16))
    return box(b"trak", tkhd, edits, mdia)


def movie(*inside: bytes) -> bytes:
    mvhd = box(b"mvhd", numbers(0, 0, 0, 16, 8, 1 << 16, 1 << 24, 0, 0), _MATRIX, bytes(24), numbers(2))
    return _FTYP + box(b"moov", mvhd, *inside) + box(b"mdat", bytes(800))


def _table(kind: bytes, data: bytes) -> bytes:
    return movie(track({kind: data}))


def _deep(kind: bytes, depth: int) -> bytes:
    """Boxes in boxes, each as long as all that follows."""
    return b"".join(struct.pack(">I", 8 * (depth - place)) + kind for place in range(depth))


def _compressed_movie() -> bytes:
    """Its unpacked header is said to have 4 GB."""
    cmvd = box(b"cmvd", numbers(MOST), zlib.compress(bytes(64 << 20)))
    return _FTYP + box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), cmvd))


def _fragments() -> bytes:
    def moof(count: int) -> bytes:
        trun = box(b"trun", numbers(0x000201, count, 0), numbers(100))
        return box(b"moof", box(b"mfhd", numbers(0, 1)), box(b"traf", box(b"tfhd", numbers(0, 1)), trun))

    mvex = box(b"mvex", box(b"trex", numbers(0, 1, 1, 1, 100, 0)))
    return movie(track(), mvex) + moof(MOST) * 500


_MP4: dict[str, Callable[[], bytes]] = {
    "mp4: sizes, 4G of one": lambda: _table(b"stsz", numbers(0, 100, MOST)),
    "mp4: sizes, 4G that are not there": lambda: _table(b"stsz", numbers(0, 0, MOST)),
    "mp4: small sizes, 4G": lambda: _table(b"stz2", numbers(0, 4, MOST)),
    "mp4: times, 4G entries": lambda: _table(b"stts", numbers(0, MOST)),
    "mp4: times, 4G frames each": lambda: _table(b"stts", numbers(0, 9000, *([MOST, 1] * 9000))),
    "mp4: chunks of 4G frames": lambda: _table(
        b"stsc", numbers(0, 4000, *(n for i in range(4000) for n in (1 + i * 9**6, MOST, 1)))
    ),
    "mp4: places, 4G": lambda: _table(b"stco", numbers(0, MOST)),
    "mp4: long places, 4G": lambda: _table(b"co64", numbers(0, MOST)),
    "mp4: delays, 4G frames each": lambda: _table(b"ctts", numbers(0, 9000, *([MOST, 1] * 9000))),
    "mp4: keyframes, 4G": lambda: _table(b"stss", numbers(0, MOST)),
    "mp4: edits, 4G": lambda: movie(track(edits=box(b"edts", box(b"elst", numbers(0, MOST, 1, 0, 1 << 16))))),
    "mp4: descriptions, 4G": lambda: _table(b"stsd", numbers(0, MOST)),
    "mp4: groups, 4G": lambda: _table(b"sbgp", numbers(0, 0x726F6C6C, MOST, MOST, 1)),
    "mp4: 20,000 tracks": lambda: movie(track() * 20_000),
    "mp4: 50,000 boxes deep": lambda: _FTYP + _deep(b"moov", 50_000),
    "mp4: 50,000 boxes deep in user data": lambda: movie(track(), _deep(b"udta", 50_000)),
    "mp4: a box of 2^63 bytes": lambda: _FTYP + struct.pack(">I4sQ", 1, b"moov", 1 << 63) + bytes(4000),
    "mp4: 4G keys": lambda: movie(
        track(),
        box(
            b"meta",
            box(b"hdlr", numbers(0, 0), b"mdta", bytes(13)),
            box(b"keys", numbers(0, MOST), box(b"mdta", b"k" * 40) * 2000),
        ),
    ),
    "mp4: a compressed header of 4 GB": _compressed_movie,
    "mp4: 500 fragments of 4G frames": _fragments,
    "mp4: an index of 65,535 pieces": lambda: (
        _FTYP + box(b"sidx", numbers(0, 1, 16, 0, 0, 0xFFFF), numbers(1 << 30, MOST, 0) * 0xFFFF) + movie(track())[24:]
    ),
    "mp4: parameter sets of 64 KB": lambda: movie(
        track(
            entry=_entry(
                box(
                    b"avcC",
                    b"\1\x64\0\x1f\xff\xff",
                    (struct.pack(">H", 0xFFFF) + b"\x67\x64\0\x1f" + b"\x88" * 0xFFFB) * 31,
                )
            )
        )
    ),
    "mp4: HEVC parameter arrays": lambda: movie(
        track(
            entry=_entry(
                box(b"hvcC", b"\1" + bytes(21) + b"\xff", (b"\x20\xff\xff" + (b"\0\2\x40\1" * 0xFFFF)) * 8),
                kind=b"hvc1",
            )
        )
    ),
}


# ---- Matroska --------------------------------------------------------------------------------------------------


def element(name: str, content: bytes = b"", size: int | None = None) -> bytes:
    return bytes.fromhex(name) + ((1 << 56) | (len(content) if size is None else size)).to_bytes(8, "big") + content


_EBML = element("1a45dfa3", element("4282", b"matroska") + element("4287", b"\4") + element("4285", b"\2"))
_HUGE = (1 << 56) - 2


def _mkv_track(extra: bytes = b"") -> bytes:
    video = element("e0", element("b0", b"\5\0") + element("ba", b"\2\xd0"))
    return element(
        "ae", element("d7", b"\1") + element("83", b"\1") + element("86", b"V_MPEG4/ISO/AVC") + video + extra
    )


def _mkv(*inside: bytes, size: int | None = None) -> bytes:
    return _EBML + element("18538067", b"".join(inside), size)


def _nested(name: str, depth: int) -> bytes:
    return b"".join(element(name, size=12 * (depth - place)) for place in range(depth))


_INFO = element("1549a966", element("2ad7b1", b"\x0f\x42\x40") + element("4489", struct.pack(">d", 1e300)))
_TRACKS = element("1654ae6b", _mkv_track())
_CUE = element("bb", element("b3", b"\1") + element("b7", element("f7", b"\1") + element("f1", b"\x7f" * 8)))

_MATROSKA: dict[str, Callable[[], bytes]] = {
    "mkv: a segment of 2^56 bytes": lambda: _mkv(_INFO, _TRACKS, size=_HUGE),
    "mkv: codec data of 2^56 bytes": lambda: _mkv(
        _INFO, element("1654ae6b", _mkv_track(element("63a2", b"x" * 64, _HUGE)), _HUGE)
    ),
    "mkv: codec data of 2 GB": lambda: _mkv(
        _INFO, element("1654ae6b", _mkv_track(element("63a2", b"x" * 64, 2 << 30)), 3 << 30), size=4 << 30
    ),
    "mkv: attachments of 4 GB": lambda: _mkv(
        _INFO,
        _TRACKS,
        element(
            "1941a469",
            element(
                "61a7",
                element("466e", b"a.jpg")
                + element("4660", b"image/jpeg")
                + element("465c", b"\xff\xd8\xff" * 20, 4 << 30),
                4 << 30,
            ),
            5 << 30,
        ),
        size=6 << 30,
    ),
    "mkv: 20,000 chapters deep": lambda: _mkv(
        _INFO, _TRACKS, element("1043a770", element("45b9", _nested("b6", 20_000)))
    ),
    "mkv: 20,000 tags deep": lambda: _mkv(
        _INFO, _TRACKS, element("1254c367", element("7373", _nested("67c8", 20_000)))
    ),
    "mkv: 20,000 clusters deep": lambda: _mkv(_INFO, _TRACKS, _nested("1f43b675", 20_000)),
    "mkv: 50,000 tracks": lambda: _mkv(_INFO, element("1654ae6b", _mkv_track() * 50_000)),
    "mkv: 300,000 cues": lambda: _mkv(_INFO, _TRACKS, element("1c53bb6b", _CUE * 300_000)),
    "mkv: 500,000 voids": lambda: _mkv(_INFO, element("ec") * 500_000, _TRACKS),
    "mkv: 100,000 tags": lambda: _mkv(
        _INFO,
        _TRACKS,
        element(
            "1254c367", element("7373", element("67c8", element("45a3", b"NAME") + element("4487", b"x" * 9))) * 100_000
        ),
    ),
    "mkv: a document type of 1 GB": lambda: (
        element("1a45dfa3", element("4282", b"matroska", 1 << 30), 1 << 31) + bytes(4000)
    ),
    "mkv: packed codec data": lambda: _mkv(
        _INFO,
        element(
            "1654ae6b",
            _mkv_track(
                element("6d80", element("6240", element("5034", element("4254", b"\0"))))
                + element("63a2", zlib.compress(bytes(256 << 20)))
            ),
        ),
    ),
}


# ---- AVI -------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, *content: bytes, size: int | None = None) -> bytes:
    data = b"".join(content)
    return kind + struct.pack("<I", len(data) if size is None else size) + data + bytes(len(data) % 2)


def _little(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def _avi(*after: bytes, index: bytes = b"", streams: int = 1, frames: int = 8, copies: int = 1) -> bytes:
    strh = chunk(b"strh", b"vidsMJPG", bytes(12), _little(1, 16, 0, frames, 0, 0, 0), bytes(8))
    strf = chunk(b"strf", _little(40, 1280, 720, 0x180001), b"MJPG", bytes(20))
    avih = chunk(b"avih", _little(62500, 0, 0, 0x10, frames, 0, streams, 0, 1280, 720), bytes(16))
    strl = chunk(b"LIST", b"strl", strh, strf, index)
    hdrl = chunk(b"LIST", b"hdrl", avih, strl * copies)
    return chunk(b"RIFF", b"AVI ", hdrl, chunk(b"LIST", b"movi", chunk(b"00dc", bytes(100))), *after)


_AVI: dict[str, Callable[[], bytes]] = {
    "avi: an index of 4 GB": lambda: _avi(chunk(b"idx1", b"00dc" + bytes(12), size=MOST - 1)),
    "avi: an index of 1,000,000 entries": lambda: _avi(chunk(b"idx1", (b"00dc" + _little(16, 4, 100)) * 1_000_000)),
    "avi: a super index of 4G entries": lambda: _avi(
        index=chunk(b"indx", b"\4\0\0\0", _little(MOST), b"00dc", bytes(12), bytes(16 * 200))
    ),
    "avi: 4G streams and frames": lambda: _avi(streams=MOST, frames=MOST),
    "avi: 20,000 streams": lambda: _avi(copies=20_000),
    "avi: 100,000 lists deep": lambda: b"RIFF\xff\xff\xff\xffAVI " + b"LIST\xff\xff\xff\xfehdrl" * 100_000,
    "avi: 500,000 lists of text": lambda: _avi(chunk(b"LIST", b"INFO", chunk(b"INAM", b"name") * 500_000)),
}


# ---- MPEG ------------------------------------------------------------------------------------------------------


def _crc(data: bytes) -> bytes:
    crc = MOST
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & MOST
    return struct.pack(">I", crc)


def _section(pid: int, table: int, number: int, content: bytes) -> bytes:
    data = struct.pack(">BHHBBB", table, 0xB000 | (len(content) + 9), number, 0xC1, 0, 0) + content
    data = b"\0" + data + _crc(data)
    packets = b""
    for place in range(0, len(data), 184):
        start = 0x4000 if place == 0 else 0
        packets += struct.pack(">BHB", 0x47, start | pid, 0x10 | (place // 184) % 16) + data[place : place + 184].ljust(
            184, b"\xff"
        )
    return packets


def _programs(count: int, streams: int) -> bytes:
    """A broadcast of so many programs with so many streams each."""
    known = b"".join(struct.pack(">HH", 1 + program, 0xE000 | (32 + program)) for program in range(count))
    packets = _section(0, 0, 1, known)
    for program in range(count):
        listed = b"".join(
            struct.pack(">BHH", 0x1B, 0xE000 | (0x400 + (program * streams + n) % 0x1800), 0xF000)
            for n in range(streams)
        )
        packets += _section(32 + program, 2, 1 + program, struct.pack(">HH", 0xFFFF, 0xF000) + listed)
    return packets


def _noise_packets(count: int) -> bytes:
    rng = random.Random(1)
    return b"".join(
        struct.pack(">BHB", 0x47, 0x4000 | rng.randrange(0x1FFF), 0x10) + b"\0\0\1\xe0" + rng.randbytes(180)
        for _ in range(count)
    )


_MPEG: dict[str, Callable[[], bytes]] = {
    "ts: 250 programs of 190 streams": lambda: _programs(250, 190),
    "ts: programs that change": lambda: b"".join(_programs(4, 3 + n % 150) for n in range(300)),
    "ts: 60,000 packets of noise": lambda: _programs(20, 20) + _noise_packets(60_000),
    "mpg: 200,000 pictures without an end": lambda: (
        b"\0\0\1\xba\x44\0\4\0\4\1\0\1\x89\xc3\xf8"
        + (b"\0\0\1\xe0\0\0\x80\0\0\0\0\1\xb3\x50\x02\xd0\x13\xff\xff\xe0\x18") * 200_000
    ),
    "mpg: a stream map of 64 KB, often": lambda: (
        (
            b"\0\0\1\xba\x44\0\4\0\4\1\0\1\x89\xc3\xf8"
            + b"\0\0\1\xbc\xff\xff"
            + b"\x81\xff\0\0\xff\xf0"
            + b"\x1b\xe0\0\0" * 16000
        )
        * 60
    ),
    "h264: parameter sets, 100,000": lambda: (
        (
            b"\0\0\0\1\x67\x64\0\x1f\xac\xd9\x40\x50\x05\xbb\x01\x10\0\0\3\0\x10\0\0\3\3\xc0\xf1\x83\x19\x60"
            + b"\0\0\0\1\x68\xeb\xe3\xcb\x22\xc0"
        )
        * 100_000
    ),
}


# ---- others ----------------------------------------------------------------------------------------------------


def _ogg_page(serial: int, data: bytes, kind: int = 2) -> bytes:
    lacing = bytes([255] * (len(data) // 255) + [len(data) % 255])
    return b"OggS\0" + bytes([kind]) + bytes(8) + _little(serial, 0, 0) + bytes([len(lacing)]) + lacing + data


def _ogg_comments() -> bytes:
    head = b"\x80theora\3\2\1" + struct.pack(">HH", 80, 45) + b"\0\5\0\0\2\xd0" + bytes(2) + numbers(16, 1) + bytes(14)
    return _ogg_page(1, head) + _ogg_page(1, b"\x81theora" + _little(4) + b"name" + _little(MOST, MOST) + bytes(200), 0)


_GUIDS = {
    "header": "3026b2758e66cf11a6d900aa0062ce6c",
    "file": "a1dcab8c47a9cf118ee400c00c205365",
    "stream": "9107dcb7b7a9cf118ee600c00c205365",
    "index": "90080033b1e5cf1189f400a0c90349cb",
    "text": "40a4d0d207e3d21197f000a0c95ea850",
}


def _asf(name: str, content: bytes, size: int | None = None) -> bytes:
    return bytes.fromhex(_GUIDS[name]) + struct.pack("<Q", 24 + (len(content) if size is None else size)) + content


def _klv(key: str, content: bytes, size: int | None = None) -> bytes:
    return bytes.fromhex(key) + b"\x87" + (len(content) if size is None else size).to_bytes(7, "big") + content


def _mxf(*inside: bytes) -> bytes:
    partition = (
        struct.pack(">HHIQQQQQIQI", 1, 3, 512, 0, 0, 0, 1 << 40, 1 << 40, 1, 0, 1) + bytes(16) + numbers(MOST, 16)
    )
    return _klv("060e2b34020501010d01020101020400", partition) + b"".join(inside) + bytes(4000)


def _swf() -> bytes:
    """A compressed Flash film that says it has 4 GB."""
    return b"CWS\x09" + _little(MOST) + zlib.compress(bytes(64 << 20))


def _flv(amf: bytes) -> bytes:
    tag = b"\x12" + len(amf).to_bytes(3, "big") + bytes(7) + amf
    return b"FLV\1\5\0\0\0\x09\0\0\0\0" + tag + numbers(len(tag))


_META = b"\2\0\x0aonMetaData"

_OTHERS: dict[str, Callable[[], bytes]] = {
    "ogg: 100,000 streams": lambda: b"".join(_ogg_page(n, b"\x80theora\3\2\1" + bytes(33)) for n in range(100_000)),
    "ogg: 4G comments of 4 GB": _ogg_comments,
    "flv: 30,000 objects deep": lambda: _flv(_META + b"\3\0\1a" * 30_000),
    "flv: an array of 4G": lambda: _flv(
        _META + b"\x08" + numbers(MOST) + b"\0\1k\x0a" + numbers(MOST) + b"\0" * 90_000
    ),
    "flv: 1,000,000 names": lambda: _flv(
        _META
        + b"\x08"
        + numbers(MOST)
        + b"\0\1k\0"
        + bytes(8)
        + b"".join(b"\0\4" + struct.pack(">I", n) + b"\1\1" for n in range(1_000_000))
    ),
    "asf: 4G objects of 2^60 bytes": lambda: _asf(
        "header", _little(MOST) + b"\1\2" + _asf("file", bytes(80)) + _asf("stream", bytes(54)), 1 << 60
    ),
    "asf: an index of 4G": lambda: (
        _asf("header", _little(1) + b"\1\2" + _asf("file", bytes(80)))
        + _asf("index", bytes(24) + _little(MOST, MOST) + bytes(600))
    ),
    "asf: 65,535 texts": lambda: _asf(
        "header",
        _little(2)
        + b"\1\2"
        + _asf("file", bytes(80))
        + _asf("text", struct.pack("<H", 0xFFFF) + struct.pack("<H4sHH", 4, b"a\0\0\0", 0, 40) * 9000),
    ),
    "mxf: a primer of 4G": lambda: _mxf(_klv("060e2b34020501010d01020101050100", numbers(MOST, 18) + bytes(18 * 900))),
    "mxf: an index of 4G": lambda: _mxf(
        _klv("060e2b34025301010d01020101100100", struct.pack(">HHIIQ", 0x3F0A, 0xFFFF, MOST, 11, 0) + bytes(9000)) * 20
    ),
    "mxf: a set of 2^56 bytes": lambda: _mxf(_klv("060e2b34025301010d01010101012f00", bytes(400), (1 << 56) - 1)),
    "swf: compressed, of 4 GB": _swf,
    "rm: 65,535 properties": lambda: (
        b".RMF"
        + numbers(18, 0, 0, 9)
        + b"\0"
        + b"".join(b"MDPR" + numbers(MOST) + b"\0\0" + bytes(40) + b"\xff" * 300 for _ in range(900))
    ),
    "mp3: a tag of 256 MB": lambda: (
        b"ID3\4\0\0\x7f\x7f\x7f\x7f" + b"APIC\x7f\x7f\x7f\x7f\0\0\3image/png\0\3\0" + bytes(9000)
    ),
    "flac: a picture of 4 GB": lambda: (
        b"fLaC\0\0\0\x22"
        + bytes(34)
        + b"\x86\xff\xff\xff"
        + numbers(3, 9)
        + b"image/png"
        + numbers(0, 1 << 20, 1 << 20, 32, 0, MOST)
        + bytes(900)
    ),
    "ivf: 2^31 wide": lambda: b"DKIF\0\0\x20\0VP80\xff\xff\xff\xff" + _little(MOST, 1, MOST, 0) + bytes(900),
    "dv: noise": lambda: random.Random(2).randbytes(200_000),
}

VIDEOS: dict[str, Callable[[], bytes]] = {**_MP4, **_MATROSKA, **_AVI, **_MPEG, **_OTHERS}


def sparse() -> dict[str, Callable[[], tuple[bytes, int]]]:
    """Files of 10 GB that hold next to nothing."""
    return {
        "mp4: 10 GB of zeros": lambda: (b"", 10 << 30),
        "mp4: 10 GB behind a film": lambda: (movie(track()), 10 << 30),
        "mp4: 10 GB before a header that never comes": lambda: (
            _FTYP + struct.pack(">I4sQ", 1, b"mdat", (10 << 30) - 24),
            10 << 30,
        ),
        "mkv: 10 GB behind its tracks": lambda: (_mkv(_INFO, _TRACKS, size=_HUGE), 10 << 30),
        "ts: 10 GB behind its programs": lambda: (_programs(4, 4) * 40, 10 << 30),
        "png: 10 GB behind its picture": lambda: (b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", MOST, b"IDAT"), 10 << 30),
    }
