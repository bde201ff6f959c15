"""Real footage, awkward on purpose: the outcome of each file, and the frames of what is kept, one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig, EncodeConfig
from nextscene.curation.ledger import Row
from nextscene.shards.format.layout import ShardName
from nextscene.shards.loading.reader import ShardReader
from tests.curation.frames import clip_frames, shown_frames, source_frames
from tests.support import CLIPS, assert_conserved, build_inline, ledger, needs_clips, run_ffmpeg, write_csv

pytestmark = [pytest.mark.slow, needs_clips]

CONFIG = BuildConfig(judge="none", test=0.0, unit_size=8, units_per_shard=8)
LOSSLESS = replace(CONFIG, resolution="native", encode=EncodeConfig(crf=0))

EXPECTED = {
    "market_720p_24.mp4": ("kept", "", ""),
    "leaf_720p_2997.mp4": ("kept", "", ""),
    "walk_1768x994_vp9.mp4": ("kept", "", ""),
    "counter_1080p_10fps.mp4": ("kept", "", ""),
    "bt709_full_range.mp4": ("kept", "", ""),
    "market_vfr.mp4": ("kept", "", ""),
    "portrait_coded_shown_landscape.mp4": ("kept", "", ""),
    "market_rotated_90.mp4": ("rejected", "too_narrow", "shown 720×1280, below 832×480"),
    "anamorphic_720x480_sar.mp4": ("kept", "", ""),
    "interlaced_mpeg2_audio.mpg": ("kept", "", ""),
    "narrow_720x480_8fps.mp4": ("rejected", "too_narrow", "shown 720×480, below 832×480"),
    "bikes_640x272.mp4": ("rejected", "too_small", "shown 640×272, below 832×480"),
    "av1_360p.mkv": ("rejected", "too_small", "shown 640×360, below 832×480"),
    "hevc_10bit_200px.mp4": ("rejected", "too_small", "shown 200×200, below 832×480"),
    "delayed_start.mp4": ("rejected", "too_small", "shown 480×320, below 832×480"),
    "truncated.mp4": ("rejected", "unreadable", "Invalid data found when processing input"),
    "audio_only.mp4": ("rejected", "no_video", "streams in the file: audio"),
    "not_a_video.mp4": ("rejected", "unreadable", "Invalid data found when processing input"),
    "empty.mp4": ("rejected", "unreadable", "the file is empty"),
    "still_1280x720.png": ("kept", "", ""),
    "still_640x272.jpg": ("rejected", "too_small", "shown 640×272, shorter side below 512"),
}
KEPT_VIDEOS = [name for name, end in EXPECTED.items() if end[0] == "kept" and not name.endswith(".png")]

# Spans that begin between two frames, or end a hair before one that must not be seen.
SPANS = [
    ("counter_1080p_10fps.mp4", 0.55, 2.25),
    ("market_720p_24.mp4", 1.01, None),
    ("market_720p_24.mp4", 2.01, 3.916),
    ("market_vfr.mp4", 2.3, 4.8),
    ("leaf_720p_2997.mp4", 7.77, 12.0),
    ("walk_1768x994_vp9.mp4", 3.333, None),
]

# The anamorphic one is scaled, the full-range one converted and the interlaced one deinterlaced at any size, so their
# frames cannot be bit-equal.
EXACT = [
    *((name, 0.0, None) for name in KEPT_VIDEOS if not name.startswith(("anamorphic", "bt709", "interlaced"))),
    *SPANS,
]


def manifest(folder: Path) -> Path:
    """Every file whole, and some spans."""
    rows = [{"video": str(CLIPS / name), "caption": f"what {name} shows"} for name in EXPECTED]
    spans = [
        {"video": str(CLIPS / name), "start": start, "end": end or "", "caption": "a part of it"}
        for name, start, end in SPANS
    ]
    return write_csv(folder / "all.csv", rows + spans)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole manifest through the pipeline, as configured by default."""
    out = tmp_path_factory.mktemp("clips") / "out"
    build_inline(manifest(out.parent), out, CONFIG)
    return out


def row_of(out: Path, config: BuildConfig, name: str, start: float = 0.0) -> Row:
    (row,) = (r for r in ledger(out, config) if r.source.endswith(f"/{name}") and r.start_ms == round(start * 1000))
    return row


def media_of(out: Path, row: Row) -> bytes:
    return ShardReader(Storage.at(out), ShardName("train", 0)).sample(row.clip_id).media


