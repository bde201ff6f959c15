"""The cut of an image under both schemas: the JPEG of today shows what the video of one frame did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from nextscene.curation.config import BuildConfig, EncodeConfig
from nextscene.curation.media.probe import measure
from nextscene.curation.media.seek import Span
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.stages.cut import Cut, cut
from nextscene.shards.loading.decode import decode, decode_image
from tests.support import run_ffmpeg

SIDE = 128
CONFIG = BuildConfig(judge="none", encode=EncodeConfig(image_side=SIDE, crf=4))
AS_VIDEO, AS_JPEG = 2, 3

Shown = npt.NDArray[np.float64]


def made(path: Path, schema_version: int, config: BuildConfig = CONFIG) -> Cut:
    with path.open("rb") as file:
        measured = measure(file)
    clip = cut(path, Span(0.0, None), measured, config, path.parent, schema_version)
    assert isinstance(clip, Cut), clip
    return clip


def both(path: Path, config: BuildConfig = CONFIG) -> tuple[Shown, Shown]:
    """The pictures of an image as a video of one frame, and as a JPEG."""
    video, image = (made(path, version, config) for version in (AS_VIDEO, AS_JPEG))
    assert (video.suffix, image.suffix) == ("mp4", "jpg")
    assert {(clip.frames, clip.width, clip.height) for clip in (video, image)} == {(1, SIDE, SIDE)}
    shown = np.empty((2, 1, SIDE, SIDE, 3), np.uint8)
    decode(video.media, (SIDE, SIDE), shown[0])
    decode_image(image.media, (SIDE, SIDE), shown[1])
    return shown[0, 0].astype(np.float64), shown[1, 0].astype(np.float64)


def decibels(one: Shown, other: Shown) -> float:
    """How like two pictures are in luma: of the video's colors four pixels share one."""
    off = (one - other) @ np.array([0.2126, 0.7152, 0.0722])
    return float(10 * np.log10(255**2 / np.mean(off**2)))


def landscape(width: int, height: int) -> Image.Image:
    """Soft blobs of color, of a size that one pixel of shift is seen by."""
    blobs = np.random.default_rng(7).integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    return Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("resolution", ["train", "native"])
@pytest.mark.parametrize("size", [(512, 512), (640, 271), (513, 771), (2048, 1024)])
def test_the_same_pixels_are_kept(
    tmp_path: Path, size: tuple[int, int], resolution: Literal["train", "native"]
) -> None:
    landscape(*size).save(tmp_path / "a.jpg", quality=95)
    video, image = both(tmp_path / "a.jpg", replace(CONFIG, resolution=resolution))
    right = decibels(video, image)
    assert right > 36
    for axis in (0, 1):
        assert decibels(np.roll(video, 1, axis), image) < right - 3


@pytest.mark.parametrize(
    "tags",
    [
        "color_trc=smpte2084:color_primaries=bt2020:colorspace=bt2020nc",
        "color_trc=arib-std-b67:color_primaries=bt2020:colorspace=bt2020nc",
        "color_trc=bt709:color_primaries=smpte432:colorspace=bt709",
    ],
)
def test_colors_that_ffmpeg_converts_are_those_of_the_video(tmp_path: Path, tags: str) -> None:
    landscape(640, 360).save(tmp_path / "a.png")
    path = tmp_path / "a.avif"
    shown = f"scale=out_range=tv,format=yuv420p10le,setparams={tags}:range=tv"
    encoding = ["-c:v", "libaom-av1", "-cpu-used", "8", "-still-picture", "1", "-frames:v", "1"]
    run_ffmpeg("-i", str(tmp_path / "a.png"), "-vf", shown, *encoding, str(path))
    video, image = both(path)
    assert decibels(video, image) > 34
    assert decibels(both(tmp_path / "a.png")[1], image) < 30, "they were converted"


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    landscape(640, 271).save(tmp_path / "a.png")
    assert made(tmp_path / "a.png", AS_JPEG).media == made(tmp_path / "a.png", AS_JPEG).media


@pytest.mark.parametrize("schema_version", [AS_VIDEO, AS_JPEG])
def test_a_truncated_image_fails_under_both(tmp_path: Path, schema_version: int) -> None:
    path = tmp_path / "a.jpg"
    landscape(640, 480).save(path)
    with path.open("rb") as file:
        measured = measure(file)
    path.write_bytes(path.read_bytes()[:-500])
    end = cut(path, Span(0.0, None), measured, CONFIG, tmp_path, schema_version)
    assert isinstance(end, ClipOutcome) and (end.outcome, end.reason) == ("failed", "damaged")
