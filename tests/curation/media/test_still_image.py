"""Still images as plain R'G'B', and as the square JPEG of a shard: depth, transparency, profile, place and turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, TiffImagePlugin
from PIL.JpegImagePlugin import get_sampling

from nextscene.curation.media.still_image import NotShownError, upright, write_jpeg
from tests.colors.profiles import rgb_profile, seen_by_pillow

WHITE_IS_ZERO, GRAY = 0, 1


def shown(path: Path) -> tuple[int, int, int]:
    """The first pixel as it comes out."""
    image = upright(str(path))
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
    with pytest.raises(NotShownError, match="its pixels are floating point, and nothing says which of them is white"):
        upright(str(tmp_path / "a.tif"))


# ---- the square in a shard ---------------------------------------------------------------------------------------

SIDE = 64


def square(path: Path, side: int = SIDE) -> Image.Image:
    """The square as another reader of JPEGs finds it."""
    target = path.with_name("square.jpg")
    write_jpeg(upright(str(path), side), side, str(target))
    image = Image.open(target)
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (side, side))
    return image


def decibels(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    off = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    return float(10 * np.log10(255**2 / np.mean(off**2)))


def ramps(width: int, height: int) -> Image.Image:
    """Red tells how far a pixel is to the right, green how far down."""
    across, down = ((np.arange(size) + 0.5) / size * 255 for size in (width, height))
    red, green = np.broadcast_to(across, (height, width)), np.broadcast_to(down[:, None], (height, width))
    return Image.fromarray(np.stack([red, green, np.zeros((height, width))], axis=-1).round().astype(np.uint8))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("size", [(64, 64), (90, 64), (64, 91), (127, 255), (333, 100), (512, 300), (1040, 1024)])
def test_the_square_shows_the_center_of_the_image_by_the_closed_form(
    tmp_path: Path, size: tuple[int, int], suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    ramps(*size).save(path, quality=100, subsampling=0)
    seen = np.asarray(square(path), np.float64)
    for channel, (own, other) in enumerate((size, size[::-1])):
        covering = max(SIDE, -(-SIDE * own // (2 * other)) * 2)
        begin = (covering - SIDE) // 4 * 2
        wanted = (np.arange(begin, begin + SIDE) + 0.5) / covering * 255
        mean = seen[:, :, channel].mean(axis=channel)
        assert np.abs(mean - wanted)[2:-2].max() < 1.5


CORNERS = np.array([[(220, 30, 30), (30, 200, 30)], [(30, 30, 220), (220, 220, 30)]], np.uint8)
TURNS: dict[int, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
    1: lambda seen: seen,
    2: np.fliplr,
    3: lambda seen: np.rot90(seen, 2),
    4: np.flipud,
    5: lambda seen: seen.swapaxes(0, 1),
    6: lambda seen: np.rot90(seen, -1),
    7: lambda seen: np.rot90(seen, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""What the Exif standard says of each orientation, for pictures as arrays of rows."""


@pytest.mark.parametrize("orientation", sorted(TURNS))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_the_square_is_upright_by_its_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(CORNERS.repeat(60, axis=0).repeat(90, axis=1))
    stored.save(tmp_path / f"a.{suffix}", exif=exif, quality=98)
    seen = np.asarray(square(tmp_path / f"a.{suffix}"), np.int64)
    corners = seen[[8, -8]][:, [8, -8]]
    assert np.abs(corners - TURNS[orientation](CORNERS)).max() <= 6


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("profile", ["smpte432", "bt2020"])
def test_the_square_has_the_colors_that_littlecms_gives(tmp_path: Path, mode: str, profile: str) -> None:
    image = Image.fromarray(CORNERS.repeat(40, axis=0).repeat(40, axis=1)).convert(mode)
    image.save(tmp_path / "a.png", icc_profile=rgb_profile(profile))
    wanted = seen_by_pillow(tmp_path / "a.png")[[10, -10]][:, [10, -10]]
    seen = np.asarray(square(tmp_path / "a.png"), np.float64)[[10, -10]][:, [10, -10]]
    assert np.abs(seen - wanted).max() <= 3


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_a_jpeg_at_reduced_size_gives_the_picture_of_the_whole(tmp_path: Path, factor: int) -> None:
    chance = np.random.default_rng(factor).integers(0, 256, (20, 20, 3), np.uint8)
    whole = Image.fromarray(chance).resize((2 * SIDE * factor, 2 * SIDE * factor), Image.Resampling.BICUBIC)
    whole.save(tmp_path / "a.jpg", quality=98, subsampling=0)
    assert upright(str(tmp_path / "a.jpg"), SIDE).width == 2 * SIDE
    exact = whole.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    assert decibels(square(tmp_path / "a.jpg"), exact) > 38  # as for the whole: the loss is that of the quality


@pytest.mark.parametrize("size", [(257, 256), (256, 257), (254, 256), (126, 1024)])
def test_a_jpeg_is_not_reduced_where_pixels_would_shift_or_lack(tmp_path: Path, size: tuple[int, int]) -> None:
    ramps(*size).save(tmp_path / "a.jpg")
    assert upright(str(tmp_path / "a.jpg"), SIDE).size == size


def test_nothing_but_pixels_comes_from_the_source(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    icc = rgb_profile("smpte432")
    ramps(80, 80).save(tmp_path / "a.jpg", comment=b"a comment", exif=exif, icc_profile=icc, xmp=b"<x/>", dpi=(7, 7))
    seen = square(tmp_path / "a.jpg")
    assert seen.info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert seen.info["jfif_density"] == (1, 1) and not seen.getexif()
    assert get_sampling(seen) == 0  # 4:4:4
