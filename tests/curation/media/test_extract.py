"""What is made of awkward files, looked at in the finished clips: mirrored, interlaced, without a duration, hurt."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig, Rules
from nextscene.curation.ledger import Row
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.sample import Sample
from nextscene.shards.loading.reader import ShardReader
from tests.support import assert_conserved, build_inline, ledger, make_video, run_ffmpeg, write_csv

pytestmark = pytest.mark.slow

CONFIG = BuildConfig(judge="none", test=0.0, unit_size=32)
Picture = npt.NDArray[np.uint8]


def built(
    folder: Path, rows: list[dict[str, object]], config: BuildConfig = CONFIG
) -> tuple[Mapping[str, Row], Mapping[str, Sample]]:
    """Rows and samples by the names of their files."""
    source = write_csv(folder / "clips.csv", [{**row, "caption": "it"} for row in rows])
    build_inline(source, folder / "out", config)
    assert_conserved(folder / "out", config)
    found = {row.source: row for row in ledger(folder / "out", config)}
    if not any(row.kept for row in found.values()):
        return found, {}
    reader = ShardReader(Storage.at(folder / "out"), ShardName("train", 0))
    return found, {name: reader.sample(row.clip_id) for name, row in found.items() if row.kept}


def pictures(sample: Sample) -> list[Picture]:
    """The luma of each frame."""
    with av.open(io.BytesIO(sample.media)) as container:
        return [frame.to_ndarray()[: frame.height] for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture whose left half is dark, and what players make of it in several wrappings."""
    folder = tmp_path_factory.mktemp("extract")
    halves = "color=black:s=854x480:r=16:d=0.5,drawbox=x=427:w=427:h=480:color=white:t=fill"
    encoding = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "ultrafast"]
    run_ffmpeg("-f", "lavfi", "-i", halves, *encoding, str(folder / "plain.mp4"))
    run_ffmpeg("-display_hflip", "-i", str(folder / "plain.mp4"), "-c", "copy", str(folder / "mirrored.mp4"))
    run_ffmpeg("-i", str(folder / "plain.mp4"), "-c", "copy", "-live", "1", str(folder / "endless.mkv"))
    run_ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=320x240:r=16:d=0.5",
        "-i",
        str(folder / "plain.mp4"),
        "-map",
        "0",
        "-map",
        "1",
        *encoding,
        "-disposition:v:0",
        "0",
        "-disposition:v:1",
        "default",
        str(folder / "second.mkv"),
    )
    # A white bar that moves by 64 pixels from field to field.
    lum = "if(between(X\\,64*N\\,64*N+63)\\,235\\,16)"
    bar = f"color=black:s=854x480:r=32:d=1,format=yuv420p,geq=lum='{lum}':cb=128:cr=128,tinterlace=interleave_top"
    fields = ["-flags", "+ilme+ildct", "-x264-params", "tff=1:crf=10"]
    run_ffmpeg("-f", "lavfi", "-i", bar, *encoding, *fields, str(folder / "fields.mp4"))
    return folder


@pytest.fixture(scope="module")
def kept(folder: Path) -> tuple[Mapping[str, Row], Mapping[str, Sample]]:
    names = ["plain.mp4", "mirrored.mp4", "endless.mkv", "second.mkv", "fields.mp4"]
    return built(folder, [{"video": name} for name in names])


def test_all_are_kept_whole(kept: tuple[Mapping[str, Row], Mapping[str, Sample]]) -> None:
    assert {row.outcome for row in kept[0].values()} == {"kept"}
    assert {name: row.frames for name, row in kept[0].items()} == {**dict.fromkeys(kept[0], 8), "fields.mp4": 16}


def test_a_mirrored_video_is_mirrored(kept: tuple[Mapping[str, Row], Mapping[str, Sample]]) -> None:
    for name, left, right in (("plain.mp4", 16, 235), ("mirrored.mp4", 235, 16), ("second.mkv", 16, 235)):
        picture = pictures(kept[1][name])[3]
        assert abs(int(picture[240, 200]) - left) < 6 and abs(int(picture[240, 632]) - right) < 6, name


def test_the_end_of_a_file_that_tells_none_is_where_decoding_ended(
    kept: tuple[Mapping[str, Row], Mapping[str, Sample]],
) -> None:
    row, sample = kept[0]["endless.mkv"], kept[1]["endless.mkv"]
    assert row.duration == -1.0 and b'"end":0.5,' in sample.json


def test_interlaced_video_is_not_combed(kept: tuple[Mapping[str, Row], Mapping[str, Sample]]) -> None:
    """In a combed frame neighboring lines show bars 64 pixels apart, so every second line differs."""
    for picture in pictures(kept[1]["fields.mp4"])[2:10]:
        lines = picture[100:380].astype(int)
        between, apart = np.abs(lines[1:] - lines[:-1]).mean(), np.abs(lines[2:] - lines[:-2]).mean()
        assert between < apart + 2


