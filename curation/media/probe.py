"""Probing: the properties of a file from its headers, without decoding a frame."""

from __future__ import annotations

import math
import os
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Literal

import av
from PIL import Image

from nextscene.curation.media.color import Color
from nextscene.curation.media.mediainfo import MediaInfoReport, Track, milliseconds, number
from nextscene.curation.media.still_image import FORMATS, MAX_PIXELS

UNKNOWN_DURATION = -1.0

_HEAD_BYTES = 1024
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_BINARY = frozenset(range(32)) - frozenset(b"\t\n\f\r")
"""Bytes that occur in the first kilobyte of every container and image, and in no text."""

_IMAGE_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")
# The pictures of all other codecs may have an alpha channel, which headers do not show.
_WITHOUT_ALPHA = frozenset(
    [
        "AV1",
        "AVC",
        "DV",
        "H.263",
        "HEVC",
        "JPEG",
        "M-JPEG",
        "MPEG Video",
        "MPEG-4 Visual",
        "Sorenson Spark",
        "Theora",
        "V_MJPEG",
        "VC-1",
        "VP6",
        "VP8",
        "VP9",
        "VVC",
        "WMV1",
        "WMV2",
        "YUV",
    ]
)
# For these MediaInfo reads only the container, not the tags inside the pictures.
_READ_BY_FFMPEG = frozenset(["AV1", "VP8", "VP9"])
# Their transparency is a second video beside the first. Of ffmpeg's decoders only these read it.
_DECODERS_OF_ALPHA = {"VP8": "libvpx", "VP9": "libvpx-vp9"}
# Without an index ffmpeg guesses a place to seek to, and it may not be a keyframe.
_WITHOUT_INDEX = frozenset(["BDAV", "MPEG-PS", "MPEG-TS", "Ogg"])
# Milliseconds by which the end of a file without an index may be later than its headers say.
_GUESSED = 10_000.0
# An AVI whose frame rate is higher than any camera's has left-out frames, which ffmpeg miscounts after a seek.
_FASTEST_CAMERA = 240.0
_MATROSKA_HEAD_BYTES = 64 << 10
_CLUSTER = b"\x1f\x43\xb6\x75"
# The element ProjectionPoseRoll, a float of four or eight bytes.
_ROLL = re.compile(rb"\x76\x75(?:\x84(?=(.{4}))|\x88(?=(.{8})))", re.DOTALL)
_MAX_SIDE = 1 << 16
_MAX_ASPECT = 4.0


class UnreadableFile(Exception):
    """An error: no demuxer can read the file."""


class NoVideo(Exception):
    """An error: the file is readable but has neither video nor image."""


class ImplausibleHeader(Exception):
    """An error: a header has values that no camera records, so that the clip would not look as intended."""


