"""The ffmpeg binary: which build it is, and one bounded run of it."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache

import imageio_ffmpeg

from nextscene.common import child_process
from nextscene.common.child_process import ChildLimits, ChildResult
from nextscene.common.environment import clean_environment
from nextscene.common.errors import UsageError

_ANSWER_SECONDS = 30


@cache
def executable() -> str:
    """imageio-ffmpeg's own binary, or the one that IMAGEIO_FFMPEG_EXE names."""
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise UsageError(f"no ffmpeg: {error}") from error


@cache
def build() -> str:
    """The build's version and a digest of all it says of itself; other builds make other bytes.

    Raise UsageError for a binary that does not answer or cannot encode H.264 or convert HDR.
    """
    try:
        answer = subprocess.run(
            [executable(), "-hide_banner", "-version"],
            capture_output=True,
            timeout=_ANSWER_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=clean_environment(),
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"ffmpeg at {executable()} does not tell its version: {error}") from error
    if not answer.startswith("ffmpeg version "):
        raise UsageError(f"ffmpeg at {executable()} does not tell its version: it says {answer[:40]!a}")
    if "--enable-libx264" not in answer:
        raise UsageError(f"ffmpeg at {executable()} is built without libx264; unset IMAGEIO_FFMPEG_EXE")
    if "--enable-libzimg" not in answer:
        raise UsageError(f"ffmpeg at {executable()} is built without libzimg; unset IMAGEIO_FFMPEG_EXE")
    version = answer.split()[2]
    return f"{version} {hashlib.sha256(answer.encode()).hexdigest()[:12]}"


def run(arguments: list[str], limits: ChildLimits) -> ChildResult:
    """Run ffmpeg within the limits, and wait for its end."""
    return child_process.run([executable(), *arguments], limits)
