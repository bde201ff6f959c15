"""A verifier that reads pixels: the color, shape, place and motion of what a clip shows.

It knows nothing of how a clip was made. It finds the colored pixels of each frame, and reads their hue, their outline
and their way. What is not one compact shape is not read at all.

Tested in tests/samples/shapes/test_verifier.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nextscene.samples.shapes.world import ATTRIBUTES, COLORS, MOTIONS, PLACES, Combination

UNSEEN = "none"
"""The value of an attribute that could not be read."""

_LEAST_COLORFUL = 45.0  # difference of the strongest and the weakest channel, of 255
_AREA = (0.02, 0.14)  # of a shape, in squares of the picture's height
_MOST_SPREAD = 0.36  # moment of inertia by squared area: 0.16 for a ball, 0.24 for a plank, far more for two shapes
_ROUND = 1.5  # width by height: 1 for a ball, 2.5 for a plank
_FARTHEST = 0.16  # from a place, in heights

_Floats = npt.NDArray[np.float64]


class Observation(NamedTuple):
    """The value of each attribute that a clip shows, or UNSEEN."""

    color: str
    shape: str
    place: str
    motion: str

    def matches(self, other: Combination) -> dict[str, bool]:
        """Return for each attribute whether it is that of `other`."""
        return {name: getattr(self, name) == getattr(other, name) for name in ATTRIBUTES}


_NOTHING = Observation(*[UNSEEN] * len(ATTRIBUTES))


class _Blob(NamedTuple):
    center: _Floats  # from the middle of the picture, right and down, in heights
    color: _Floats
    spread: _Floats  # variance of its pixels across and down, in squared heights


def observe(clip: npt.NDArray[np.uint8]) -> Observation:
    """Return what a clip shows, uint8 [F, H, W, RGB], of any length and size.

    All attributes are UNSEEN unless most frames, the first and the last among them, show one compact shape.
    """
    blobs = [_find(frame) for frame in clip]
    seen = [blob for blob in blobs if blob]
    first, last = blobs[0], blobs[-1]
    if not first or not last or len(seen) < 0.8 * len(blobs):
        return _NOTHING
    return Observation(
        _color(np.median([blob.color for blob in seen], axis=0)),
        _shape(np.mean([blob.spread for blob in seen], axis=0)),
        _nearest(first.center, PLACES, _FARTHEST),
        _motion(first.center, last.center),
    )


def _find(frame: npt.NDArray[np.uint8]) -> _Blob | None:
    """Return the shape of a frame; None unless its colored pixels are one compact shape of about the right size."""
    height, width, _ = frame.shape
    red, green, blue = (frame[..., channel] for channel in range(3))
    colorful = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    nearly_all = -(height * height // 100)
    strongest = float(np.partition(colorful, nearly_all, axis=None)[nearly_all])
    if strongest < _LEAST_COLORFUL:
        return None
    mask = colorful > strongest / 2
    rows, columns = np.nonzero(mask)
    area = len(rows) / height**2
    if not _AREA[0] <= area <= _AREA[1]:
        return None
    x, y = (columns + 0.5 - width / 2) / height, (rows + 0.5 - height / 2) / height
    if (x.var() + y.var()) / area > _MOST_SPREAD:
        return None
    core = colorful > 0.8 * strongest
    return _Blob(np.array([x.mean(), y.mean()]), frame[core].mean(0), np.array([x.var(), y.var()]))


def _shape(spreads: _Floats) -> str:
    """Return the shape of the nearest ratio of width to height, from the variances across and down."""
    ratio = float(np.sqrt(spreads[0] / spreads[1]))
    if 1 / _ROUND < ratio < _ROUND:
        return "ball"
    return "plank" if ratio > 1 else "post"


def _color(pixel: _Floats) -> str:
    """Return the color of the nearest direction away from gray, whatever its brightness and strength are."""
    own = _direction(pixel)
    return max(COLORS, key=lambda name: float(own @ _direction(np.array(COLORS[name], float))))


def _direction(pixel: _Floats) -> _Floats:
    away = pixel - pixel.mean()
    return np.asarray(away / max(1e-9, float(np.linalg.norm(away))))


def _nearest(point: _Floats, named: dict[str, tuple[float, float]], farthest: float) -> str:
    distances = {name: float(np.linalg.norm(point - np.array(place))) for name, place in named.items()}
    best = min(distances, key=distances.__getitem__)
    return best if distances[best] <= farthest else UNSEEN


def _motion(first: _Floats, last: _Floats) -> str:
    """Return the motion between two places; UNSEEN if the shape began or ended between the places."""
    begin, end = (_nearest(center, PLACES, _FARTHEST) for center in (first, last))
    if UNSEEN in (begin, end):
        return UNSEEN
    gone = tuple(bool(before != after) for before, after in zip(PLACES[begin], PLACES[end], strict=True))
    return next(name for name, ways in MOTIONS.items() if ways == gone)