@dataclass(frozen=True)
class Crop:
    """A part of a picture, in pixels as displayed."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Measured:
    """A file as displayed: `width` and `height` are in square pixels after rotation. Only `crop` is kept, if given.

    `duration` is the length of the video in seconds: 0 for an image, UNKNOWN_DURATION if the headers do not give it.
    `end` is the latest time in seconds at which it can end. It counts from the begin of the file's earliest stream.
    `stream` is ffmpeg's name of the video: its number without counting covers, or its id. `decoder` names a decoder of
    ffmpeg if the default one would ignore transparency; "" stands for the default. `seeking` says how a place in the
    file is found: by its index; by reading packets, if ffmpeg would guess; or never, if times are wrong after a seek.
    """

    is_image: bool
    width: int
    height: int
    duration: float
    codec: str
    color: Color = field(default_factory=Color)
    end: float = UNKNOWN_DURATION
    stream: str = "V:0"
    decoder: str = ""
    may_have_alpha: bool = False
    seeking: Literal["index", "packets", "none"] = "index"
    crop: Crop | None = None

    @property
    def kept_size(self) -> tuple[int, int]:
        """Return the width and height of what is kept of the picture."""
        return (self.crop.width, self.crop.height) if self.crop else (self.width, self.height)


def measure(file: BinaryIO, alias: Path | None = None) -> Measured:
    """Measure a seekable file by its headers. Raise UnreadableFile, NoVideo or ImplausibleHeader, with the reason.

    `alias` is a path to the same file, with which MediaInfo takes two thirds of the time. The path must not have
    neighbors, since MediaInfo would search them for other parts of the file.
    """
    if file.seek(0, os.SEEK_END) == 0:
        raise UnreadableFile("the file is empty")
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if _is_text(head):
        raise _second_opinion(file)
    if head.startswith(b"GIF8"):
        raise UnreadableFile("GIF is not read; convert it to a video or an image of another kind")
    if _is_image(head) and (image := _measured_image(file)):
        return image
    headers = MediaInfoReport(file, alias)
    container, lasts, videos = headers.tracks()
    shown = [(place, track) for place, track in enumerate(videos) if track.has_size]
    if not shown and container in _WITHOUT_INDEX and (recording := _measured_recording(file)):
        return recording
    if not shown:
        raise _second_opinion(file)
    # Of several videos, choose the first that is not flagged as "not default", else the first.
    place, chosen = next((one for one in shown if one[1].default != "No"), shown[0])
    measured = _measured_video(chosen, place, container, lasts)
    if measured.color.is_hdr:
        measured = replace(measured, color=replace(measured.color, peak=headers.peak(place)))
    # MPEG-4 has delays in edit lists, which are part of the duration. What MediaInfo calls its delay is a time code.
    if chosen.milliseconds_late and container != "MPEG-4" and measured.end != UNKNOWN_DURATION:
        late = max(0.0, chosen.milliseconds_late - headers.earliest_audio())
        measured = replace(measured, end=measured.end + late / 1000)
    if container == "AVI" and headers.rate(place) > _FASTEST_CAMERA:
        measured = replace(measured, seeking="none")
    if measured.codec in _READ_BY_FFMPEG:
        measured = _completed(measured, file, place)
    if container in ("Matroska", "WebM"):
        measured = _turned(measured, _matroska_roll(file))
    return measured


def _is_text(head: bytes) -> bool:
    """Return whether a file is text, which MediaInfo must not read.

    MediaInfo opens whatever a playlist or an XML manifest names, even over the network.
    """
    if head.startswith(_UTF_16):
        head = head.decode("utf-16", "replace").encode()
    words = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    # A transport stream may begin with any byte, but letters do not follow it.
    is_markup = words.startswith(b"<") and words[:8].isascii() and words[:8].decode().isprintable()
    return is_markup or words.startswith(b"#EXTM3U") or not _BINARY.intersection(head)


def _is_image(head: bytes) -> bool:
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return is_webp or head.startswith(_IMAGE_SIGNATURES) or head[4:12] in (b"ftypavif", b"ftypavis")


def _measured_image(file: BinaryIO) -> Measured | None:
    """Return an image measured by its headers, turned as its Exif data says; None if Pillow cannot read it."""
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=FORMATS)
            orientation = _exif(image).get(0x0112, 1)
    except Image.DecompressionBombError as error:
        raise ImplausibleHeader(f"an image of more than {MAX_PIXELS:,} pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError):
        return None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImplausibleHeader(f"an image of more than {MAX_PIXELS:,} pixels")
    if orientation in (5, 6, 7, 8) and image.format != "TIFF":  # Pillow turns a TIFF by itself
        width, height = height, width
    codec = str(image.format)
    return Measured(
        True, width, height, 0.0, codec, MediaInfoReport(file).color_of_image() if codec == "AVIF" else Color()
    )


def _exif(image: Image.Image) -> Image.Exif:
    """Return the Exif data before the pixels. For a PNG, `getexif` would decode all pixels to search behind them."""
    if image.format != "PNG":
        return image.getexif()
    exif = Image.Exif()
    if data := image.info.get("exif"):
        exif.load(data)
    return exif


def _measured_video(track: Track, place: int, container: str, whole: str) -> Measured:
    """Return the measurements of a video from MediaInfo's report. `whole` is the container's duration.

    Raise ImplausibleHeader.
    """
    width, height = _displayed(track)
    # An edit list may show less than is stored, or promise more than that by starting late.
    lasts = milliseconds(track.shown, milliseconds(whole, 1000 * UNKNOWN_DURATION))
    # If a recording begins in the middle of a picture, only the part that can be decoded counts as its video.
    latest = lasts if container not in _WITHOUT_INDEX or lasts < 0 else max(lasts, milliseconds(whole, 0.0)) + _GUESSED
    return Measured(
        is_image=False,
        width=width,
        height=height,
        codec=track.codec,
        duration=min(lasts, milliseconds(track.stored, lasts)) / 1000,
        end=latest / 1000,
        color=track.color,
        # In a broadcast the two libraries count streams in different orders.
        stream=f"i:{track.id}" if container in ("BDAV", "MPEG-TS") and track.id.isdigit() else f"V:{place}",
        may_have_alpha=track.codec not in _WITHOUT_ALPHA,
        seeking="packets" if container in _WITHOUT_INDEX else "index",
    )


def _measured_recording(file: BinaryIO) -> Measured | None:
    """Measure a recording that begins in the middle of a picture, by FFmpeg, since MediaInfo fails on it.

    Return None if FFmpeg fails too.
    """
    try:
        with _demuxed(file) as container:
            videos = [stream for stream in container.streams.video if _kind(stream) == "video"]
            lasts = UNKNOWN_DURATION if container.duration is None else container.duration / av.time_base
            if not videos or not videos[0].codec_context.width:
                return None
            codec, aspect = videos[0].codec_context, videos[0].sample_aspect_ratio
    except av.FFmpegError:
        return None
    return Measured(
        is_image=False,
        width=round(codec.width * (aspect or 1)),
        height=codec.height,
        duration=lasts,
        codec=codec.name,
        end=lasts,
        seeking="packets",
        color=Color().completed(int(codec.colorspace), int(codec.color_trc), int(codec.color_primaries)),
    )


def _displayed(track: Track) -> tuple[int, int]:
    """Return width and height in square pixels after rotation. Raise ImplausibleHeader for impossible values."""
    aspect = abs(number(track.aspect, 1.0)) or 1.0
    if not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
        raise ImplausibleHeader(f"pixels {track.aspect} times as wide as high")
    turned = round(number(track.rotation, 0.0)) % 360
    if turned % 90:
        raise ImplausibleHeader(f"a picture turned by {track.rotation} degrees")
    width, height = round(float(track.width) * aspect), round(float(track.height))
    if max(width, height) > _MAX_SIDE:
        raise ImplausibleHeader(f"a picture of {width}×{height}")
    return (height, width) if turned % 180 == 90 else (width, height)


def _completed(measured: Measured, file: BinaryIO, place: int) -> Measured:
    """Return the measurements with color tags inside the pictures and with transparency, both read by FFmpeg."""
    try:
        with _demuxed(file) as container:
            video = [stream for stream in container.streams.video if _kind(stream) == "video"][place]
            has_alpha = video.metadata.get("alpha_mode") == "1"
            color = measured.color.completed(
                int(video.codec_context.colorspace),
                int(video.codec_context.color_trc),
                int(video.codec_context.color_primaries),
            )
    except (av.FFmpegError, IndexError):
        return measured  # the cut will fail in the same way, and report it
    decoder = _DECODERS_OF_ALPHA.get(measured.codec, "") if has_alpha else ""
    return replace(measured, color=color, decoder=decoder, may_have_alpha=bool(decoder))


def _matroska_roll(file: BinaryIO) -> float:
    """Return the rotation of a Matroska file in degrees. MediaInfo does not report it."""
    file.seek(0)
    head = file.read(_MATROSKA_HEAD_BYTES).partition(_CLUSTER)[0]
    if found := _ROLL.search(head):
        short, long = found.groups()
        return float(struct.unpack(">f", short)[0] if short else struct.unpack(">d", long)[0])
    return 0.0


def _turned(measured: Measured, degrees: float) -> Measured:
    """Return the measurements turned by `degrees`. Raise ImplausibleHeader if these are not multiples of 90."""
    if not math.isfinite(degrees) or round(degrees) % 90:
        raise ImplausibleHeader(f"a picture turned by {degrees:g} degrees")
    if round(degrees) % 180 == 90:
        return replace(measured, width=measured.height, height=measured.width)
    return measured


def _second_opinion(file: BinaryIO) -> UnreadableFile | NoVideo:
    """Return the error for a file in which MediaInfo finds no video, as FFmpeg sees the file."""
    try:
        with _demuxed(file) as container:
            kinds = sorted({_kind(stream) for stream in container.streams})
    except av.FFmpegError as error:
        return UnreadableFile(error.strerror or type(error).__name__)
    if not kinds:
        return UnreadableFile("no streams in it")
    if "video" in kinds:
        return UnreadableFile("its headers give the video no size")
    return NoVideo(f"streams in the file: {', '.join(kinds)}")


@contextmanager
def _demuxed(file: BinaryIO) -> Iterator[av.container.InputContainer]:
    """Open a file with FFmpeg's demuxers. Raise av.FFmpegError, or MemoryError for a lack of memory."""
    file.seek(0)
    try:
        with av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
            yield container
    except av.error.MemoryError as error:
        raise MemoryError from error


def _kind(stream: av.stream.Stream) -> str:
    return "cover" if stream.disposition & av.stream.Disposition.attached_pic else stream.type
