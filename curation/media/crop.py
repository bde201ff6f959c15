"""The part of the picture that the source says is to be kept, as where it has black bars or a watermark."""

from __future__ import annotations

from dataclasses import replace

import ffmpeg as ffmpeg_line

from nextscene.curation.media.probe import Crop, Measured
from nextscene.curation.outcome import ClipOutcome

_LEAST = 2
"""Pixels of the smallest picture that can be encoded."""


def cropped(measured: Measured, crop: str) -> Measured | ClipOutcome:
    """Return the measurements of a file of which `crop` is kept, as in `Clip.crop`; an outcome if it is not inside."""
    if not crop:
        return measured
    part = Crop(*map(int, crop.split(",")))
    if min(part.width, part.height) < _LEAST:
        return ClipOutcome("failed", "bad_crop", f"its crop {crop} (x, y, width, height) is below {_LEAST} pixels")
    if part.left + part.width > measured.width or part.top + part.height > measured.height:
        size = f"{measured.width}×{measured.height}"
        return ClipOutcome(
            "failed", "bad_crop", f"its crop {crop} (x, y, width, height) is not inside its {size} pixels"
        )
    return replace(measured, crop=part)


def without_edges(stream: ffmpeg_line.nodes.Stream, measured: Measured) -> ffmpeg_line.nodes.Stream:
    """Return the stream with only the crop, which is in pixels as displayed; the stream if there is none."""
    if measured.crop is None:
        return stream
    across, down = f"iw/{measured.width}", f"ih/{measured.height}"
    part = measured.crop
    place = {"w": f"{part.width}*{across}", "x": f"{part.left}*{across}"}
    place |= {"h": f"{part.height}*{down}", "y": f"{part.top}*{down}"}
    return stream.filter("crop", **place, exact=1)
