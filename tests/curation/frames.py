"""An independent account of which frames a clip must show, from timestamps alone, and pictures to compare them by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import takewhile
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

GRID = (96, 166)
"""Rows and columns of the small picture that stands for a frame; nearly the shape of 480×832."""

AVCOL_SPC_UNSPECIFIED = 2
AVCOL_SPC_BT470BG = 5
"""Of JPEG, among others."""
Picture = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """A decoded frame, upright: its time from the first one and its duration in seconds, and its BT.709 luma."""

    time: Fraction
    duration: Fraction
    luma: Picture
    sample_aspect: float

    def picture(self, box: tuple[int, int] | None = None) -> Picture:
        """A small picture of it in square pixels, cropped about the center as if to cover `box` (width, height)."""
        height, width = self.luma.shape
        rows, columns = (1.0, 1.0) if box is None else _seen(width * self.sample_aspect, height, box)
        return _shrink(_shrink(self.luma, GRID[0], rows).T, GRID[1], columns).T


def source_frames(path: Path, until: float) -> list[Frame]:
    """The frames of a file up to a time."""
    with av.open(str(path)) as container:
        return list(takewhile(lambda frame: frame.time <= until, _frames(container)))


def clip_frames(mp4: bytes) -> list[Frame]:
    """The frames of a finished clip."""
    with av.open(BytesIO(mp4)) as container:
        return list(_frames(container))


def _frames(container: av.container.InputContainer) -> Iterator[Frame]:
    stream = container.streams.video[0]
    begin = stream.start_time or 0
    for frame in container.decode(stream):
        assert frame.pts is not None
        turned = frame.rotation % 180 != 0
        aspect = float(stream.sample_aspect_ratio or 1)
        yield Frame(
            (frame.pts - begin) * frame.time_base,
            frame.duration * frame.time_base,
            np.rot90(_luma(frame), round(frame.rotation / 90) % 4),
            1 / aspect if turned else aspect,
        )


def shown_frames(frames: list[Frame], start: float, end: float | None, fps: int, most: int) -> list[int]:
    """For each slot of the clip the index of the frame that it must show.

    It is the last frame whose time, rounded to the nearest slot, has come. The last frame ends at its own time and
    duration, or at the end of the span.
    """
    begin, stop = Fraction(start).limit_denominator(1000), Fraction(end or 10**9).limit_denominator(1000)
    slot_of = [_nearest((frame.time - begin) * fps) for frame in frames if frame.time < stop]
    last = frames[len(slot_of) - 1]
    slots = min(most, _nearest((min(last.time + last.duration, stop) - begin) * fps))
    return [max(i for i, come in enumerate(slot_of) if come <= slot) for slot in range(slots)]


def _nearest(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def _seen(width: float, height: float, box: tuple[int, int]) -> tuple[float, float]:
    """The shares of height and width left when a picture covers a box of (width, height), both sides made even."""
    scale = max(box[0] / width, box[1] / height)
    return box[1] / _even(height * scale), box[0] / _even(width * scale)


def _even(value: float) -> int:
    return 2 * math.ceil(value / 2 - 1e-6)


def _luma(frame: av.VideoFrame) -> Picture:
    """Y' of BT.709 in 16…235, from the stored planes: untagged video is BT.601 below HD and BT.709 from there on."""
    if frame.format.name.startswith("rgb") or frame.format.name == "yuvj444p":  # a JPEG of ours
        rgb = frame.to_ndarray(format="rgb24").astype(np.float32)
        return 16 + rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32) * 219 / 255
    assert frame.format.name in ("yuv420p", "yuvj420p"), frame.format.name
    height, width = frame.height, frame.width
    planes = frame.to_ndarray().astype(np.float32)
    luma, chroma = planes[:height], planes[height:] - 128
    if frame.color_range == av.video.reformatter.ColorRange.JPEG or frame.format.name == "yuvj420p":
        luma, chroma = 16 + luma * 219 / 255, chroma * 224 / 255
    matrix = int(frame.colorspace)
    untagged = matrix == AVCOL_SPC_UNSPECIFIED
    if matrix != AVCOL_SPC_BT470BG and (not untagged or max(height, width) >= 1280):
        return luma
    blue, red = (
        half.reshape(height // 2, width // 2).repeat(2, 0).repeat(2, 1) for half in np.split(chroma.reshape(-1), 2)
    )
    # Through R, G and B of BT.601, all in units of Y' code values; a color that no screen can show is clipped.
    y = luma - 16
    r = y + 219 / 112 * 0.701 * red
    b = y + 219 / 112 * 0.886 * blue
    g = (y - 0.299 * r - 0.114 * b) / 0.587
    return 16 + 0.2126 * r.clip(0, 219) + 0.7152 * g.clip(0, 219) + 0.0722 * b.clip(0, 219)


def _shrink(picture: Picture, rows: int, share: float) -> Picture:
    """Averages bands of the middle `share` of the rows, whole and in part: area resampling along one axis."""
    height = picture.shape[0]
    edges = np.linspace(height * (1 - share) / 2, height * (1 + share) / 2, rows + 1)
    sums = np.vstack([np.zeros((1, picture.shape[1])), np.cumsum(picture, axis=0, dtype=np.float64)])
    whole = np.floor(edges).astype(int)
    part = (edges - whole)[:, None] * picture[np.minimum(whole, height - 1)]
    return (np.diff(sums[whole] + part, axis=0) / np.diff(edges)[:, None]).astype(np.float32)
