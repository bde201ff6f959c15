"""Cutting: one pass of ffmpeg from a span of a source to the clip that stands in the shard."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import av
import ffmpeg as ffmpeg_line

from curation import ffmpeg
from curation.config import Config, Encode
from curation.outcome import Ending
from curation.probe import UNKNOWN_DURATION, Measured
from curation.sources import OPEN_END
from curation.watchdog import watchdog
from shards.storage import StorageFault

# What may be inside a file that a stranger made: containers only, no playlists that open further files.
_CONTAINERS = "asf,avi,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,m4v,mxf,ogg"
_IMAGE_FORMATS = {
    "Bitmap": "bmp_pipe",
    "JPEG": "jpeg_pipe",
    "PNG": "png_pipe",
    "TIFF": "tiff_pipe",
    "WebP": "webp_pipe",
}
TO_BT709 = {"out_color_matrix": "bt709", "out_range": "tv", "flags": "bicubic+accurate_rnd+full_chroma_int+bitexact"}
"""What the filter `scale` is told, so that its pictures are what the tags say."""

_CRASHES_ALLOWED = 3
_SHORT_BY = 1


@dataclass(frozen=True)
class Cut:
    """A finished clip. `frames` is the number of packets in the file, whatever its header says."""

    mp4: bytes
    frames: int
    width: int
    height: int
    cpu_seconds: float


@dataclass(frozen=True)
class Span:
    """What is cut from a file: seconds from its start, and how long, or None to its end."""

    start: float
    length: float | None

    @staticmethod
    def of(start_ms: int, end_ms: int) -> Span:
        return Span(start_ms / 1000, None if end_ms == OPEN_END else (end_ms - start_ms) / 1000)


def expected_frames(span: Span, measured: Measured, encode: Encode) -> int:
    """How many frames span and duration promise; 1 where the duration is not known."""
    if measured.is_image or measured.duration == UNKNOWN_DURATION:
        return 1
    left = round((measured.duration - span.start) * encode.fps)
    return max(1, min(_most_frames(span, measured, encode), left))


def cut(source: Path, span: Span, measured: Measured, config: Config, scratch: Path) -> Cut | Ending:
    """Decodes, resamples, scales and encodes one clip in a child process.

    Whatever the file does to the decoder is the clip's own end. Raises StorageFault when the scratch disk is full.
    """
    target = scratch / "clip.mp4"
    line = command(source, target, span, measured, config)
    cpu_seconds = 0.0
    for _ in range(_CRASHES_ALLOWED):
        child = ffmpeg.run(line, config.limits)
        cpu_seconds += child.cpu_seconds
        if child.code is None or child.code >= 0:
            break
    if child.code != 0:
        raise_if_disk_full(child.stderr, scratch)
        return broken(child, config)
    with watchdog(config.limits.clip_seconds):
        return _checked(target, expected_frames(span, measured, config.encode), cpu_seconds, child.stderr)


def command(source: Path, target: Path, span: Span, measured: Measured, config: Config) -> list[str]:
    """Ffmpeg's arguments, without the program. Single-threaded and bit-exact: other thread counts give other bytes."""
    encode = config.encode
    line = ffmpeg_line.output(
        picture(source, span, measured, config), f"file:{target}", **encoding(encode),
        frames=_most_frames(span, measured, encode), r=encode.fps, video_track_timescale=16384,
    )  # fmt: skip
    return arguments(line)


def encoding(encode: Encode) -> dict[str, str | int]:
    """Ffmpeg's options for every clip that is written, whatever it is made of: H.264 in MP4, tagged as BT.709."""
    return {
        "format": "mp4", "vcodec": "libx264", "pix_fmt": "yuv420p", "preset": encode.preset, "crf": encode.crf,
        "g": encode.gop, "keyint_min": encode.gop, "sc_threshold": 0, "bf": 0, "threads": 1,
        "color_primaries": "bt709", "color_trc": "bt709", "colorspace": "bt709", "color_range": "tv",
        "movflags": "+faststart", "map_metadata": -1, "map_chapters": -1,
        "flags:v": "+cgop+bitexact", "fflags": "+bitexact",
    }  # fmt: skip


def picture(source: Path, span: Span, measured: Measured, config: Config) -> ffmpeg_line.nodes.Stream:
    """The clip's frames, from its begin on: at the configured rate and size, in square pixels."""
    stream = ffmpeg_line.input(f"file:{source}", threads=1, protocol_whitelist="file", **_demuxing(span, measured))[
        "v:0" if measured.is_image else "V:0"
    ]
    if not measured.is_image:
        # A first frame that is shown late is shown from the start; a clip begins at its span.
        stream = stream.filter("fps", fps=config.encode.fps, round="near", start_time=0)
    return _scaled(stream, measured, config).filter("setsar", sar=1)


