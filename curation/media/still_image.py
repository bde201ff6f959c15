"""Still images as plain R'G'B': turned upright, in sRGB by their ICC profile, over white where they are transparent.

Untrusted files are decoded here, so this runs in a process of its own (`image_child.py`).
"""

from __future__ import annotations

import io
from contextlib import suppress

from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

FORMATS = ("AVIF", "BMP", "JPEG", "PNG", "TIFF", "WEBP")
MAX_PIXELS = 200_000_000

_QUALITY = 95
_ENOUGH = 2
"""A JPEG is decoded at a reduced size if that is at least this many times the size that it is scaled to."""
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L")
# Numbers of TIFF tags.
_BITS_A_SAMPLE = 258
_PHOTOMETRIC = 262


class NotShownError(Exception):
    """An error: nothing in the file says which pixel value is white."""


def upright(source: str, side: int | None = None) -> Image.Image:
    """Return the image at `source` as it is to be seen, RGB of 8 bits; the sides of a JPEG may be reduced.

    With a `side`, they stay long enough to be scaled to that. Raise NotShownError, MemoryError, or one of the many
    errors of Pillow for a file that it cannot read.
    """
    with Image.open(source, formats=FORMATS) as image:
        if side is not None:
            _reduce(image, side)
        image.load()
        tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
        bits = tags.get(_BITS_A_SAMPLE, (16,))[0]
        white_is_zero = tags.get(_PHOTOMETRIC, 1) == 0
        ImageOps.exif_transpose(image, in_place=True)
        return _over_white(_in_srgb(_of_eight_bits(image, bits, white_is_zero)))


def write_jpeg(image: Image.Image, side: int, target: str) -> None:
    """Write the center of an RGB image as a JPEG of `side`×`side` pixels, after scaling it to cover them."""
    # As ffmpeg did it for images in videos: even sides, an even distance to the edge.
    width, height = (max(side, -(-side * one // (2 * other)) * 2) for one, other in (image.size, image.size[::-1]))
    left, top = ((covering - side) // 2 // 2 * 2 for covering in (width, height))
    across, down = image.width / width, image.height / height
    box = (left * across, top * down, (left + side) * across, (top + side) * down)
    square = image.resize((side, side), Image.Resampling.BICUBIC, box)
    square.info.clear()  # else a comment would be copied
    square.save(target, "JPEG", quality=_QUALITY, subsampling="4:4:4")


def _reduce(image: Image.Image, side: int) -> None:
    """Have a JPEG decoded at half, a quarter or an eighth of its size, where that is whole and large enough."""
    for part in (8, 4, 2):
        if min(image.size) >= part * _ENOUGH * side and not any(one % part for one in image.size):
            image.draft(None, (image.width // part, image.height // part))
            return


def _of_eight_bits(image: Image.Image, bits: int, white_is_zero: bool) -> Image.Image:
    if image.mode == "F":
        raise NotShownError("its pixels are floating point, and nothing says which of them is white")
    if image.mode == "I":
        low, high = image.getextrema()
        if low < 0 or high > 0xFFFF:  # type: ignore[operator]
            raise NotShownError("its pixels have 32 bits, and nothing says which of them is white")
    if image.mode == "I" or image.mode in _SIXTEEN_BITS:
        scale = 255 / (2**bits - 1)
        gray = image.point(lambda value: value * scale).convert("L")
        return ImageOps.invert(gray) if white_is_zero else gray
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    return image.convert(straight) if straight else image


def _in_srgb(image: Image.Image) -> Image.Image:
    """Convert to sRGB by the image's own profile. Ignore a profile that does not fit its pixels."""
    has_alpha = image.has_transparency_data
    if image.mode in ("P", "PA", "1"):
        image = image.convert("RGBA" if has_alpha else "RGB")
    elif image.mode in ("RGB", "L") and has_alpha:
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    profile = image.info.get("icc_profile")
    if profile:
        with suppress(ImageCms.PyCMSError, OSError):
            image = _by_profile(image, profile)
    if image.mode in ("L", "LA"):
        return image.convert("RGBA" if image.mode == "LA" or has_alpha else "RGB")
    return image if image.mode in ("RGB", "RGBA") else image.convert("RGB")


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert to sRGB by an ICC profile. Raise PyCMSError or OSError if the profile is for another color space."""
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    solid = image.convert("RGB" if image.mode == "RGBA" else "L") if alpha else image
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        solid.mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    shown = transform.apply(solid)
    if alpha:
        shown.putalpha(alpha)
    return shown


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
