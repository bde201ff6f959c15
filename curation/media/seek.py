"""Seeking: the places where decoding must begin so that the first frame of a span is whole.

Tested in tests/moments/test_moments.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from nextscene.common import ffmpeg
from nextscene.curation.config import RunLimits
from nextscene.curation.media.probe import Measured
from nextscene.curation.sources import OPEN_END

# Formats allowed for untrusted files: containers only, since playlists would open further files.
CONTAINERS = "asf,avi,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,m4v,mxf,ogg"

_FIRST_STEP_SECONDS = 12.0
_STEPS_GROW = 4
_SEEK_EARLIER_SECONDS = 3 / 23
"""Seconds by which ffmpeg seeks earlier than requested in a video whose frames are reordered."""
_WELL_BEFORE_SECONDS = 0.3
_FLAGS = re.compile(r"F=0x([0-9A-F]+)")
_KEY_FLAG = 1
_TIMING = re.compile(r"Duration: (?:(\d+):(\d+):([\d.]+)|N/A), start: (-?[\d.]+)")


@dataclass(frozen=True)
class Span:
    """The part to cut from a file, in seconds: its start, and its length or None for the rest of the file."""

    start: float
    length: float | None

    @staticmethod
    def of(start_ms: int, end_ms: int) -> Span:
        return Span(start_ms / 1000, None if end_ms == OPEN_END else (end_ms - start_ms) / 1000)

    @property
    def end(self) -> float | None:
        return None if self.length is None else self.start + self.length


@dataclass(frozen=True)
class Timing:
    """The begin of a file's earliest stream by its own time stamps, and the file's duration, in seconds."""

    begin: float
    duration: float | None


def timing(source: Path, limits: RunLimits) -> Timing | None:
    """Return ffmpeg's timing of a file, from its first and last time stamps; None if ffmpeg cannot open it."""
    line = ["-hide_banner", "-nostdin", "-protocol_whitelist", "file", "-format_whitelist", CONTAINERS]
    said = ffmpeg.run([*line, "-i", f"file:{source}"], limits).stderr  # without an output it only reports, and fails
    if not (found := _TIMING.search(said)):
        return None
    hours, minutes, seconds, begin = found.groups()
    duration = None if hours is None else 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return Timing(float(begin), duration)


ClockOptions = dict[str, str | None]
"""Options for ffmpeg's input that make times count from the begin of the file's earliest stream."""


def clock_options(source: Path, measured: Measured, limits: RunLimits) -> ClockOptions | None:
    """Return the clock options for a file; None if ffmpeg does not report when it begins."""
    if measured.seeking == "index":
        return {"copyts": None, "start_at_zero": None}
    # In a broadcast ffmpeg counts from the earliest of the streams that it uses.
    known = timing(source, limits)
    return {"copyts": None, "itsoffset": f"{-known.begin:.6f}"} if known else None


def starting_points(
    source: Path, span: Span, measured: Measured, ticks: ClockOptions, limits: RunLimits, scratch: Path
) -> Iterator[float]:
    """Yield times in seconds at which to begin decoding. Try each one if the previous one was too late.

    The last is 0, the begin of the file.
    """
    if span.start > 0 and measured.seeking == "index":
        yield span.start
    if span.start > 0 and measured.seeking != "none":
        yield from _before_keyframe(_packets_before(source, span, measured, ticks, limits, scratch))
    yield 0.0


@dataclass(frozen=True)
class _Packet:
    """A packet of a video: its decoding and display times in seconds, and whether it is a keyframe."""

    decoded: float
    shown: float
    is_key: bool


def _before_keyframe(packets: Sequence[_Packet]) -> Iterator[float]:
    """Yield a time from which ffmpeg seeks to the first packet, which is a keyframe, and a time well before it."""
    if packets:
        key = packets[0]
        following = packets[1].decoded if len(packets) > 1 else key.decoded
        reordered = any(packet.decoded != packet.shown for packet in packets)
        exact = (key.decoded + following) / 2 + (_SEEK_EARLIER_SECONDS if reordered else 0)
        yield from (time for time in (exact, key.decoded - _WELL_BEFORE_SECONDS) if time > 0)


def _packets_before(
    source: Path, span: Span, measured: Measured, ticks: ClockOptions, limits: RunLimits, scratch: Path
) -> list[_Packet]:
    """Return the packets from the last keyframe that is shown by the span's start.

    Return an empty list if none was found after the begin of the file; then decoding must begin there.
    """
    report = scratch / "packets.txt"
    options = [word for name, value in ticks.items() for word in (f"-{name}", value) if word is not None]
    step = _FIRST_STEP_SECONDS
    while (begin := span.start - step) > 0:
        # Ffmpeg copies packets from the first keyframe on, without decoding.
        ffmpeg.run(
            [
                "-hide_banner",
                "-nostdin",
                "-loglevel",
                "error",
                "-y",
                *options,
                "-protocol_whitelist",
                "file",
                "-format_whitelist",
                CONTAINERS,
                "-ss",
                f"{begin:.3f}",
                "-i",
                f"file:{source}",
                "-map",
                f"0:{measured.stream}",
                "-c",
                "copy",
                "-to",
                f"{span.start + 1:.3f}",
                "-f",
                "framecrc",
                f"file:{report}",
            ],
            limits,
        )
        packets = list(_packets(report))
        if keys := [place for place, packet in enumerate(packets) if packet.is_key and packet.shown <= span.start]:
            return packets[keys[-1] :]
        step *= _STEPS_GROW
    return []


def _packets(report: Path) -> Iterator[_Packet]:
    """Yield the packets of a `framecrc` file. It leaves out the flags of a packet whose only flag is "keyframe"."""
    if not report.exists():
        return
    base = Fraction(1)
    for line in report.read_text().splitlines():
        if line.startswith("#tb 0:"):
            base = Fraction(line.removeprefix("#tb 0:").strip())
        elif not line.startswith("#"):
            decoded, shown = (float(int(field) * base) for field in line.split(",")[1:3])
            flags = _FLAGS.search(line)
            yield _Packet(decoded, shown, flags is None or bool(int(flags[1], 16) & _KEY_FLAG))
