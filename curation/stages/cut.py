"""Cutting: a run of ffmpeg turns a span of a source into the MP4 in the shard; an image becomes a JPEG.

Tested in tests/curation/stages/test_real_clips.py and tests/moments/test_moments.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import av
import ffmpeg as ffmpeg_line

from nextscene.curation.config import BuildConfig, EncodeConfig
from nextscene.curation.media.color import BT709_TO_RGB
from nextscene.curation.media.extract import Extracted, expected_frames, extract
from nextscene.curation.media.image_reader import convert_image
from nextscene.curation.media.probe import Measured
from nextscene.curation.media.seek import Span, timing
from nextscene.curation.outcome import ClipOutcome
from nextscene.shards.format.sample import IMAGES_ARE_JPEGS, SCHEMA_VERSION

_SHORT_BY = 1
_WHOLE = Span(0.0, None)


@dataclass(frozen=True)
class Cut:
    """A finished clip, an MP4 or a JPEG by its `suffix`.

    `frames` is the number of packets counted in an MP4; its header is not trusted.
    """

    media: bytes
    frames: int
    width: int
    height: int
    cpu_seconds: float
    suffix: str = "mp4"


def cut(
    source: Path,
    span: Span,
    measured: Measured,
    config: BuildConfig,
    scratch: Path,
    schema_version: int = SCHEMA_VERSION,
) -> Cut | ClipOutcome:
    """Decode, resample, scale and encode one clip in a child process, as the dataset's schema wants it.

    Return an outcome if the file makes the decoder fail, in whatever way. Raise StorageFault if the scratch disk is
    full.
    """
    if measured.is_image and schema_version >= IMAGES_ARE_JPEGS:
        return _cut_image(source, measured, config, scratch)
    target = scratch / "clip.mp4"
    encode = config.encode

    def finish(picture: ffmpeg_line.nodes.Stream, max_frames: int) -> ffmpeg_line.nodes.OutputStream:
        return ffmpeg_line.output(
            picture,
            f"file:{target}",
            **encoder_options(encode),
            frames=max_frames,
            r=encode.fps,
            video_track_timescale=16384,
        )

    done = extract(source, span, measured, config, scratch, finish)
    if isinstance(done, ClipOutcome):
        return done
    made = _read(target, done)
    expected = expected_frames(span, measured, config, done.first)
    if made.frames + _SHORT_BY < expected and span.length is None:
        # Some headers promise more frames than the file ever had.
        known = timing(source, config.limits)
        if known and known.duration is not None:
            truth = replace(measured, duration=known.duration, end=known.duration)
            expected = min(expected, expected_frames(span, truth, config, done.first))
    if made.frames < max(1, expected - _SHORT_BY):
        promised = f"{expected} by span and duration"
        return ClipOutcome("failed", "short_decode", f"{made.frames} frames, {promised}{done.last_words}")
    return made


def _cut_image(source: Path, measured: Measured, config: BuildConfig, scratch: Path) -> Cut | ClipOutcome:
    target, side = scratch / "clip.jpg", config.encode.image_side
    ffmpeg_seconds, crop = 0.0, measured.crop
    if not measured.color.is_plain:  # an AVIF in HDR, say: ffmpeg converts its colors
        plain = scratch / "plain.bmp"
        done = extract(source, _WHOLE, measured, config, scratch, partial(_bitmap, plain))
        if isinstance(done, ClipOutcome):
            return done
        source, crop, ffmpeg_seconds = plain, None, done.cpu_seconds
    seconds = convert_image(source, target, side, config.limits, crop)
    if isinstance(seconds, ClipOutcome):
        return seconds
    return Cut(target.read_bytes(), 1, side, side, ffmpeg_seconds + seconds, "jpg")


def _bitmap(target: Path, picture: ffmpeg_line.nodes.Stream, _: int) -> ffmpeg_line.nodes.OutputStream:
    options = {"format": "image2", "update": 1, "vcodec": "bmp", "pix_fmt": "bgr24", "frames": 1, "threads": 1}
    return ffmpeg_line.output(picture.filter("scale", **BT709_TO_RGB), f"file:{target}", **options)


def encoder_options(encode: EncodeConfig) -> dict[str, str | int]:
    """Return ffmpeg's options for every clip that is written, whatever its source: H.264 in MP4, tagged as BT.709."""
    return {
        "format": "mp4",
        "vcodec": "libx264",
        "pix_fmt": "yuv420p",
        "preset": encode.preset,
        "crf": encode.crf,
        "g": encode.gop,
        "keyint_min": encode.gop,
        "sc_threshold": 0,
        "bf": 0,
        "threads": 1,
        "color_primaries": "bt709",
        "color_trc": "bt709",
        "colorspace": "bt709",
        "color_range": "tv",
        "movflags": "+faststart",
        "map_metadata": -1,
        "map_chapters": -1,
        "flags:v": "+cgop+bitexact",
        "fflags": "+bitexact",
    }


def _read(target: Path, done: Extracted) -> Cut:
    """Return the clip that ffmpeg wrote; a clip without frames if it cannot be read."""
    try:
        with av.open(str(target)) as container:
            video = container.streams.video[0]
            width, height = video.codec_context.width, video.codec_context.height
            frames = sum(1 for packet in container.demux(video) if packet.size)
    except (av.error.InvalidDataError, av.error.EOFError, FileNotFoundError, IndexError):
        return Cut(b"", 0, 0, 0, done.cpu_seconds)
    return Cut(target.read_bytes(), frames, width, height, done.cpu_seconds)
