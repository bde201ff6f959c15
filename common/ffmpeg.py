"""The ffmpeg binary: its build, and one bounded run of it.

Tested in tests/common/test_environment.py.
"""

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
    """Return the path of imageio-ffmpeg's binary, or of the one that IMAGEIO_FFMPEG_EXE names. Raise UsageError."""
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise UsageError(f"no ffmpeg: {error}") from error


@cache
def build() -> str:
    """Return the version and a digest of all that the binary prints about itself: other builds write other bytes.

    Raise UsageError if the binary does not answer, or cannot encode H.264 or convert HDR.
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
