"""Files through the product: what each span ended as, and whether a kept clip shows the right picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import av

from nextscene.curation.config import BuildConfig, Rules
from nextscene.curation.ledger import Row
from tests.colors.running import media
from tests.damage.footage import FRAMES, HEIGHT, RATE, WIDTH, Luma, frames, psnr
from tests.damage.oracle import Told
from tests.support import build_inline, ledger, write_csv

CONFIG = BuildConfig(
    judge="none",
    test=0.0,
    resolution="native",
    unit_size=4096,
    rules=Rules(min_width=64, min_height=64, min_image_side=64),
)
FPS = 16
RIGHT_DB = 30.0
MOST_HELD = 3
"""From so many repetitions on a clip is no clip of a moving picture: its span has a gap, whoever tells."""
_FUZZ = 3 / RATE
"""Pictures are decoded in another order than shown: a fault is known to be of a time to within this."""

Span = tuple[float, float | None]
WHOLE: Span = (0.0, None)
SPANS: Sequence[Span] = (WHOLE, (1.5, 2.5), (3.0, 3.9))


@dataclass(frozen=True)
class Ended:
    """One clip: its row in the ledger, and its video or image if it was kept."""

    row: Row
    media: bytes | None

    @property
    def said(self) -> str:
        return f"{self.row.outcome}: {self.row.reason}: {self.row.detail}"[:150]


def through_the_product(
    asked: Sequence[tuple[str, Span]], folder: Path, config: BuildConfig = CONFIG
) -> dict[tuple[str, Span], Ended]:
    """Spans of files, each of a start of its own; the names are those in the folder, or whole paths."""
    rows = [
        {"video": name, "start": start or "", "end": "" if end is None else end, "caption": "moving"}
        for name, (start, end) in asked
    ]
    out = folder / "out"
    build_inline(write_csv(folder / "clips.csv", rows), out, config)
    clips = media(out)
    rows_of = {(row.source, row.start_ms): row for row in ledger(out, config)}
    found = {(name, span): rows_of[name, round(span[0] * 1000)] for name, span in asked}
    return {key: Ended(row, clips.get(row.clip_id)) for key, row in found.items()}


def wrong_frames(mp4: bytes, first: float, loose: bool = False) -> list[str]:
    """The frames of a clip of the footage that do not show what they should, each with what it is instead.

    `first` is the time in the footage at which the clip begins; where it is `loose` the first frame tells.
    """
    footage = frames()
    with av.open(BytesIO(mp4)) as container:
        pictures = [frame.to_ndarray(format="yuv420p")[:HEIGHT, :WIDTH] for frame in container.decode(video=0)]
    begin = first * RATE
    if loose:
        begin = float(max(range(FRAMES), key=lambda i: psnr(pictures[0], footage[i])))
    return [
        f"frame {slot}: {best:.0f} dB"
        for slot, picture in enumerate(pictures)
        if (best := _best(picture, begin + slot * RATE / FPS)) < RIGHT_DB
    ]


def frozen(mp4: bytes) -> int:
    """How many frames repeat the one before, in a clip of footage that never stands still."""
    with av.open(BytesIO(mp4)) as container:
        pictures = [frame.to_ndarray(format="yuv420p")[:HEIGHT, :WIDTH] for frame in container.decode(video=0)]
    return sum(psnr(one, other) > RIGHT_DB for one, other in pairwise(pictures))


def _best(picture: Luma, place: float) -> float:
    """How like the picture is to the footage at a place, to within one frame."""
    footage = frames()
    near = range(max(0, round(place) - 1), min(FRAMES, round(place) + 2))
    return max((psnr(picture, footage[i]) for i in near), default=0.0)


@dataclass(frozen=True)
class Verdict:
    """`word`: found, right, told (the picture is right though a fault was told), undetectable, MISSED, FROZEN."""

    word: str
    said: str


def verdict(ended: Ended, span: Span, healthy: Told, damaged: Told, beheaded: bool) -> Verdict:
    """What to think of a damaged file's clip."""
    if ended.media is None:
        return Verdict("UNEXPECTED" if ended.row.reason == "unexpected" else "found", ended.said)
    shift = damaged.begins - healthy.begins if beheaded else 0.0
    wrong = wrong_frames(ended.media, span[0] + shift, loose=beheaded and span == WHOLE)
    held = frozen(ended.media)
    # Without a start the clip begins at the first frame that decodes.
    begin = span[0] if span[0] else damaged.first - _FUZZ
    end = span[1] if span[1] is not None else min(FRAMES / RATE, span[0] + 81 / FPS)
    if wrong:
        tellings = damaged.between(damaged.keyframe_before(begin) - _FUZZ, end + _FUZZ)
        word = "MISSED" if tellings else "FROZEN" if held >= MOST_HELD else "undetectable"
        return Verdict(word, f"{len(wrong)} wrong from {wrong[0]}; {held} held; told: {len(tellings)}, {tellings[:1]}")
    inside = damaged.between(begin + _FUZZ, end - _FUZZ)
    return Verdict("told", f"{len(inside)}: {inside[0]}") if inside else Verdict("right", "")
