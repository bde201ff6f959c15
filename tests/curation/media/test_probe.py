"""Headers: of several videos the one that is meant, no number believed that no camera records."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from nextscene.curation.media.color import Color
from nextscene.curation.media.mediainfo import milliseconds, number
from nextscene.curation.media.probe import ImplausibleHeader, NoVideo, UnreadableFile
from tests.curation.measuring import measured_alike
from tests.support import make_video, run_ffmpeg


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("plain") / "plain.mp4", 0.5)


def copied(plain: Path, target: Path, *options: str, before: tuple[str, ...] = ()) -> Path:
    run_ffmpeg(*before, "-i", str(plain), "-c", "copy", *options, str(target))
    return target


# ---- which stream ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_of_several_videos_the_one_flagged_default_is_meant(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"two.{suffix}"
    small, large = "testsrc=size=320x240:rate=8:duration=0.5", "testsrc2=size=854x480:rate=8:duration=0.5"
    run_ffmpeg(
        "-f",
        "lavfi",
        "-i",
        small,
        "-f",
        "lavfi",
        "-i",
        large,
        "-map",
        "0",
        "-map",
        "1",
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        "-preset",
        "ultrafast",
        "-disposition:v:0",
        "0",
        "-disposition:v:1",
        "default",
        str(path),
    )
    found = measured_alike(path)
    assert (found.stream, found.width, found.height) == ("V:1", 854, 480)


@pytest.mark.parametrize(("suffix", "codec"), [("m4a", "aac"), ("mp3", "libmp3lame")])
def test_sound_with_a_cover_has_no_video(tmp_path: Path, suffix: str, codec: str) -> None:
    Image.new("RGB", (900, 900), "red").save(tmp_path / "cover.png")
    path = tmp_path / f"song.{suffix}"
    run_ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "sine=duration=1",
        "-i",
        str(tmp_path / "cover.png"),
        "-map",
        "0",
        "-map",
        "1",
        "-c:a",
        codec,
        "-c:v",
        "copy",
        "-disposition:v:0",
        "attached_pic",
        str(path),
    )
    with pytest.raises(NoVideo, match=r"^streams in the file: audio, cover$"):
        measured_alike(path)


# ---- numbers ---------------------------------------------------------------------------------------------------


def test_a_mirrored_video_is_as_large_as_it_is_shown(plain: Path, tmp_path: Path) -> None:
    found = measured_alike(copied(plain, tmp_path / "mirrored.mp4", before=("-display_hflip",)))
    assert (found.width, found.height) == (854, 480)


@pytest.mark.parametrize(("aspect", "ok"), [("1:1", True), ("2:1", True), ("32:9", True), ("100:1", False)])
def test_pixels_far_from_square_are_not_believed(tmp_path: Path, aspect: str, ok: bool) -> None:
    path = make_video(tmp_path / "wide.mp4", 0.25, "854x480", "16", "-vf", f"setsar={aspect.replace(':', '/')}")
    if ok:
        across, high = map(int, aspect.split(":"))
        assert abs(measured_alike(path).width - 854 * across / high) <= 1
    else:
        with pytest.raises(ImplausibleHeader, match="times as wide as high"):
            measured_alike(path)


@pytest.mark.parametrize(("degrees", "size"), [(0, (854, 480)), (90, (480, 854)), (180, (854, 480)), (45, None)])
def test_only_quarter_turns_are_believed(
    plain: Path, tmp_path: Path, degrees: int, size: tuple[int, int] | None
) -> None:
    path = copied(plain, tmp_path / "turned.mp4", before=("-display_rotation", str(degrees)))
    if size:
        assert (measured_alike(path).width, measured_alike(path).height) == size
    else:
        with pytest.raises(ImplausibleHeader, match="turned by"):
            measured_alike(path)


def test_a_video_that_begins_after_its_sound_may_be_used_to_its_end(plain: Path, tmp_path: Path) -> None:
    """`end` is on the clock of the file, `duration` the length of what can be seen."""
    for suffix in ("mp4", "mkv", "ts"):
        path = tmp_path / f"late.{suffix}"
        run_ffmpeg(
            "-itsoffset", "1", "-i", str(plain), "-f", "lavfi", "-i", "sine=duration=1.5", "-c:v", "copy", str(path)
        )
        found = measured_alike(path)
        assert 1.43 <= found.end <= (12 if suffix == "ts" else 1.57), suffix  # without an index it is guessed
        assert found.duration == pytest.approx(0.5, abs=0.07) or suffix == "mkv"


@pytest.mark.parametrize(("degrees", "size"), [(90, (480, 854)), (180, (854, 480)), (30, None)])
def test_matroska_too_turns_its_pictures(
    plain: Path, tmp_path: Path, degrees: int, size: tuple[int, int] | None
) -> None:
    path = copied(plain, tmp_path / "turned.mkv", before=("-display_rotation", str(degrees)))
    if size:
        assert (measured_alike(path).width, measured_alike(path).height) == size
    else:
        with pytest.raises(ImplausibleHeader, match="turned by"):
            measured_alike(path)


# ---- color -----------------------------------------------------------------------------------------------------


def test_colors_are_what_codec_and_tags_say(plain: Path, tmp_path: Path) -> None:
    tags = "h264_metadata=colour_primaries=9:transfer_characteristics=16:matrix_coefficients=9"
    assert measured_alike(plain).color == Color()
    pq = measured_alike(copied(plain, tmp_path / "pq.mp4", "-bsf:v", tags)).color
    assert pq == Color("BT.2020 non-constant", "PQ", "BT.2020") and pq.is_hdr and not pq.unknown
    run_ffmpeg("-i", str(plain), "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", str(tmp_path / "jpeg.avi"))
    assert measured_alike(tmp_path / "jpeg.avi").color.matrix_of(1280) == ""


@pytest.mark.parametrize(
    ("color", "longer_side", "matrix"),
    [
        (Color(), 1280, "bt709"),
        (Color(), 1279, "smpte170m"),
        (Color(primaries="BT.2020"), 854, "bt2020nc"),
        (Color(transfer="HLG"), 854, "bt2020nc"),
        (Color("FCC 73.682"), 1920, "fcc"),
        (Color(is_jpeg=True), 1920, ""),
    ],
)
def test_size_decides_the_matrix_only_where_nothing_else_does(color: Color, longer_side: int, matrix: str) -> None:
    assert color.matrix_of(longer_side) == matrix


@pytest.mark.parametrize("codec", ["libsvtav1", "libvpx-vp9"])
def test_tags_that_stand_in_the_pictures_alone_are_seen(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "v.mp4"
    picture = "testsrc2=size=854x480:rate=8:duration=0.25,format=yuv420p"
    tags = ["-colorspace", "smpte170m", "-movflags", "-write_colr"]
    run_ffmpeg("-f", "lavfi", "-i", picture, "-c:v", codec, *tags, str(path))
    assert measured_alike(path).color.matrix == "BT.601"


def test_a_word_without_a_conversion_is_unknown() -> None:
    assert Color("Y'D'zD'x").unknown == "Y'D'zD'x" and Color(transfer="a new one").unknown == "a new one"


# ---- images ----------------------------------------------------------------------------------------------------


def images(folder: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    picture = Image.new("RGB", (900, 600), "red")
    for suffix in ("png", "jpg", "jfif", "webp", "bmp", "tif", "tiff", "avif"):
        picture.save(folder / f"a.{suffix}", "JPEG" if suffix == "jfif" else None)
        yield folder / f"a.{suffix}", (900, 600)
    turned = Image.Exif()
    turned[0x0112] = 6
    for suffix in ("jpg", "png", "webp", "tif"):
        picture.save(folder / f"turned.{suffix}", exif=turned)
        yield folder / f"turned.{suffix}", (600, 900)


def test_images_are_measured_as_they_are_shown(tmp_path: Path) -> None:
    for path, size in images(tmp_path):
        found = measured_alike(path)
        assert (found.is_image, found.width, found.height, found.duration) == (True, *size, 0.0), path.name


def test_a_gif_is_not_read_and_says_so(tmp_path: Path) -> None:
    Image.new("RGB", (900, 600), "red").save(tmp_path / "a.gif")
    with pytest.raises(UnreadableFile, match="GIF is not read"):
        measured_alike(tmp_path / "a.gif")


def test_an_image_that_claims_to_be_huge_is_not_decoded(tmp_path: Path) -> None:
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 30000, 30000, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "huge.bmp").write_bytes(header)
    with pytest.raises(ImplausibleHeader, match="more than 200,000,000 pixels"):
        measured_alike(tmp_path / "huge.bmp")


@pytest.mark.parametrize("text", ["1e400", "-1e400", "inf", "nan", "", "many"])
def test_a_number_that_is_none_is_the_default(text: str) -> None:
    assert number(text, 7.0) == milliseconds(text, 7.0) == 7.0


@pytest.mark.parametrize(("text", "found"), [("0", 0.0), ("1500", 1500.0), ("-1", 7.0), ("99999999999999999999", 7.0)])
def test_no_video_lasts_less_than_nothing_or_for_ever(text: str, found: float) -> None:
    assert milliseconds(text, 7.0) == found
