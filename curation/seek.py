"""Where decoding has to begin, so that the frame at the start of a span is decoded whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from curation import ffmpeg
from curation.config import Limits
from curation.probe import Measured
from curation.sources import OPEN_END

# What may be inside a file that a stranger made: containers only, no playlists that open further files.
CONTAINERS = "asf,avi,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,m4v,mxf,ogg"

_FIRST_STEP_SECONDS = 2.0
_STEPS_GROW = 4
# A demuxer seeks by decoding time, which lies before the time at which a frame is shown.
_BEFORE_KEYFRAME_SECONDS = 0.3


@dataclass(frozen=True)
class Span:
    """What is cut from a file: seconds from its start, and how long, or None to its end."""

    start: float
    length: float | None

    @staticmethod
    def of(start_ms: int, end_ms: int) -> Span:
        return Span(start_ms / 1000, None if end_ms == OPEN_END else (end_ms - start_ms) / 1000)

    @property
    def end(self) -> float | None:
        return None if self.length is None else self.start + self.length


def starting_points(source: Path, span: Span, measured: Measured, limits: Limits, scratch: Path) -> Iterator[float]:
    """Times to begin decoding at, in seconds, each further back than the one before; the last is the file's start."""
    if span.start > 0 and measured.is_indexed:
        yield span.start
    if span.start > 0 and (keyframe := _keyframe_before(source, span.start, measured, limits, scratch)) > 0:
        yield keyframe
    yield 0.0


def _keyframe_before(source: Path, start: float, measured: Measured, limits: Limits, scratch: Path) -> float:
    """A time just before the last keyframe that is shown by `start`; 0 if none is found."""
    packets = scratch / "packets.txt"
    step = _FIRST_STEP_SECONDS
    while (begin := start - step) > 0:
        # Ffmpeg copies packets from the first keyframe on, and decodes none.
        ffmpeg.run(
            [
                "-hide_banner", "-nostdin", "-loglevel", "error", "-y", "-copyts", "-start_at_zero",
                "-protocol_whitelist", "file", "-format_whitelist", CONTAINERS,
                "-ss", f"{begin:.3f}", "-t", f"{step + 1:.3f}", "-i", f"file:{source}",
                "-map", f"0:V:{measured.stream}", "-c", "copy", "-f", "framecrc", f"file:{packets}",
            ],
            limits,
        )  # fmt: skip
        if keys := [time for time in _keyframes(packets) if time <= start]:
            return max(0.0, max(keys) - _BEFORE_KEYFRAME_SECONDS)
        step *= _STEPS_GROW
    return 0.0


def _keyframes(packets: Path) -> Iterator[float]:
    """The times of the keyframes in a `framecrc` file: those of its packets that carry no flags."""
    if not packets.exists():
        return
    base = Fraction(1)
    for line in packets.read_text().splitlines():
        if line.startswith("#tb 0:"):
            base = Fraction(line.removeprefix("#tb 0:").strip())
        fields = line.split(",")
        if not line.startswith("#") and len(fields) == 6:
            yield float(int(fields[2]) * base)
