"""What the headers of a file say, without decoding a frame."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
from pymediainfo import MediaInfo

UNKNOWN_DURATION = -1.0

_HEAD_BYTES = 1024
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_BINARY = frozenset(range(32)) - frozenset(b"\t\n\f\r")
"""Bytes of which every container and image has some in its first kilobyte, and no text has any."""

# One line a track, only what is needed: half the time of MediaInfo's full report.
_REPORT = (
    "General;General|%Duration%\\n\n"
    "Video;Video|%Duration%|%Source_Duration%|%Width%|%Height%|%PixelAspectRatio%|%Rotation%|%Format%|%matrix_coefficients%\\n\n"
    "Image;Image|||%Width%|%Height%|||%Format%|\\n"
)


class Unreadable(Exception):
    """No demuxer makes sense of the file."""


class NoVideo(Exception):
    """The file is sound and holds neither video nor image."""


@dataclass(frozen=True)
class Measured:
    """A file as displayed: size in square pixels after rotation, `duration` in seconds (0 for an image)."""

    is_image: bool
    width: int
    height: int
    duration: float
    codec: str
    matrix: str


def measure(file: BinaryIO, alias: Path | None = None) -> Measured:
    """Reads a seekable file's headers. Raises Unreadable or NoVideo, with what the demuxer said.

    `alias` is the same file by a path, which takes MediaInfo two thirds of the time; a path without neighbours, among
    which it would look for other parts of the file.
    """
    if file.seek(0, os.SEEK_END) == 0:
        raise Unreadable("the file is empty")
    file.seek(0)
    is_text = _is_text(file.read(_HEAD_BYTES))
    file.seek(0)
    if is_text:
        raise _second_opinion(file)
    report: str = MediaInfo.parse(alias or file, parse_speed=0, output=_REPORT)
    tracks = [line.split("|") for line in report.splitlines()]
    whole = next((fields[1] for fields in tracks if fields[0] == "General"), "")
    for kind, *fields in tracks:
        if kind != "General" and _number(fields[2], 0) and _number(fields[3], 0):
            return _measured(kind == "Image", fields, whole)
    file.seek(0)
    raise _second_opinion(file)


def _is_text(head: bytes) -> bool:
    """Whether MediaInfo must not see it: it goes where a playlist or an XML manifest sends it, over the network too."""
    if head.startswith(_UTF_16):
        head = head.decode("utf-16", "replace").encode()
    words = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    # A transport stream may begin with any byte, but not go on in letters.
    is_markup = words.startswith(b"<") and words[:8].isascii() and words[:8].decode().isprintable()
    return is_markup or words.startswith(b"#EXTM3U") or not _BINARY.intersection(head)


def _measured(is_image: bool, fields: list[str], whole_duration: str) -> Measured:
    shown, stored, coded_width, coded_height, aspect, rotation, codec, matrix = fields
    width, height = round(float(coded_width) * _number(aspect, 1.0)), int(coded_height)
    if round(_number(rotation, 0.0)) % 180 == 90:
        width, height = height, width
    # An edit list may show less than is stored, or promise more than that by starting late.
    lasts = _number(shown, _number(whole_duration, 1000 * UNKNOWN_DURATION))
    milliseconds = min(lasts, _number(stored, lasts))
    return Measured(is_image, width, height, 0.0 if is_image else milliseconds / 1000, codec, matrix)


def _second_opinion(file: BinaryIO) -> Unreadable | NoVideo:
    """FFmpeg's word on a file in which MediaInfo sees no video."""
    try:
        with av.open(file, options={"protocol_whitelist": "none"}) as container:
            kinds = sorted({stream.type for stream in container.streams})
    except av.FFmpegError as error:
        return Unreadable(error.strerror or type(error).__name__)
    if not kinds:
        return Unreadable("no streams in it")
    if "video" in kinds:
        return Unreadable("its headers give the video no size")
    return NoVideo(f"streams in the file: {', '.join(kinds)}")


def _number(text: str, default: float) -> float:
    try:
        return float(text)
    except ValueError:
        return default
