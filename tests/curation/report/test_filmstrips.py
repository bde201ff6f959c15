"""Filmstrips show the clip from its first frame to its last, are small, and say why where there is none."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nextscene.common import filesystem
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.plan import PlannedClip
from nextscene.curation.report.filmstrips import FRAMES, Filmstrip, ShardFilmstripTask, SourceFilmstripTask
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.sample import Sample
from tests.shards.samples import NAME, sample, sample_of, seal_samples
from tests.support import make_video, run_ffmpeg

GRAYS = [16 + round(i * 219 / 80) for i in range(81)]
"""The luma of each frame of a video that goes from black to white."""


@pytest.fixture(scope="module")
def fade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """81 frames from black to white, a key frame every 16, as the cut makes them."""
    path = tmp_path_factory.mktemp("fade") / "fade.mp4"
    picture = "color=size=832x480:rate=16:color=black,format=yuv420p,geq=lum='16+N*219/80':cb=128:cr=128"
    run_ffmpeg("-f", "lavfi", "-i", picture, "-frames:v", "81", "-qp", "4", "-g", "16", "-bf", "0", str(path))
    return path


def sealed(folder: Path, mp4: bytes) -> ShardFilmstripTask:
    """The one clip of a shard."""
    plain = sample(1)
    out, _ = seal_samples(folder, [sample_of(plain.record, mp4, "before")])
    return ShardFilmstripTask(out, NAME, plain.key, hashlib.sha256(mp4).hexdigest())


def images(strip: Filmstrip) -> list[Image.Image]:
    assert strip.frames, strip.missing
    return [Image.open(io.BytesIO(frame)) for frame in strip.frames]


def brightness(strip: Filmstrip) -> Sequence[float]:
    return [float(np.asarray(image.convert("L")).mean()) for image in images(strip)]


def luma(shown: float) -> float:
    """What a video's luma is shown as, in full range."""
    return (shown - 16) * 255 / 219


def test_a_kept_clip_is_shown_at_even_distances_from_its_first_frame_on(fade: Path, tmp_path: Path) -> None:
    shown = brightness(sealed(tmp_path, fade.read_bytes()).make())
    assert len(shown) == FRAMES
    assert shown == pytest.approx([luma(GRAYS[place]) for place in (0, 32, 48, 80)], abs=4)


def test_a_short_clip_without_enough_key_frames_is_shown_to_its_last_frame(fade: Path, tmp_path: Path) -> None:
    run_ffmpeg("-i", str(fade), "-frames:v", "10", "-qp", "4", "-g", "16", "-bf", "0", str(tmp_path / "short.mp4"))
    shown = brightness(sealed(tmp_path / "out", (tmp_path / "short.mp4").read_bytes()).make())
    assert shown == pytest.approx([luma(GRAYS[place]) for place in (0, 3, 6, 9)], abs=4)


def test_an_image_is_shown_once(tmp_path: Path) -> None:
    video = make_video(tmp_path / "one.mp4", 1, "512x512", "16", "-frames:v", "1")
    (image,) = images(sealed(tmp_path / "out", video.read_bytes()).make())
    assert image.size == (135, 135)


@pytest.mark.parametrize(("size", "box"), [("832x480", (234, 135)), ("480x832", (78, 135)), ("160x96", (160, 96))])
def test_frames_keep_their_shape_inside_a_small_box(size: str, box: tuple[int, int], tmp_path: Path) -> None:
    video = make_video(tmp_path / "video.mp4", 1, size)
    assert {image.size for image in images(sealed(tmp_path / "out", video.read_bytes()).make())} == {box}


def test_even_noise_stays_below_the_bound(tmp_path: Path) -> None:
    noise = "nullsrc=size=832x480:rate=16:duration=1,geq=random(1)*255:128:128"
    run_ffmpeg("-f", "lavfi", "-i", noise, "-preset", "ultrafast", "-qp", "10", str(tmp_path / "noise.mp4"))
    strip = sealed(tmp_path / "out", (tmp_path / "noise.mp4").read_bytes()).make()
    assert len(strip.frames) == FRAMES
    assert max(map(len, strip.frames)) <= 8 << 10


