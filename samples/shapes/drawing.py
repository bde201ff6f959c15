"""Drawing of clips with NumPy: an antialiased shape on a plain background, at rest first and then in motion.

Tested in tests/samples/shapes/test_verifier.py.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nextscene.samples.shapes.world import COLORS, MOTIONS, PLACES, Combination

_RADIUS = (0.14, 0.155)
_LONG, _SHORT = 1.4, 0.56  # half of the sides of a plank, in radii of a ball
_BEGIN, _END = 0.2, 0.75  # of the motion, as shares of the clip
_PLACE_JITTER = 0.02
_COLOR_JITTER = 12
_BRIGHTNESS_JITTER = 6
_SLOPE = 60  # of the backdrop's brightness from its middle to its sides
_STRIPES = (12, 50)  # of the backdrop, from their mean, in the first and the last frame
_STRIPE_WIDTH = 0.125

_Floats = npt.NDArray[np.floating]


def draw_clip(combination: Combination, seed: int, frames: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return a clip, uint8 [frames, height, width, RGB]. Its size, exact place and brightness depend on `seed`."""
    random = np.random.default_rng(seed)
    radius = random.uniform(*_RADIUS)
    begin = np.array(PLACES[combination.place]) + random.uniform(-_PLACE_JITTER, _PLACE_JITTER, 2)
    way = np.where(MOTIONS[combination.motion], -2 * np.array(PLACES[combination.place]), 0)
    color = np.clip(np.array(COLORS[combination.color]) + random.uniform(-_COLOR_JITTER, _COLOR_JITTER, 3), 0, 255)
    across = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / height
    down = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / height
    brightness = 120 + random.uniform(-_BRIGHTNESS_JITTER, _BRIGHTNESS_JITTER)
    level, stripes = _backdrop(across, down)
    clip = np.empty((frames, height, width, 3), np.uint8)
    near = 1.5 * radius
    for frame in range(frames):
        time = frame / (frames - 1)
        empty = brightness + level + stripes * (_STRIPES[0] + (_STRIPES[1] - _STRIPES[0]) * time)
        clip[frame] = np.rint(empty).astype(np.uint8)[..., None]
        gone = min(1.0, max(0.0, (time - _BEGIN) / (_END - _BEGIN)))
        x, y = begin + gone * way
        columns, rows = np.abs(across - x) < near, np.abs(down - y) < near
        inside = _distance_inside(combination.shape, across[None, columns] - x, down[rows, None] - y, radius)
        coverage = np.clip(inside * height + 0.5, 0, 1)[..., None]
        behind = empty[np.ix_(rows, columns)][..., None]
        clip[frame][np.ix_(rows, columns)] = np.rint(behind + coverage * (color - behind))
    return clip


def _backdrop(across: _Floats, down: _Floats) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the level of a backdrop [width], brighter to the right, and the sign of its stripes [height, width].

    The stripes lie in the upper half and stand in the lower half, and become stronger with time.
    LTX-Video's transformer knows only how tokens lie to one another. The backdrop tells it where and when they are.
    """
    lying, standing = (np.where(np.floor(axis / _STRIPE_WIDTH) % 2 == 0, 1, -1) for axis in (down, across))
    stripes = np.where(down[:, None] < 0, lying[:, None], standing[None, :])
    return np.asarray(_SLOPE * across / across[-1], np.float32), stripes.astype(np.float32)


def _distance_inside(shape: str, x: _Floats, y: _Floats, radius: float) -> npt.NDArray[np.float32]:
    """Return how far each point lies inside a shape, negative outside. The shapes have about the same area."""
    if shape == "ball":
        return np.asarray(radius - np.hypot(x, y), np.float32)
    wide, high = (_LONG, _SHORT) if shape == "plank" else (_SHORT, _LONG)
    return np.asarray(np.minimum(wide * radius - np.abs(x), high * radius - np.abs(y)), np.float32)
