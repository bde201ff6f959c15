"""Probing: the properties of a file by its headers, without decoding a frame."""

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
"""Bytes of which every container and image has some in its first kilobyte, and no text has any."""

_IMAGE_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")
# What any other codec decodes to may have an alpha channel, which headers do not tell.
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
# Of these MediaInfo reads the container only, not what the pictures say of themselves.
_READ_BY_FFMPEG = frozenset(["AV1", "VP8", "VP9"])
# Their transparency is a second video beside the first, which only these decoders of ffmpeg read.
_DECODERS_OF_ALPHA = {"VP8": "libvpx", "VP9": "libvpx-vp9"}
# Without an index ffmpeg finds a place by guessing, and it need not be a keyframe.
_WITHOUT_INDEX = frozenset(["BDAV", "MPEG-PS", "MPEG-TS", "Ogg"])
# By so many milliseconds the end of a file without an index may be later than its headers tell.
_GUESSED = 10_000.0
# An AVI whose clock ticks faster than any camera has frames that were left out, which ffmpeg miscounts after a seek.
_FASTEST_CAMERA = 240.0
_MATROSKA_HEAD_BYTES = 64 << 10
_CLUSTER = b"\x1f\x43\xb6\x75"
# The element ProjectionPoseRoll, a float of four or eight bytes.
_ROLL = re.compile(rb"\x76\x75(?:\x84(?=(.{4}))|\x88(?=(.{8})))", re.DOTALL)
_MAX_SIDE = 1 << 16
_MAX_ASPECT = 4.0


class UnreadableFile(Exception):
    """No demuxer makes sense of the file."""


class NoVideo(Exception):
    """The file is sound and holds neither video nor image."""


class ImplausibleHeader(Exception):
    """A header claims what no camera records: the clip would not look as it was meant."""


@dataclass(frozen=True)
class Measured:
    """A file as displayed: size in square pixels after rotation.

    `duration` is the length of the video in seconds: 0 for an image, UNKNOWN_DURATION if the headers do not tell. `end`
    is the latest time at which it can end, on the clock of the file, whose zero is the begin of its earliest stream.
    `stream` is the video as ffmpeg names it: by its number, covers left out, or by its id. `decoder` names one of
    ffmpeg's where its own choice would leave out transparency. `seeking` is how a place in the file is found: by its
    index; by looking at packets, where ffmpeg would guess; or not at all, where times are wrong after a seek.
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


def measure(file: BinaryIO, alias: Path | None = None) -> Measured:
    """Read a seekable file's headers. Raise Unreadable, NoVideo or ImplausibleHeader, with what the demuxer said.

    `alias` is the same file by a path, which takes MediaInfo two thirds of the time; a path without neighbors, among
    which it would look for other parts of the file.
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
    # Of several videos the one that is flagged default is meant, of several of those the first.
    place, chosen = next((one for one in shown if one[1].default != "No"), shown[0])
    measured = _measured_video(chosen, place, container, lasts)
    if measured.color.is_hdr:
        measured = replace(measured, color=replace(measured.color, peak=headers.peak(place)))
    # MPEG-4 tells delays by edit lists, which are part of the duration; what it calls a delay is a time code.
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
    """Return whether MediaInfo must not see it: it goes where a playlist or an XML manifest sends it, over the network
    too.
    """
    if head.startswith(_UTF_16):
        head = head.decode("utf-16", "replace").encode()
    words = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    # A transport stream may begin with any byte, but not go on in letters.
    is_markup = words.startswith(b"<") and words[:8].isascii() and words[:8].decode().isprintable()
    return is_markup or words.startswith(b"#EXTM3U") or not _BINARY.intersection(head)


def _is_image(head: bytes) -> bool:
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return is_webp or head.startswith(_IMAGE_SIGNATURES) or head[4:12] in (b"ftypavif", b"ftypavis")


def _measured_image(file: BinaryIO) -> Measured | None:
    """Return an image by its own headers, turned as its Exif says; None if it is of another kind after all."""
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
    if orientation in (5, 6, 7, 8) and image.format != "TIFF":  # which Pillow turns by itself
        width, height = height, width
    codec = str(image.format)
    return Measured(
        True, width, height, 0.0, codec, MediaInfoReport(file).color_of_image() if codec == "AVIF" else Color()
    )


def _exif(image: Image.Image) -> Image.Exif:
    """Return the Exif data in front of the pixels; `getexif` would decode a whole PNG to look behind them."""
    if image.format != "PNG":
        return image.getexif()
    exif = Image.Exif()
    if data := image.info.get("exif"):
        exif.load(data)
    return exif


def _measured_video(track: Track, place: int, container: str, whole: str) -> Measured:
    """Raise ImplausibleHeader."""
    width, height = _displayed(track)
    # An edit list may show less than is stored, or promise more than that by starting late.
    lasts = milliseconds(track.shown, milliseconds(whole, 1000 * UNKNOWN_DURATION))
    # Of a recording that begins in the middle only what can be decoded counts as its video.
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
    """Probe with FFmpeg a recording that begins in the middle of a picture, which MediaInfo gives up; None if it does,
    too.
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
    """Raise ImplausibleHeader for what would come out as no picture of this file."""
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
    """With FFmpeg's word on color tags that stand in the pictures, and on a layer of transparency."""
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
        return measured  # the cut will meet the same, and say so
    decoder = _DECODERS_OF_ALPHA.get(measured.codec, "") if has_alpha else ""
    return replace(measured, color=color, decoder=decoder, may_have_alpha=bool(decoder))


def _matroska_roll(file: BinaryIO) -> float:
    """Return the rotation of a Matroska in degrees, which MediaInfo does not report."""
    file.seek(0)
    head = file.read(_MATROSKA_HEAD_BYTES).partition(_CLUSTER)[0]
    if found := _ROLL.search(head):
        short, long = found.groups()
        return float(struct.unpack(">f", short)[0] if short else struct.unpack(">d", long)[0])
    return 0.0


def _turned(measured: Measured, degrees: float) -> Measured:
    """Raise ImplausibleHeader for a turn that is not a quarter."""
    if not math.isfinite(degrees) or round(degrees) % 90:
        raise ImplausibleHeader(f"a picture turned by {degrees:g} degrees")
    if round(degrees) % 180 == 90:
        return replace(measured, width=measured.height, height=measured.width)
    return measured


def _second_opinion(file: BinaryIO) -> UnreadableFile | NoVideo:
    """FFmpeg's word on a file in which MediaInfo sees no video."""
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
    """Raise av.FFmpegError, but MemoryError where memory is what is missing."""
    file.seek(0)
    try:
        with av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
            yield container
    except av.error.MemoryError as error:
        raise MemoryError from error


def _kind(stream: av.stream.Stream) -> str:
    return "cover" if stream.disposition & av.stream.Disposition.attached_pic else stream.type
