"""The cases of images. What each shows is what Pillow, with littleCMS, makes of the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.colors.cases import Case
from tests.colors.conversion import Tags
from tests.colors.patches import COLUMNS, ROWS, SDR, centers, write_video
from tests.colors.profiles import gray_profile, rgb_profile, seen_by_pillow

ADOBE_RGB_GAMMA = 563 / 256
ORIENTATION = 0x0112
SIDE = 640


def patches(mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """The patches as an image; in modes with alpha each third one is opaque, half and wholly transparent."""
    width, height = size
    rows, columns = np.arange(height) * ROWS // height, np.arange(width) * COLUMNS // width
    colors = np.column_stack([SDR * 255, [255, 128, 0] * 4]).round().astype(np.uint8)
    image = Image.fromarray(colors.reshape(ROWS, COLUMNS, 4)[rows][:, columns])
    if mode in ("RGB", "RGBA"):
        return image.convert(mode)
    if mode == "LA":
        return Image.merge("LA", [image.convert("RGB").convert("L"), image.getchannel("A")])
    if mode == "I;16":
        gray = np.asarray(image.convert("RGB").convert("L"), np.uint16) * 257
        return Image.fromarray(gray)
    if mode == "P":
        return image.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
    return image.convert("RGB").convert(mode)


def image(
    name: str,
    made: Callable[[], Image.Image] = patches,
    size: tuple[int, int] = (SIDE, SIDE),
    noted: bool = False,
    **saving: Any,
) -> Case:
    return case(name, lambda path: made().save(path, **saving), size, noted)


def case(name: str, save: Callable[[Path], object], size: tuple[int, int] = (SIDE, SIDE), noted: bool = False) -> Case:
    """A case of an image that `save` writes; its expected colors are there once it is written."""
    expected = np.zeros((len(centers()), 3))

    def make(folder: Path) -> None:
        path = folder / f"image-{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path)
        shown = seen_by_pillow(path)
        height, width = shown.shape[:2]
        for i, (x, y) in enumerate(centers()):
            row, column = round(y * height), round(x * width)
            expected[i] = shown[row - 4 : row + 4, column - 4 : column + 4].mean(axis=(0, 1))

    return Case("image", f"image-{name}", make, size, expected, noted=noted)


def all_images() -> Iterator[Case]:
    yield from jpegs()
    yield from pngs()
    yield from others()


def jpegs() -> Iterator[Case]:
    fine = {"quality": 98, "subsampling": 0}
    for side in (640, 1280, 1920):
        box = (side, side)
        yield image(f"{side}.jpg", lambda box=box: patches("RGB", box), box, **fine)
    yield image("wide-1280.jpg", lambda: patches("RGB", (1280, 720)), (1280, 720), quality=95)
    for number in range(2, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = number
        box = (1280, 800)
        turned = box if number < 5 else box[::-1]
        yield image(f"exif-{number}.jpg", lambda box=box: patches("RGB", box), turned, exif=exif, **fine)
    yield image("420.jpeg", quality=95, subsampling=2)
    yield image("progressive.jpg", progressive=True, **fine)
    yield image("progressive-1920.jpg", lambda: patches("RGB", (1920, 1920)), (1920, 1920), progressive=True, **fine)
    yield image("gray.jpg", lambda: patches("L"), **fine)
    yield image("cmyk.jpg", lambda: patches("CMYK"), **fine)
    yield image("rgb-inside.jpg", keep_rgb=True, **fine)
    yield image("suffix.jfif", format="JPEG", **fine)
    yield image("p3.jpg", icc_profile=rgb_profile("smpte432"), **fine)
    yield image(
        "p3-1920.jpg", lambda: patches("RGB", (1920, 1920)), (1920, 1920), icc_profile=rgb_profile("smpte432"), **fine
    )
    yield image("adobe-like.jpg", icc_profile=rgb_profile("bt2020", ADOBE_RGB_GAMMA), **fine)
    yield image("srgb-profile.jpg", icc_profile=rgb_profile("bt709"), **fine)
    yield image("gray-profile.jpg", lambda: patches("L"), icc_profile=gray_profile(1.8), **fine)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    yield image("p3-exif-6.jpg", icc_profile=rgb_profile("smpte432"), exif=exif, **fine)


def pngs() -> Iterator[Case]:
    for side in (640, 1280):
        yield image(f"{side}.png", lambda box=(side, side): patches("RGB", box), (side, side))
    for mode in ("RGBA", "LA", "L", "P", "I;16"):
        yield image(f"{mode.replace(';', '').lower()}.png", lambda mode=mode: patches(mode))
    # Black and white dots are darkest and lightest: where scaling overshoots, it is cut off, and the mean shifts.
    yield image("1.png", lambda: patches("1"), noted=True)
    yield image("palette-transparent.png", _palette_with_alpha)
    yield image("palette-one-index.png", lambda: patches("P"), transparency=_index_of_first())
    yield image("rgb-key.png", transparency=(200, 40, 40))
    yield image("gray-key.png", lambda: patches("L"), transparency=255)
    yield image("p3.png", icc_profile=rgb_profile("smpte432"))
    yield image("p3-alpha.png", lambda: patches("RGBA"), icc_profile=rgb_profile("smpte432"))
    yield image("power.png", icc_profile=rgb_profile("bt709", 1.0))
    yield image("gray-profile.png", lambda: patches("L"), icc_profile=gray_profile(1.8))
    yield image("palette-p3.png", lambda: patches("P"), icc_profile=rgb_profile("smpte432"))
    yield case("rgb48.png", lambda path: _by_ffmpeg(path, "rgb48be", Tags()))
    yield case("tagged-srgb.png", lambda path: _by_ffmpeg(path, "rgb24", Tags("gbr", "bt709", "iec61966-2-1", True)))
    yield case(
        "cicp-p3.png", lambda path: _by_ffmpeg(path, "rgb24", Tags("gbr", "smpte432", "iec61966-2-1", True)), noted=True
    )


def others() -> Iterator[Case]:
    p3 = {"icc_profile": rgb_profile("smpte432")}
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    yield image("lossless.webp", lossless=True)
    yield image("lossy.webp", quality=98)
    yield image("lossy-1920.webp", lambda: patches("RGB", (1920, 1920)), (1920, 1920), quality=98)
    yield image("alpha.webp", lambda: patches("RGBA"), lossless=True, exact=True)
    yield image("alpha-lossy.webp", lambda: patches("RGBA"), quality=98, exact=True)
    yield image("p3.webp", lossless=True, **p3)
    yield image("p3-lossy.webp", quality=98, **p3)
    yield image("exif-6.webp", lossless=True, exif=exif)
    yield image("animated.webp", save_all=True, append_images=[patches().rotate(180)], lossless=True, noted=True)
    yield image("rgb.bmp")
    yield image("palette.bmp", lambda: patches("P"))
    yield image("gray.bmp", lambda: patches("L"))
    yield image("alpha.bmp", lambda: patches("RGBA"), noted=True)
    for mode in ("RGB", "RGBA", "LA", "L", "P", "I;16", "CMYK"):
        yield image(f"{mode.replace(';', '').lower()}.tif", lambda mode=mode: patches(mode))
    yield image("lzw.tiff", compression="tiff_lzw")
    yield image("deflate-alpha.tiff", lambda: patches("RGBA"), compression="tiff_adobe_deflate")
    yield image("jpeg-inside.tif", compression="jpeg", quality=98, noted=True)
    yield image("p3.tif", **p3)
    yield image("turned.tif", tiffinfo={ORIENTATION: 6})
    yield image("rgb.avif", quality=98, subsampling="4:4:4", noted=True)
    yield image("alpha.avif", lambda: patches("RGBA"), quality=98, subsampling="4:4:4", noted=True)
    yield image("p3.avif", quality=98, subsampling="4:4:4", noted=True, **p3)
    yield image("palette.gif", lambda: patches("P"), noted=True)


def _palette_with_alpha() -> Image.Image:
    """Eight bits of palette with an alpha for each index."""
    paletted = patches("RGBA").quantize(16, Image.Quantize.FASTOCTREE)
    assert paletted.mode == "P"
    return paletted


def _index_of_first() -> int:
    index = patches("P").getpixel((5, 5))
    assert isinstance(index, int)
    return index


def _by_ffmpeg(path: Path, pixel_format: str, tags: Tags) -> Path:
    top = 65535 if pixel_format == "rgb48be" else 255
    return write_video(path, np.round(SDR * top), pixel_format, (SIDE, SIDE), tags, ("-frames:v", "1", "-c:v", "png"))
