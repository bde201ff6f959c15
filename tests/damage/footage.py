"""Footage in which every frame can be told from its neighbors, in files of many codecs and containers."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

Luma = npt.NDArray[np.uint8]

WIDTH, HEIGHT, RATE, SECONDS = 480, 272, 24, 4
FRAMES = RATE * SECONDS
GOP = 24
_STEP = 6

_X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "16", "-g", str(GOP), "-keyint_min", str(GOP), "-bf", "2")
_X265 = (
    "-c:v",
    "libx265",
    "-preset",
    "ultrafast",
    "-crf",
    "14",
    "-x265-params",
    f"keyint={GOP}:min-keyint={GOP}:bframes=2:scenecut=0:open-gop=0:log-level=none",
)
_MPEG2 = (
    "-c:v",
    "mpeg2video",
    "-q:v",
    "2",
    "-g",
    str(GOP),
    "-bf",
    "2",
    "-flags",
    "+cgop",
    "-sc_threshold",
    "1000000000",
)
_MPEG4 = ("-c:v", "mpeg4", "-q:v", "2", "-g", str(GOP))
_VP9 = ("-c:v", "libvpx-vp9", "-b:v", "0", "-crf", "12", "-deadline", "realtime", "-cpu-used", "8", "-g", str(GOP))
_AV1 = ("-c:v", "libsvtav1", "-preset", "12", "-crf", "14", "-g", str(GOP), "-svtav1-params", "lp=1:pred-struct=1")
_FAST = ("-movflags", "+faststart")

FILES: dict[str, Sequence[str]] = {
    "h264.mp4": (*_X264, *_FAST),
    "h264.mkv": _X264,
    "h264.ts": _X264,
    "hevc.mp4": (*_X265, *_FAST),
    "hevc.mkv": _X265,
    "hevc.ts": _X265,
    "mpeg2.ts": _MPEG2,
    "mpeg2.mpg": _MPEG2,
    "mpeg2.mkv": _MPEG2,
    "mpeg4.mp4": (*_MPEG4, *_FAST),
    "mpeg4.avi": _MPEG4,
    "vp9.webm": _VP9,
    "vp9.mp4": (*_VP9, *_FAST),
    "av1.mp4": (*_AV1, *_FAST),
    "av1.webm": _AV1,
}
"""File name → ffmpeg's output options."""


@cache
def frames(count: int = FRAMES) -> tuple[Luma, ...]:
    """The luma of each frame: a soft random texture that moves by six pixels a frame, with grain. It has no colors."""
    chance = np.random.default_rng(14)
    noise = chance.uniform(40, 210, ((HEIGHT + 2 * count) // 8 + 2, (WIDTH + _STEP * count) // 8 + 2))
    texture = _smooth(_smooth(noise).T).T
    seen = (texture[2 * i : 2 * i + HEIGHT, _STEP * i : _STEP * i + WIDTH] for i in range(count))
    return tuple((one + chance.normal(0, 4, one.shape)).round().astype(np.uint8) for one in seen)


def _smooth(coarse: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Eight rows between each two by linear interpolation."""
    at = np.arange((len(coarse) - 1) * 8) / 8
    below = at.astype(int)
    part = (at - below)[:, None]
    return coarse[below] * (1 - part) + coarse[below + 1] * part


def encode(path: Path, options: Sequence[str], count: int = FRAMES, before: Sequence[str] = ()) -> Path:
    """The footage as a file; `before` are further inputs and input options of ffmpeg."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chroma = np.full(WIDTH * HEIGHT // 2, 128, np.uint8).tobytes()
    raw = b"".join(np.ascontiguousarray(luma).tobytes() + chroma for luma in frames(count))
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-hide_banner",
        "-loglevel",
        "error",
        "-y",
        *before,
        "-f",
        "rawvideo",
        "-pix_fmt",
        "yuv420p",
        "-s",
        f"{WIDTH}x{HEIGHT}",
        "-r",
        str(RATE),
        "-i",
        "pipe:",
        "-threads",
        "1",
        *options,
        str(path),
    ]
    subprocess.run(command, input=raw, check=True, capture_output=True)
    return path


def psnr(one: Luma, other: Luma) -> float:
    """Of two pictures, in decibels; at most 99."""
    error = float(np.mean((one.astype(np.float32) - other.astype(np.float32)) ** 2))
    return 99.0 if error < 1e-5 else min(99.0, 10 * float(np.log10(255**2 / error)))
