"""Keyframes: a few JPEGs of a clip, for a judge that captions it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import ffmpeg as ffmpeg_line

from nextscene.common.frame_sampling import evenly_spaced
from nextscene.curation.config import BuildConfig
from nextscene.curation.media.color import BT709_TO_JPEG
from nextscene.curation.media.extract import expected_frames, extract
from nextscene.curation.media.probe import Measured
from nextscene.curation.media.seek import Span
from nextscene.curation.outcome import ClipOutcome
from nextscene.judge.api.request import Frame
from nextscene.judge.config import ClaudeConfig

_QUALITY = 4
_FOR_RULES = ClaudeConfig(frames=8, frame_height=336)
"""These settings are fixed, so that a rule decides the same under every judge."""


def extract_keyframes(
    source: Path, span: Span, measured: Measured, config: BuildConfig, scratch: Path
) -> tuple[Frame, ...] | ClipOutcome:
    """Return up to `claude.frames` JPEGs, evenly spread over the clip, including its first and its last frame.

    The same file gives the same bytes. Return an outcome if the clip cannot be decoded. Raise StorageFault if the
    scratch disk is full.
    """
    shown = expected_frames(span, measured, config)
    places = evenly_spaced(shown, config.claude.frames)
    chosen = "+".join(f"eq(n,{place})" for place in places)
    scaling = {"w": -2, "h": config.claude.frame_height, **BT709_TO_JPEG}

    def finish(picture: ffmpeg_line.nodes.Stream, max_frames: int) -> ffmpeg_line.nodes.OutputStream:
        picture = picture.filter("select", chosen).filter("scale", **scaling)
        return ffmpeg_line.output(
            picture,
            f"file:{scratch}/look-%03d.jpg",
            format="image2",
            vcodec="mjpeg",
            pix_fmt="yuvj420p",
            threads=1,
            fps_mode="passthrough",
            frames=len(places),
            **{"q:v": _QUALITY, "flags:v": "+bitexact", "fflags": "+bitexact"},
        )

    for old in scratch.glob("look-*.jpg"):
        old.unlink()
    done = extract(source, span, measured, config, scratch, finish)
    if isinstance(done, ClipOutcome):
        return done
    found = frames_in(scratch, places, config)
    return found or ClipOutcome("failed", "short_decode", "no frame could be decoded to caption it from")


def frames_for_rules(
    source: Path, span: Span, measured: Measured, config: BuildConfig, scratch: Path
) -> tuple[Frame, ...] | ClipOutcome:
    """Return the frames for rules. They are made as by `extract_keyframes`, but with fixed settings."""
    return extract_keyframes(source, span, measured, replace(config, claude=_FOR_RULES), scratch)


def frames_in(scratch: Path, places: Sequence[int], config: BuildConfig) -> tuple[Frame, ...]:
    """Return the pictures that ffmpeg wrote, in order, with their times in the clip in seconds."""
    files = sorted(scratch.glob("look-*.jpg"))
    return tuple(_frame(file, place / config.encode.fps) for file, place in zip(files, places, strict=False))


def _frame(file: Path, seconds: float) -> Frame:
    with av.open(str(file), format="jpeg_pipe") as container:
        video = container.streams.video[0]
        return Frame(seconds, video.width, video.height, file.read_bytes())