def test_the_list_names_every_file() -> None:
    assert set(EXPECTED) == {path.name for path in CLIPS.iterdir()} - {"README.md"}


def test_the_account_balances(out: Path) -> None:
    assert_conserved(out, CONFIG)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_file_ends_as_its_description_says(out: Path, name: str) -> None:
    row = row_of(out, CONFIG, name)
    assert (row.outcome, row.reason, row.detail) == EXPECTED[name]


@pytest.fixture(scope="module")
def lossless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same clips at their own size, encoded without loss: every frame must be one of the source's, bit for bit."""
    out = tmp_path_factory.mktemp("lossless") / "out"
    build_inline(manifest(out.parent), out, LOSSLESS)
    return out


@pytest.mark.parametrize(("name", "start", "end"), [(name, *span) for name, *span in EXACT])
def test_a_clip_holds_exactly_the_source_frames_it_should(
    lossless: Path, name: str, start: float, end: float | None
) -> None:
    frames = source_frames(CLIPS / name, start + 5.5)
    wanted = shown_frames(frames, start, end, fps=16, most=81)
    row = row_of(lossless, LOSSLESS, name, start)
    made = clip_frames(media_of(lossless, row))
    assert row.frames == len(made)
    assert [frame.time for frame in made] == [slot / 16 for slot in range(len(wanted))]
    for slot, frame in enumerate(made):
        assert np.array_equal(frame.luma, frames[wanted[slot]].luma), f"slot {slot} is not frame {wanted[slot]}"


@pytest.mark.parametrize(("name", "start", "end"), [*((name, 0.0, None) for name in KEPT_VIDEOS), *SPANS])
def test_at_training_size_the_same_frames_are_upright_square_and_true_in_tone(
    out: Path, name: str, start: float, end: float | None
) -> None:
    frames = source_frames(CLIPS / name, start + 5.5)
    wanted = shown_frames(frames, start, end, fps=16, most=81)
    made = clip_frames(media_of(out, row_of(out, CONFIG, name, start)))
    assert len(made) == len(wanted)
    for slot in range(0, len(made), 8):
        off = made[slot].picture() - frames[wanted[slot]].picture((832, 480))
        assert abs(off.mean()) < 0.5, f"slot {slot} is {off.mean():.1f} gray levels too bright"
        assert np.abs(off).mean() < 3, f"slot {slot} is {np.abs(off).mean():.1f} gray levels off"


def test_a_still_image_becomes_one_square_frame(out: Path) -> None:
    row = row_of(out, CONFIG, "still_1280x720.png")
    (frame,) = clip_frames(media_of(out, row))
    (image,) = source_frames(CLIPS / "still_1280x720.png", 1.0)
    assert (row.frames, row.width, row.height) == (1, 512, 512)
    assert np.abs(frame.picture() - image.picture((512, 512))).mean() < 3


def test_native_resolution_keeps_the_displayed_size(tmp_path: Path) -> None:
    names = ["portrait_coded_shown_landscape.mp4", "anamorphic_720x480_sar.mp4"]
    rows = [{"video": str(CLIPS / name), "caption": "it"} for name in names]
    config = replace(CONFIG, resolution="native")
    build_inline(write_csv(tmp_path / "two.csv", rows), tmp_path / "out", config)
    assert [(row.width, row.height) for row in ledger(tmp_path / "out", config)] == [(1280, 720), (854, 480)]
    assert_conserved(tmp_path / "out", config)


def test_a_file_cut_short_behind_a_whole_header_is_found_out(tmp_path: Path) -> None:
    """Its header, in front, still promises all frames; only decoding shows that most are gone."""
    whole = tmp_path / "whole.mp4"
    run_ffmpeg("-i", str(CLIPS / "market_720p_24.mp4"), "-c", "copy", "-an", "-movflags", "+faststart", str(whole))
    (tmp_path / "short.mp4").write_bytes(whole.read_bytes()[:300_000])
    source = write_csv(tmp_path / "short.csv", [{"video": "short.mp4", "caption": "a street"}])
    build_inline(source, tmp_path / "out", CONFIG)
    (row,) = ledger(tmp_path / "out", CONFIG)
    assert (row.outcome, row.reason) == ("failed", "damaged")
    assert "1 damaged, the first at " in row.detail
    assert_conserved(tmp_path / "out", CONFIG)
