"""The conversion of docs/data-format.md a second time, in numpy: from a source's code values to R'G'B' of BT.709.

Names of tags are those of ffmpeg; "" is untagged. R'G'B' and linear light are in 0…1 (light in units of 203 nits).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

WHITE_NITS = 203.0
HD_SIDE = 1280
KNEE = 0.75

_KR_KB = {
    "bt709": (0.2126, 0.0722),
    "bt470bg": (0.299, 0.114),
    "smpte170m": (0.299, 0.114),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
    "bt2020nc": (0.2627, 0.0593),
}
_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
_PRIMARIES = {
    "bt709": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65),
    "bt470m": ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    "bt470bg": ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    "smpte170m": ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    "smpte240m": ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    "smpte432": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    "smpte431": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),  # taken with the white of Display P3
}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
SDR_TRANSFERS = ("", "bt709", "smpte170m", "bt2020-10", "bt2020-12", "smpte240m", "iec61966-2-1", "iec61966-2-4")


@dataclass(frozen=True)
class Tags:
    """What a file says of its colors. `max_cll` and `mastering_max` are in nits, 0 where they are not given."""

    matrix: str = ""
    primaries: str = ""
    transfer: str = ""
    full: bool | None = None
    max_cll: float = 0.0
    mastering_max: float = 0.0


def matrix_of(tags: Tags, codec: str, width: int, height: int) -> str:
    """The matrix by which code values are read."""
    if codec == "mjpeg":
        return "bt470bg"
    if tags.matrix:
        return tags.matrix
    if tags.primaries == "bt2020" or tags.transfer in ("smpte2084", "arib-std-b67"):
        return "bt2020nc"
    return "bt709" if max(width, height) >= HD_SIDE else "smpte170m"


def encoded(rgb: Array, matrix: str, full: bool, depth: int = 8) -> Array:
    """R'G'B' as whole code values: Y, Cb, Cr, or R, G, B for the matrix gbr."""
    top, step = (1 << depth) - 1, 1 << (depth - 8)
    if matrix == "gbr":
        return np.round(rgb * top if full else (16 + 219 * rgb) * step)
    mixed = rgb @ _to_yuv(matrix).T
    if full:
        codes = mixed * top + [0, (top + 1) / 2, (top + 1) / 2]
    else:
        # H.273 takes YCgCo from R, G and B that are code values already: its chroma spans 219 steps.
        chroma = 219 if matrix == "ycgco" else 224
        codes = (mixed * [219, chroma, chroma] + [16, 128, 128]) * step
    return np.clip(np.round(codes), 0, top)


def decoded(codes: Array, matrix: str, full: bool, depth: int = 8) -> Array:
    """The opposite of `encoded`."""
    top, step = (1 << depth) - 1, 1 << (depth - 8)
    if matrix == "gbr":
        return codes / top if full else (codes / step - 16) / 219
    if full:
        mixed = (codes - [0, (top + 1) / 2, (top + 1) / 2]) / top
    else:
        chroma = 219 if matrix == "ycgco" else 224
        mixed = (codes / step - [16, 128, 128]) / [219, chroma, chroma]
    return mixed @ np.linalg.inv(_to_yuv(matrix)).T


def _to_yuv(matrix: str) -> Array:
    if matrix == "ycgco":
        return np.array([[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0, -0.5]])
    red, blue = _KR_KB[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    return np.array([luma, ([0, 0, 1] - luma) / (2 * (1 - blue)), ([1, 0, 0] - luma) / (2 * (1 - red))])


def shown(rgb: Array, tags: Tags) -> Array:
    """A source's R'G'B' as R'G'B' of BT.709, by primaries, transfer and peak."""
    primaries = tags.primaries or ("bt2020" if tags.transfer in ("smpte2084", "arib-std-b67") else "bt709")
    if tags.transfer in SDR_TRANSFERS and primaries == "bt709":
        return np.clip(rgb, 0, 1)
    light = linear(rgb, tags.transfer) @ between(primaries, "bt709").T
    if tags.transfer in ("smpte2084", "arib-std-b67"):
        light = _bent(light, _peak(tags))
    return np.clip(light, 0, 1) ** (1 / 2.4)


def linear(signal: Array, transfer: str) -> Array:
    """Linear light of R'G'B'."""
    signal = np.clip(signal, 0, None)
    if transfer in SDR_TRANSFERS:
        return signal**2.4
    if transfer == "smpte2084":
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = signal ** (1 / m2)
        return 10000 / WHITE_NITS * (np.clip(root - c1, 0, None) / (c2 - c3 * root)) ** (1 / m1)
    if transfer == "arib-std-b67":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        return 1000 / WHITE_NITS * scene**1.2
    powers = {"gamma22": 2.2, "gamma28": 2.8, "linear": 1.0}
    return signal ** powers[transfer]


def signal_of(light: Array, transfer: str) -> Array:
    """The opposite of `linear`, for PQ and HLG."""
    if transfer == "smpte2084":
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = (np.clip(light, 0, None) * WHITE_NITS / 10000) ** m1
        return ((c1 + c2 * root) / (1 + c3 * root)) ** m2
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = (np.clip(light, 0, None) * WHITE_NITS / 1000) ** (1 / 1.2)
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def _peak(tags: Tags) -> float:
    if tags.transfer == "arib-std-b67":
        return 1000 / WHITE_NITS
    return (tags.max_cll or tags.mastering_max or 1000) / WHITE_NITS


def _bent(light: Array, p: float) -> Array:
    """The tone curve, on the largest of the three; the others keep their ratio to it."""
    if p <= 1:
        return light
    j = KNEE
    a = -(j**2) * (p - 1) / (j**2 - 2 * j + p)
    b = (j**2 - 2 * j * p + p) / max(p - 1, 1e-6)
    most = light.max(axis=-1, keepdims=True)
    bent = (b**2 + 2 * b * j + j**2) / (b - a) * (most + a) / (most + b)
    return np.where(most > j, light * bent / np.where(most > j, most, 1), light)


def between(source: str, target: str) -> Array:
    """Linear light of one set of primaries to another, adapted by Bradford where the white differs."""
    to_xyz, white = _to_xyz(source)
    from_xyz, wanted = _to_xyz(target)
    cones = np.diag((_BRADFORD @ wanted) / (_BRADFORD @ white))
    return np.linalg.inv(from_xyz) @ np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ to_xyz


def _to_xyz(name: str) -> tuple[Array, Array]:
    columns = [np.array([x / y, 1, (1 - x - y) / y]) for x, y in _PRIMARIES[name]]
    primaries, white = np.array(columns[:3]).T, columns[3]
    return primaries * np.linalg.solve(primaries, white), white
