"""Still images as plain R'G'B': every depth, every kind of transparency, every profile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from nextscene.curation.media import still_image

WHITE_IS_ZERO, GRAY = 0, 1


def shown(path: Path) -> tuple[int, int, int]:
    """The first pixel as it comes out."""
    target = path.with_suffix(".ppm")
    still_image.show(str(path), str(target))
    with Image.open(target) as image:
        assert image.mode == "RGB"
        pixel = image.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel[0], pixel[1], pixel[2]


def gray_tiff(path: Path, value: int, bits: int, photometric: int) -> Path:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = photometric
    Image.fromarray(np.full((8, 8), value, np.uint16)).save(path, tiffinfo=tags)
    if bits != 16:  # Pillow writes 16 only; the numbers stay as they are
        data = bytearray(path.read_bytes())
        at = data.index((258).to_bytes(2, "little") + (3).to_bytes(2, "little"))
        data[at + 8 : at + 10] = bits.to_bytes(2, "little")
        path.write_bytes(data)
    return path


def test_sixteen_bits_become_eight_and_white_stays_white(tmp_path: Path) -> None:
    assert shown(gray_tiff(tmp_path / "a.tif", 0xFFFF, 16, GRAY)) == (255, 255, 255)
    assert shown(gray_tiff(tmp_path / "b.tif", 0x8080, 16, GRAY)) == (128, 128, 128)
    assert shown(gray_tiff(tmp_path / "c.tif", 60000, 16, WHITE_IS_ZERO)) == (22, 22, 22)
    Image.fromarray(np.full((8, 8), 0x8080, np.uint16)).save(tmp_path / "d.png")
    assert shown(tmp_path / "d.png") == (128, 128, 128)


@pytest.mark.parametrize(
    ("mode", "pixel", "wanted"),
    [("RGBA", (200, 40, 40, 0), 255), ("LA", (40, 0), 255), ("RGBA", (0, 0, 0, 255), 0), ("LA", (0, 51), 204)],
)
def test_what_is_transparent_is_white(tmp_path: Path, mode: str, pixel: tuple[int, ...], wanted: int) -> None:
    Image.new(mode, (8, 8), pixel).save(tmp_path / "a.png")
    assert shown(tmp_path / "a.png") == (wanted, wanted, wanted)


def test_a_gray_that_stands_for_transparent_is_white_with_a_profile_too(tmp_path: Path) -> None:
    for name, options in (("plain", {}), ("profile", {"icc_profile": gray_profile()})):
        Image.new("L", (8, 8), 187).save(tmp_path / f"{name}.png", transparency=187, **options)
        assert shown(tmp_path / f"{name}.png") == (255, 255, 255), name


def gray_profile() -> bytes:
    """sRGB's own profile will do: it does not fit gray pixels, and is left out."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_floating_point_is_of_a_kind_that_cannot_be_shown(tmp_path: Path) -> None:
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "a.tif")
    line = [sys.executable, "-P", still_image.__file__, str(tmp_path / "a.tif"), str(tmp_path / "a.ppm")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == still_image.NOT_SHOWN
    assert done.stderr == "its pixels are floating point, and nothing says which of them is white\n"
