"""Pictures that were made become a clip such as the data has: the same encoder and tags, and whole or not at all."""

from __future__ import annotations

import re
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from nextscene.common import ffmpeg
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig, RunLimits
from nextscene.curation.media.probe import Measured
from nextscene.curation.media.seek import Span
from nextscene.curation.media.video_writer import EncodeFailed, encode_video
from nextscene.curation.stages.cut import Cut, cut
from nextscene.shards.loading.decode import decode
from tests.support import make_video

Video = npt.NDArray[np.uint8]
FRAMES, HEIGHT, WIDTH = 10, 96, 160


@pytest.fixture(scope="module")
def video() -> Video:
    """Smooth in all colors, other in each frame."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    colors = np.stack([255 * columns / WIDTH, 255 * rows / HEIGHT, 255 - 128 * (rows / HEIGHT + columns / WIDTH)], -1)
    light = np.linspace(0.5, 1, FRAMES)[:, None, None, None]
    return (light * colors).round().astype(np.uint8)


def streams(mp4: bytes) -> dict[str, Any]:
    """What the file says of its pictures."""
    with av.open(BytesIO(mp4)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        return {
            "streams": len(container.streams),
            "metadata": dict(container.metadata),
            "frames": stream.frames,
            "size": (context.width, context.height),
            "rate": stream.average_rate,
            "base": stream.time_base,
            "profile": context.profile,
            "pixels": context.pix_fmt,
            "aspect": stream.sample_aspect_ratio,
            "color": (context.color_range, context.color_primaries, context.color_trc, context.colorspace),
            "keys": [number for number, frame in enumerate(container.decode(stream)) if frame.key_frame],
        }


def encoder(mp4: bytes) -> str:
    """The settings that x264 writes into the first picture."""
    found = re.search(rb"x264 - core [\x20-\x7e]+ options: [\x20-\x7e]+", mp4)
    assert found
    return found[0].decode()


@pytest.mark.parametrize("fps", [16.0, 25.0, 23.976])
def test_the_pictures_come_back_in_number_size_rate_and_color(video: Video, tmp_path: Path, fps: float) -> None:
    encode_video(video, Storage.at(tmp_path), "clip.mp4", fps)
    mp4 = (tmp_path / "clip.mp4").read_bytes()
    found = streams(mp4)
    assert (found["frames"], found["size"], found["rate"]) == (FRAMES, (WIDTH, HEIGHT), Fraction(str(fps)))
    out = np.zeros_like(video)
    decode(mp4, (WIDTH, HEIGHT), out)
    error = out.astype(int) - video
    assert np.abs(error).mean() < 2 and np.abs(error).max() < 16
    assert np.argmin(np.abs(out[:, None].astype(int) - video[None]).mean((2, 3, 4)), axis=1).tolist() == list(range(10))


def test_colors_are_stored_as_bt709_in_its_limited_range(tmp_path: Path) -> None:
    """One frame of each, against the formulas of the standard."""
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 120, 40]], np.uint8)
    encode_video(np.broadcast_to(colors[:, None, None], (6, 32, 32, 3)), Storage.at(tmp_path), "clip.mp4", 16.0)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        planes = [frame.to_ndarray() for frame in container.decode(video=0)]
    found = [[plane[:32].mean(), plane[32:40].mean(), plane[40:].mean()] for plane in planes]
    red, green, blue = colors.T / 255
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    expected = [16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748]
    np.testing.assert_allclose(found, np.transpose(expected), atol=1.5)


def test_encoder_and_tags_are_those_of_a_clip_that_was_cut(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", 1.25)
    of_data = cut(source, Span(0, None), Measured(False, 854, 480, 1.25, "AVC"), BuildConfig(), tmp_path)
    assert isinstance(of_data, Cut)
    pictures = np.zeros((of_data.frames, of_data.height, of_data.width, 3), np.uint8)
    decode(of_data.media, (of_data.width, of_data.height), pictures)
    encode_video(pictures, Storage.at(tmp_path), "made.mp4", 16.0)
    made = (tmp_path / "made.mp4").read_bytes()
    assert encoder(made) == encoder(of_data.media)
    assert streams(made) == streams(of_data.media)
    assert streams(made)["keys"] == [0, 16]


def test_the_same_pictures_give_the_same_bytes_and_leave_nothing_else(
    video: Video, tmp_path: Path, scratch: Path
) -> None:
    for name in ("one.mp4", "other.mp4"):
        encode_video(video[::-1, :, ::-1], Storage.at(tmp_path), name, 16.0)  # which lie in memory in another order
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "other.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.mp4", "other.mp4"]
    assert list(scratch.iterdir()) == []


def test_an_encoder_that_fails_leaves_the_clip_that_was_there_and_says_why(
    video: Video, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"before")

    def failing(_arguments: list[str], _limits: RunLimits) -> ffmpeg.ChildResult:
        return ffmpeg.ChildResult(1, "first\nencoder broken", 0.0)

    monkeypatch.setattr(ffmpeg, "run", failing)
    with pytest.raises(EncodeFailed, match=r"clip\.mp4: ffmpeg ended with status 1: encoder broken"):
        encode_video(video, Storage.at(tmp_path), "clip.mp4", 16.0)
    assert (tmp_path / "clip.mp4").read_bytes() == b"before"
    assert list(scratch.iterdir()) == []


def test_sides_that_are_not_even_are_refused(video: Video, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="159×96"):
        encode_video(video[:, :, 1:], Storage.at(tmp_path), "clip.mp4", 16.0)
    assert list(tmp_path.iterdir()) == []