def test_a_tolerance_lets_through_what_is_a_little_damaged(tmp_path: Path) -> None:
    path = make_video(tmp_path / "hurt.mp4", 2.0)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    strict, _ = built(tmp_path, [{"video": "hurt.mp4"}])
    assert (strict["hurt.mp4"].outcome, strict["hurt.mp4"].reason) == ("failed", "damaged")
    tolerant = replace(CONFIG, rules=Rules(max_damaged_frames=32))
    (tmp_path / "out").rename(tmp_path / "strict")
    assert built(tmp_path, [{"video": "hurt.mp4"}], tolerant)[0]["hurt.mp4"].frames == 32


def test_half_a_jpeg_is_damaged_and_its_neighbor_is_not(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 600, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    rows, _ = built(tmp_path, [{"video": "half.jpg"}, {"video": "whole.jpg"}])
    assert (rows["half.jpg"].outcome, rows["half.jpg"].reason) == ("failed", "damaged")
    assert "image file is truncated" in rows["half.jpg"].detail and rows["whole.jpg"].kept


# ---- files made of several -------------------------------------------------------------------------------------


def patch(path: Path, color: str, size: str, *encoding: str, seconds: float = 1.0) -> Path:
    picture = f"color={color}:s={size}:r=16:d={seconds}"
    run_ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "libx264", "-pix_fmt", "yuv420p", *encoding, str(path))
    return path


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
def test_a_video_that_changes_its_size_is_not_kept_with_a_gap(tmp_path: Path, suffix: str) -> None:
    """Ffmpeg would set up its filters anew, and count from zero once more."""
    for name, size in (("one", "1280x720"), ("two", "960x540")):
        patch(tmp_path / f"{name}.ts", "red", size, "-preset", "ultrafast")
    (tmp_path / "list.txt").write_text("file one.ts\nfile two.ts\n")
    path = tmp_path / f"both.{suffix}"
    run_ffmpeg("-f", "concat", "-i", str(tmp_path / "list.txt"), "-c", "copy", str(path))
    rows, _ = built(tmp_path, [{"video": path.name}])
    assert (rows[path.name].outcome, rows[path.name].reason) == ("failed", "format_change"), rows[path.name].detail


def test_of_two_videos_in_a_broadcast_the_one_that_was_measured_is_cut(tmp_path: Path) -> None:
    """MediaInfo lists them by their ids, ffmpeg as the stream names them."""
    small = patch(tmp_path / "small.ts", "lime", "640x360")
    large = patch(tmp_path / "large.ts", "red", "1280x720")
    ids = ["-streamid", "0:400", "-streamid", "1:300"]
    both = ["-i", str(small), "-i", str(large), "-map", "0", "-map", "1", "-c", "copy", *ids]
    run_ffmpeg(*both, str(tmp_path / "both.ts"))
    rows, samples = built(tmp_path, [{"video": "both.ts", "start": 0.25, "end": 0.75}])
    assert (rows["both.ts"].source_width, rows["both.ts"].frames) == (1280, 8)
    with av.open(io.BytesIO(samples["both.ts"].media)) as container:
        red, green, _ = next(container.decode(video=0)).to_ndarray(format="rgb24")[240, 416]
    assert red > 230 and green < 25


def test_joined_recordings_whose_time_goes_back_are_damaged(tmp_path: Path) -> None:
    parts = [patch(tmp_path / f"{color}.mpg", color, "854x480", "-c:v", "mpeg2video") for color in ("red", "lime")]
    (tmp_path / "joined.mpg").write_bytes(b"".join(part.read_bytes() for part in parts))
    rows, _ = built(tmp_path, [{"video": "joined.mpg"}])
    assert (rows["joined.mpg"].outcome, rows["joined.mpg"].reason) == ("failed", "damaged")
    assert "time stamps go back" in rows["joined.mpg"].detail


def test_a_span_beyond_the_end_of_a_broadcast_is_short(tmp_path: Path) -> None:
    patch(tmp_path / "a.ts", "red", "854x480", seconds=2.0)
    rows, _ = built(tmp_path, [{"video": "a.ts", "start": 1.5, "end": 9}])
    assert (rows["a.ts"].outcome, rows["a.ts"].reason) == ("failed", "short_decode")


def test_a_movie_that_ffmpeg_cannot_open_is_unreadable(tmp_path: Path) -> None:
    """Its time code track refers to itself."""
    plain, path = make_video(tmp_path / "plain.mp4", 0.5), tmp_path / "circle.mov"
    run_ffmpeg("-i", str(plain), "-c", "copy", "-timecode", "01:00:00:00", str(path))
    data = bytearray(path.read_bytes())
    movie = data.index(b"moov") - 4
    track = data.rindex(b"trak") - 4
    header = data.index(b"tkhd", track) - 4
    at = header + int.from_bytes(data[header : header + 4], "big")
    reference = (20).to_bytes(4, "big") + b"tref" + (12).to_bytes(4, "big") + b"tmcd" + (2).to_bytes(4, "big")
    data[at:at] = reference
    for box in (movie, track):
        size = int.from_bytes(data[box : box + 4], "big") + len(reference)
        data[box : box + 4] = size.to_bytes(4, "big")
    path.write_bytes(data)
    rows, _ = built(tmp_path, [{"video": "circle.mov"}])
    assert (rows["circle.mov"].outcome, rows["circle.mov"].reason) == ("rejected", "unreadable")
