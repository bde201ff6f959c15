"""Conversion of a still image to plain R'G'B', in a process of its own, since untrusted files are decoded here.

    python still_image.py SOURCE TARGET

This writes a PPM of 8 bits: turned upright, converted to sRGB by its ICC profile, and composited over white where it is
transparent. The process ends with one line on stderr and status 1 if the image is damaged, or status 2 if its kind
cannot be shown.
"""

from __future__ import annotations

import io
import sys
import warnings
from contextlib import suppress

from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

FORMATS = ("AVIF", "BMP", "JPEG", "PNG", "TIFF", "WEBP")
MAX_PIXELS = 200_000_000

NOT_SHOWN = 2
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L")
# Numbers of TIFF tags.
_BITS_A_SAMPLE = 258
_PHOTOMETRIC = 262
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError)
"""The errors that Pillow raises for a file that it cannot read."""


class NotShownError(Exception):
    """An error: nothing in the file says which pixel value is white."""


def show(source: str, target: str) -> None:
    """Write the image at `source` as a PPM to `target`. Raise NotShownError, one of `_BROKEN`, or MemoryError."""
    with Image.open(source, formats=FORMATS) as image:
        image.load()
        tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
        bits = tags.get(_BITS_A_SAMPLE, (16,))[0]
        white_is_zero = tags.get(_PHOTOMETRIC, 1) == 0
        upright = ImageOps.exif_transpose(image)
    _over_white(_in_srgb(_of_eight_bits(upright, bits, white_is_zero))).save(target, "PPM")


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
    return image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))


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


if __name__ == "__main__":
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    warnings.simplefilter("ignore")
    try:
        show(sys.argv[1], sys.argv[2])
    except NotShownError as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_SHOWN)
    except _BROKEN as error:
        sys.exit(f"{error}" or type(error).__name__)
