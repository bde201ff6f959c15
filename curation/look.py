"""Looking: a few pictures of a clip, for a judge that has to say what it shows."""

from __future__ import annotations

from pathlib import Path

import av
import ffmpeg as ffmpeg_line

from curation import ffmpeg
from curation.config import Config
from curation.cut import Span, arguments, broken, expected_frames, picture, raise_if_disk_full
from curation.outcome import Ending
from curation.probe import Measured
from judge.frames import spread
from judge.request import Frame

_QUALITY = 4


def look(source: Path, span: Span, measured: Measured, config: Config, scratch: Path) -> tuple[Frame, ...] | Ending:
    """Up to `claude.frames` JPEGs, evenly spread over what the clip will show, its first and last frame among them.

    The same file gives the same bytes. Raises StorageFault when the scratch disk is full.
    """
    shown = expected_frames(span, measured, config.encode)
    places = spread(shown, config.claude.frames)
    chosen = "+".join(f"eq(n,{place})" for place in places)
    height = config.claude.frame_height
    stream = picture(source, span, measured, config).filter("select", chosen)
    stream = stream.filter("scale", w=-2, h=height, flags="bicubic+accurate_rnd+full_chroma_int+bitexact")
    line = ffmpeg_line.output(
        stream, f"file:{scratch}/look-%03d.jpg", format="image2", vcodec="mjpeg", pix_fmt="yuvj420p", threads=1,
        fps_mode="passthrough", frames=len(places), **{"q:v": _QUALITY, "flags:v": "+bitexact", "fflags": "+bitexact"},
    )  # fmt: skip
    for old in scratch.glob("look-*.jpg"):
        old.unlink()
    child = ffmpeg.run(arguments(line), config.limits)
    if child.code != 0:
        raise_if_disk_full(child.stderr, scratch)
        return broken(child, config)
    files = sorted(scratch.glob("look-*.jpg"))
    if not files:
        return Ending("failed", "short_decode", "no frame could be decoded to caption it from")
    return tuple(_frame(file, place / config.encode.fps) for file, place in zip(files, places, strict=False))


def _frame(file: Path, seconds: float) -> Frame:
    with av.open(str(file), format="jpeg_pipe") as container:
        video = container.streams.video[0]
        return Frame(seconds, video.width, video.height, file.read_bytes())