def test_the_same_clip_gives_the_same_bytes(fade: Path, tmp_path: Path) -> None:
    one, other = (sealed(tmp_path / name, fade.read_bytes()) for name in "ab")
    assert one.make() == other.make()


def test_a_clip_that_cannot_be_read_or_decoded_says_so(fade: Path, tmp_path: Path) -> None:
    whole = fade.read_bytes()
    task = sealed(tmp_path / "out", whole)
    assert "not the one that the ledger names" in replace(task, mp4_sha256="0" * 64).make().missing
    assert "cannot be read from its shard" in replace(task, clip_id="f" * 24).make().missing
    assert "cannot be read from its shard" in replace(task, shard=ShardName("train", 8)).make().missing
    assert "cannot be decoded" in sealed(tmp_path / "text", b"no video at all").make().missing
    assert "cannot be decoded" in sealed(tmp_path / "cut", whole[:2000]).make().missing
    tar = tmp_path / "out" / NAME.tar
    damaged = bytearray(tar.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    tar.write_bytes(damaged)
    assert "cannot be read from its shard" in task.make().missing


def planned(name: str, **values: int) -> PlannedClip:
    plain: dict[str, int] = {"start_ms": 0, "end_ms": -1, "offset": 0, "length": -1, "size": -1, "mtime_ns": 0}
    text = {"clip_id": "0" * 24, "split": "train", "preceding_caption": "", "caption": "", "provenance": ""}
    place = {"position": 0, "unit": 0, "shard": 0}
    return PlannedClip(name=name, identity=name, location=name, **place, **text, **(plain | values))


def test_a_clip_that_is_in_no_shard_is_shown_from_its_span_of_the_source(fade: Path) -> None:
    clip = planned(fade.name, start_ms=1000, end_ms=3500)
    shown = brightness(SourceFilmstripTask(Storage.at(fade.parent), clip, BuildConfig()).make())
    assert shown == pytest.approx([luma(GRAYS[16 + place]) for place in (0, 13, 26, 39)], abs=6)


@pytest.mark.parametrize(
    ("clip", "why"),
    [
        (planned("gone.mp4"), "gone.mp4 is gone"),
        (planned("note.mp4"), "Invalid data"),
        (planned("sound.mp4"), "streams in the file: audio"),
        (planned("video.mp4", start_ms=90_000, end_ms=91_000), "no frame could be decoded at this place"),
        (planned("video.mp4", size=5), "written anew after the plan"),
        (planned("nosuchscheme://place/video.mp4"), "its source shows none"),
    ],
)
def test_a_source_that_shows_nothing_says_why(clip: PlannedClip, why: str, tmp_path: Path) -> None:
    make_video(tmp_path / "video.mp4", 0.5)
    run_ffmpeg("-f", "lavfi", "-i", "sine=duration=0.5", str(tmp_path / "sound.mp4"))
    (tmp_path / "note.mp4").write_text("these are words")
    strip = SourceFilmstripTask(Storage.at(tmp_path), clip, BuildConfig()).make()
    assert strip.frames == ()
    assert why in strip.missing


def test_a_sample_is_not_taken_for_another(fade: Path, tmp_path: Path) -> None:
    bright = make_video(tmp_path / "bright.mp4", 1).read_bytes()
    contents = [sample_of(sample(n).record, mp4, "before") for n, mp4 in enumerate((fade.read_bytes(), bright))]
    out, _ = seal_samples(tmp_path / "out", contents)

    def strip(of: Sample) -> Filmstrip:
        return ShardFilmstripTask(out, NAME, of.key, of.record.mp4_sha256).make()

    assert strip(contents[0]) != strip(contents[1])
    assert brightness(strip(contents[0]))[0] == pytest.approx(0, abs=4)


def test_a_large_file_in_an_object_store_is_not_fetched_for_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "SCHEMES", ("mock",))
    far = Storage.at("mock://bucket/")
    whole = planned("far.mp4", size=100 << 20)
    assert (
        SourceFilmstripTask(far, whole, BuildConfig())
        .make()
        .missing.startswith("its source is 100 MB in an object store")
    )
    member = replace(whole, offset=512, length=1 << 20)
    assert "object store" not in SourceFilmstripTask(far, member, BuildConfig()).make().missing
