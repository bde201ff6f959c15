"""What a clip must show, from ffmpeg's decode of the whole file from its first byte, without a seek.

The law: slot k of a clip of [S, E) at 16 fps shows the last frame whose time t satisfies ⌊(t − S)·16 + ½⌋ ≤ k. Times
count from the start of the file's earliest stream. Without a start S is the time of the first frame that decodes.
"""

from __future__ import annotations

import re
import subprocess
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import floor
from pathlib import Path

import numpy as np

from nextscene.common.ffmpeg import executable
from tests.moments.frames import CELL, HEIGHT, WIDTH, number_of

FPS, MAX_FRAMES = 16, 81
_HALF = Fraction(1, 2)
_CELLS = (HEIGHT // CELL, WIDTH // CELL)
_START = re.compile(r"^  Duration: .*?, start: (-?[\d.]+)", re.MULTILINE)
_TIME_BASE = re.compile(r"config in time_base: (\d+/\d+)")
_SHOWN = re.compile(r"\] n: *\d+ pts: *(-?\d+|NOPTS) .*? duration: *(-?\d+|NOPTS)")


@dataclass(frozen=True)
class Decoded:
    """A file's frames in the order they are presented: seconds from its time 0, and the numbers read from them."""

    times: tuple[Fraction, ...]
    numbers: tuple[int | None, ...]
    end: Fraction


def decode(path: Path) -> Decoded:
    """Every frame that ffmpeg shows of the file. Raises ValueError where it tells no times."""
    # A cut head may be most of a file, and its errors more than ffmpeg puts up with.
    picture = f"showinfo=checksum=0,scale={_CELLS[1]}:{_CELLS[0]}:flags=area,format=gray"
    reading = ["-threads", "1", "-copyts", "-max_error_rate", "1", "-i", str(path)]
    writing = ["-map", "0:v:0", "-fps_mode", "passthrough", "-vf", picture, "-f", "rawvideo", "pipe:1"]
    command = [executable(), "-hide_banner", "-nostdin", "-loglevel", "info", *reading, *writing]
    answer = subprocess.run(command, capture_output=True, check=True)
    said = answer.stderr.decode("utf-8", "replace")
    base, start = _TIME_BASE.search(said), _START.search(said)
    shown = _SHOWN.findall(said)
    pictures = np.frombuffer(answer.stdout, np.uint8).reshape(-1, *_CELLS)
    if not (base and shown and len(shown) == len(pictures)) or any(pts == "NOPTS" for pts, _ in shown):
        raise ValueError(f"{path.name}: {len(pictures)} frames, {len(shown)} times: {said[-600:]}")
    tick, zero = Fraction(base[1]), Fraction(start[1] if start else 0)
    times = tuple(int(pts) * tick - zero for pts, _ in shown)
    if list(times) != sorted(set(times)):
        raise ValueError(f"{path.name}: its decode does not go forward in time")
    return Decoded(
        times, tuple(number_of(picture) for picture in pictures), times[-1] + _last(times, shown[-1][1], tick)
    )


def _last(times: Sequence[Fraction], said: str, tick: Fraction) -> Fraction:
    """How long the last frame is shown: as the decoder says, and no less than any other."""
    gaps = [after - before for before, after in pairwise(times)]
    return max(int(said) * tick if said != "NOPTS" else Fraction(0), min(gaps, default=Fraction(0)))


@dataclass(frozen=True)
class Span:
    """Of a video, in milliseconds, as a manifest names it. No end: to the end of the file."""

    start: int = 0
    end: int | None = None

    def __str__(self) -> str:
        return f"{self.start / 1000:g}–{'' if self.end is None else f'{self.end / 1000:g}'}"


@dataclass(frozen=True)
class Wanted:
    """What a span of a file must become.

    `slots` holds, for each slot, the indices of the frames that it may show: the right one first, and one beside it
    where the time stands so near to the middle between two slots that the container's rounding decides.
    `least` and `most` bound the number of frames. `may_end_short`: they are fewer than were asked for, so that
    no clip is right as well. `why_none` says why there is nothing to show.
    """

    slots: tuple[tuple[int, ...], ...] = ()
    least: int = 0
    most: int = 0
    may_end_short: bool = False
    why_none: str = ""


def wanted(decoded: Decoded, span: Span, rounding: Fraction) -> Wanted:
    """`rounding` is the error of the container's times in seconds."""
    first = decoded.times[0]
    start = Fraction(span.start, 1000) if span.start else first
    asked = MAX_FRAMES if span.end is None else min(MAX_FRAMES, _nearest((Fraction(span.end, 1000) - start) * FPS))
    there = _nearest((decoded.end - start) * FPS)
    if _nearest((first - start) * FPS) > 0:
        return Wanted(why_none=f"the first frame is at {float(first):.3f} s")
    if asked < 1:
        return Wanted(why_none=f"the span ends before the first frame, at {float(first):.3f} s")
    if there < 1 and span.start:
        return Wanted(why_none=f"the last frame ends at {float(decoded.end):.3f} s", may_end_short=True)
    slots = tuple(_shown(decoded, start + (slot + _HALF) / FPS, rounding) for slot in range(asked))
    # A span from 0 is longer than what can be shown of it where the picture begins later.
    named = 0 if span.end is None else min(MAX_FRAMES, _nearest(Fraction(span.end - span.start, 1000) * FPS))
    is_short = min(asked, there) < named - 1
    return Wanted(slots, max(1, min(asked, there - 1)), min(asked, max(1, there + 1)), is_short)


def _shown(decoded: Decoded, before: Fraction, rounding: Fraction) -> tuple[int, ...]:
    """The last frame before a moment, and what the rounding would make of it."""
    times = decoded.times
    right = max(0, bisect_left(times, before) - 1)
    choices = [right]
    if right + 1 < len(times) and times[right + 1] - before <= rounding:
        choices.append(right + 1)
    if right > 0 and before - times[right] <= rounding:
        choices.append(right - 1)
    return tuple(choices)


def _nearest(value: Fraction) -> int:
    return floor(value + _HALF)
