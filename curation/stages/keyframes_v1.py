"""Keyframes exactly as the first version of the cut made them, to find captions that were paid for then.

Their bytes are part of the stored answer's key, so this module must not change. New questions do not use them.
Tested in tests/curation/run/test_cut_version.py.
"""

from __future__ import annotations

from pathlib import Path

from nextscene.common import ffmpeg
from nextscene.common.frame_sampling import evenly_spaced
from nextscene.curation.config import BuildConfig
from nextscene.curation.media.extract import max_frames
from nextscene.curation.media.probe import UNKNOWN_DURATION, Measured
from nextscene.curation.media.seek import CONTAINERS, Span
from nextscene.curation.stages.keyframes import frames_in
from nextscene.judge.api.request import Frame

_DEMUXERS = {"JPEG": "jpeg_pipe", "PNG": "png_pipe"}
_IMAGE_DEMUXERS = "bmp_pipe,jpeg_pipe,png_pipe,tiff_pipe,webp_pipe"
_SCALING = "flags=bicubic+accurate_rnd+full_chroma_int+bitexact"
_OUTPUT = (
    "-threads 1 -f image2 -vcodec mjpeg -pix_fmt yuvj420p -fps_mode passthrough -q:v 4 -flags:v +bitexact"
    " -fflags +bitexact -y"
)


def extract_keyframes_v1(
    source: Path, span: Span, measured: Measured, config: BuildConfig, scratch: Path
) -> tuple[Frame, ...]:
    """Return the JPEGs that the first version made for this clip; an empty tuple if it made none."""
    if measured.is_image and measured.codec not in _DEMUXERS:
        return ()
    places = evenly_spaced(_frames(span, measured, config), config.claude.frames)
    line = [
        "-hide_banner",
        "-nostdin",
        "-loglevel",
        "error",
        "-filter_threads",
        "1",
        "-filter_complex_threads",
        "1",
        *_input(source, span, measured),
        "-filter_complex",
        _filters(places, measured, config),
        "-map",
        "[look]",
        "-frames",
        str(len(places)),
        *_OUTPUT.split(),
        f"file:{scratch}/look-%03d.jpg",
    ]
    for old in scratch.glob("look-*.jpg"):
        old.unlink()
    done = ffmpeg.run(line, config.limits)
    return frames_in(scratch, places, config) if done.code == 0 else ()


def _frames(span: Span, measured: Measured, config: BuildConfig) -> int:
    """Return the number of frames that the first version expected of the clip."""
    if measured.is_image or measured.duration == UNKNOWN_DURATION:
        return 1
    left = round((measured.duration - span.start) * config.encode.fps)
    return max(1, min(max_frames(span, measured, config), left))


def _input(source: Path, span: Span, measured: Measured) -> list[str]:
    options = ["-protocol_whitelist", "file", "-threads", "1"]
    if measured.is_image:
        options += ["-format_whitelist", _IMAGE_DEMUXERS, "-f", _DEMUXERS[measured.codec]]
    else:
        options += ["-format_whitelist", CONTAINERS]
        options += ["-ss", f"{span.start:.3f}"] if span.start else []
        options += ["-t", f"{span.length:.3f}"] if span.length is not None else []
    return [*options, "-i", f"file:{source}"]


def _filters(places: list[int], measured: Measured, config: BuildConfig) -> str:
    encode = config.encode
    colors = f"out_color_matrix=bt709:out_range=tv:{_SCALING}"
    if not measured.color.matrix:
        colors += f":in_color_matrix={'bt709' if max(measured.width, measured.height) >= 1280 else 'smpte170m'}"
    width, height = (encode.image_side,) * 2 if measured.is_image else (encode.width, encode.height)
    size = f"w=max({width}\\,ceil({height}*iw*sar/ih/2)*2):h=max({height}\\,ceil({width}*ih/(iw*sar)/2)*2)"
    crop = f",crop=w={width}:h={height}"
    if config.resolution == "native" and not measured.is_image:
        size, crop = "w=round(iw*sar/2)*2:h=round(ih/2)*2", ""
    begin = "[0:v:0]" if measured.is_image else f"[0:V:0]fps=fps={encode.fps}:round=near:start_time=0,"
    chosen = "+".join(f"eq(n\\,{place})" for place in places)
    look = f"select={chosen},scale=w=-2:h={config.claude.frame_height}:{_SCALING}"
    return f"{begin}scale={size}:{colors}{crop},setsar=sar=1,{look}[look]"
