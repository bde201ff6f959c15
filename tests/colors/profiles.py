"""ICC profiles to order (ICC.1, matrix and curve), and Pillow with littleCMS as the oracle of what an image shows."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from tests.colors.conversion import Array, between

_D50 = (0.9642, 1.0, 0.8249)
_TO_D50 = np.array(
    [[1.0478112, 0.0228866, -0.0501270], [0.0295424, 0.9904844, -0.0170491], [-0.0092345, 0.0150436, 0.7521316]]
)
_SRGB_TO_XYZ = np.array(
    [[0.4123908, 0.3575843, 0.1804808], [0.2126390, 0.7151687, 0.0721923], [0.0193308, 0.1191948, 0.9505322]]
)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def rgb_profile(primaries: str, gamma: float | None = None) -> bytes:
    """A display's profile by ffmpeg's name of its primaries (of white D65), with a power or the curve of sRGB."""
    columns = _TO_D50 @ _SRGB_TO_XYZ @ between(primaries, "bt709")
    tags = {b"rXYZ": _xyz(columns[:, 0]), b"gXYZ": _xyz(columns[:, 1]), b"bXYZ": _xyz(columns[:, 2])}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma))
    return _profile(b"RGB ", tags)


def gray_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", {b"kTRC": _curve(gamma)})


def _curve(gamma: float | None) -> bytes:
    if gamma is None:
        return b"para" + struct.pack(">IHH", 0, 3, 0) + b"".join(_fixed(value) for value in _SRGB_CURVE)
    return b"para" + struct.pack(">IHH", 0, 0, 0) + _fixed(gamma)


def _xyz(values: Array | tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(_fixed(float(value)) for value in values)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _text(words: str) -> bytes:
    coded = words.encode("utf-16-be")
    return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(coded), 28) + coded


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text("made for a test"), b"cprt": _text("none"), b"wtpt": _xyz(_D50), **tags}
    body, table, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, contents in tags.items():
        padded = contents + b"\0" * (-len(contents) % 4)
        table += name + struct.pack(">II", at + len(body), len(contents))
        body += padded
    size = at + len(body)
    header = struct.pack(
        ">I4sI4s4s4s12s4s", size, b"\0\0\0\0", 0x04300000, b"mntr", space, b"XYZ ", b"\7\xea\0\1" + b"\0\1" * 4, b"acsp"
    )
    header += b"\0" * 28 + b"".join(_fixed(value) for value in _D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def seen_by_pillow(path: Path) -> Array:
    """R'G'B' (0…255) as a viewer shows it: upright, in sRGB, over white."""
    with Image.open(path) as opened:
        opened.load()
        profile = opened.info.get("icc_profile")
        image = ImageOps.exif_transpose(opened)
    share = _alpha(image)
    if image.mode.startswith(("I", "F")):
        gray = np.asarray(image, np.float64) / 257
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode == "LA":
        image = image.getchannel("L")
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    if profile:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        converted = ImageCms.profileToProfile(image, source, target, intent, "RGB")
        assert converted is not None
        image = converted
    colors = np.asarray(image.convert("RGB"), np.float64)
    return share * colors + (1 - share) * 255


def _alpha(image: Image.Image) -> Array:
    if "transparency" not in image.info and "A" not in image.mode and "a" not in image.mode:
        return np.ones((image.height, image.width, 1))
    return np.asarray(image.convert("RGBA"), np.float64)[..., 3:] / 255