def arguments(line: ffmpeg_line.nodes.OutputStream) -> list[str]:
    """Ffmpeg's arguments for one output, single-threaded and silent but for errors."""
    quiet = ["-hide_banner", "-nostdin", "-loglevel", "error", "-filter_threads", "1", "-filter_complex_threads", "1"]
    return [*quiet, *ffmpeg_line.get_args(line, overwrite_output=True)]


def _most_frames(span: Span, measured: Measured, encode: Encode) -> int:
    """The last source frame of a span may last longer than the span; the clip does not."""
    if measured.is_image:
        return 1
    if span.length is None:
        return encode.max_frames
    return max(1, min(encode.max_frames, round(span.length * encode.fps)))


def _demuxing(span: Span, measured: Measured) -> dict[str, str]:
    if measured.is_image:
        # Named, not guessed: the demuxer that ffmpeg takes for image files reads whole sequences of them.
        demuxer = _IMAGE_FORMATS.get(measured.codec, "image2")
        return {"format": demuxer, "format_whitelist": ",".join(_IMAGE_FORMATS.values())}
    options = {"format_whitelist": _CONTAINERS}
    if span.start:
        options["ss"] = f"{span.start:.3f}"
    if span.length is not None:
        options["t"] = f"{span.length:.3f}"
    return options


def _scaled(stream: ffmpeg_line.nodes.Stream, measured: Measured, config: Config) -> ffmpeg_line.nodes.Stream:
    """To square pixels and BT.709: covering the training size and cropped to it, or at the source's own size."""
    encode = config.encode
    width, height = (encode.image_side,) * 2 if measured.is_image else (encode.width, encode.height)
    colours = {**TO_BT709}
    if not measured.matrix:
        # Untagged video is BT.709 if it is HD and BT.601 if it is not; ffmpeg would take BT.601 for all.
        colours["in_color_matrix"] = "bt709" if max(measured.width, measured.height) >= 1280 else "smpte170m"
    if config.resolution == "native" and not measured.is_image:
        return stream.filter("scale", w="round(iw*sar/2)*2", h="round(ih/2)*2", **colours)
    covering_width = f"max({width},ceil({height}*iw*sar/ih/2)*2)"
    covering_height = f"max({height},ceil({width}*ih/(iw*sar)/2)*2)"
    return stream.filter("scale", w=covering_width, h=covering_height, **colours).filter("crop", w=width, h=height)


def _checked(target: Path, expected: int, cpu_seconds: float, stderr: str) -> Cut | Ending:
    try:
        with av.open(str(target)) as container:
            video = container.streams.video[0]
            width, height = video.codec_context.width, video.codec_context.height
            frames = sum(1 for packet in container.demux(video) if packet.size)
    except (av.error.InvalidDataError, av.error.EOFError, FileNotFoundError, IndexError):
        frames = width = height = 0
    if frames < max(1, expected - _SHORT_BY):
        said = f"; {stderr.splitlines()[-1]}" if stderr else ""
        return Ending("failed", "short_decode", f"{frames} frames, {expected} by span and duration{said}")
    return Cut(target.read_bytes(), frames, width, height, cpu_seconds)


def broken(child: ffmpeg.Run, config: Config) -> Ending:
    """What a child's end says of the clip."""
    said = child.stderr.splitlines()[-1] if child.stderr else "it said nothing"
    if child.code is None:
        return Ending("failed", "cut_timeout", f"ffmpeg not done in {config.limits.clip_seconds:g} s: {said}")
    if child.code < 0:
        return Ending("failed", "cut_crashed", f"ffmpeg died of {signal.Signals(-child.code).name}: {said}")
    return Ending("failed", "cut_error", f"ffmpeg ended with status {child.code}: {said}")


def raise_if_disk_full(stderr: str, scratch: Path) -> None:
    """Raises StorageFault: that is not the clip's fault."""
    # At the end of a line it is ffmpeg that speaks; elsewhere it may be the name of a file.
    said = any(line.endswith(f": {os.strerror(errno.ENOSPC)}") for line in stderr.splitlines())
    if said or shutil.disk_usage(scratch).free < 1 << 20:
        raise StorageFault(
            f"no space left in the scratch folder {scratch.parent}; free some, or set TMPDIR to a larger disk"
        )
