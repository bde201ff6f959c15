"""Drawing of clips with NumPy: an antialiased shape on a plain background, at rest first and then in motion.

Tested in tests/samples/shapes/test_verifier.py.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nextscene.samples.shapes.world import COLORS, MOTIONS, PLACES, Combination

_RADIUS = (0.155, 0.175)
_REST = 2  # frames before the motion begins
_PLACE_JITTER = 0.02
_COLOR_JITTER = 12
_BACKGROUND = (92, 116)


def draw_clip(combination: Combination, seed: int, frames: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return a clip, uint8 [frames, height, width, RGB]. Its size, exact place and brightness depend on `seed`."""
    random = np.random.default_rng(seed)
    radius = random.uniform(*_RADIUS)
    begin = np.array(PLACES[combination.place]) + random.uniform(-_PLACE_JITTER, _PLACE_JITTER, 2)
    color = np.clip(np.array(COLORS[combination.color]) + random.uniform(-_COLOR_JITTER, _COLOR_JITTER, 3), 0, 255)
    background = random.uniform(*_BACKGROUND)
    across = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / height
    down = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / height
    clip = np.full((frames, height, width, 3), round(background), np.uint8)
    near = 1.4 * radius
    for frame in range(frames):
        gone = max(0.0, (frame - _REST) / (frames - 1 - _REST)) ** 1.5
        x, y = begin + gone * np.array(MOTIONS[combination.motion])
        columns, rows = np.abs(across - x) < near, np.abs(down - y) < near
        inside = _distance_inside(combination.shape, across[None, columns] - x, down[rows, None] - y, radius)
        coverage = np.clip(inside * height + 0.5, 0, 1)[..., None]
        clip[frame][np.ix_(rows, columns)] = np.rint(round(background) + coverage * (color - round(background)))
    return clip


def _distance_inside(
    shape: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], radius: float
) -> npt.NDArray[np.float32]:
    """Return how far each point lies inside a shape, negative outside. The shapes have about the same area."""
    if shape == "ball":
        return np.asarray(radius - np.hypot(x, y), np.float32)
    if shape == "box":
        return np.asarray(0.9 * radius - np.maximum(np.abs(x), np.abs(y)), np.float32)
    # A cone is a triangle: a base below, and two sides that meet at the top.
    base = 0.85 * radius - y
    sides = (y + 1.25 * radius) * 0.447 - np.abs(x) * 0.894
    return np.asarray(np.minimum(base, sides), np.float32)
