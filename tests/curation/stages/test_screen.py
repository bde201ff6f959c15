"""The screen: what is kept of what is shown, and what ends before any decode."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.common import ffmpeg
from nextscene.common.storage import Storage, StorageFault
from nextscene.curation.config import Rules
from nextscene.curation.media.probe import UNKNOWN_DURATION, Measured, measure
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.plan import Plan, PlannedClip
from nextscene.curation.rules.base import ClipFacts
from nextscene.curation.rules.headers import size_rule, span_rule
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sources import OPEN_END, Source
from nextscene.curation.sources.reader import SourceReader
from nextscene.curation.stages.screen import screen
from nextscene.curation.stages.unit import UnitContext, cut_unit, screen_unit
from nextscene.shards.format.layout import ShardName
from tests.curation.planning import planned
from tests.fakes.loopback import CLAUDE, judge_budget, spoil
from tests.support import SMALL, assert_same_dataset, build_inline, ledger, make_video, problems, run_ffmpeg, write_csv

CLIP = PlannedClip(0, "0" * 24, "train", 0, 0, "", "a", "a", "a", 0, OPEN_END, "", "", 0, -1, 1, 0)


def video(width: int, height: int, duration: float = 10.0) -> Measured:
    return Measured(False, width, height, duration, "AVC", end=duration)


def image(width: int, height: int) -> Measured:
    return Measured(True, width, height, 0.0, "PNG")


def facts(clip: PlannedClip, measured: Measured, rules: Rules | None = None) -> ClipFacts:
    return ClipFacts(clip, measured, replace(SMALL, rules=rules or Rules()))


def reason(outcome: ClipOutcome | Measured | None) -> str:
    return f"{outcome.outcome}: {outcome.reason}" if isinstance(outcome, ClipOutcome) else "fine"


# ---- rules -----------------------------------------------------------------------------------------------------


@given(st.integers(800, 860), st.integers(450, 510))
def test_a_video_below_the_smallest_size_is_rejected_and_the_side_named(width: int, height: int) -> None:
    wanted = {(True, True): "fine", (False, True): "rejected: too_narrow", (True, False): "rejected: too_low"}
    outcome = size_rule(facts(CLIP, video(width, height)))
    assert reason(outcome) == wanted.get((width >= 832, height >= 480), "rejected: too_small")
    if outcome:
        assert f"{width}×{height}" in outcome.detail and "832×480" in outcome.detail


@given(st.integers(500, 520), st.integers(500, 520))
def test_an_image_is_kept_by_its_shorter_side(width: int, height: int) -> None:
    outcome = size_rule(facts(CLIP, image(width, height)))
    assert reason(outcome) == ("fine" if width >= 512 and height >= 512 else "rejected: too_small")


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 2000), st.integers(1, 2000))
def test_the_sizes_are_those_of_the_configuration(width: int, height: int, least_width: int, least_height: int) -> None:
    rules = Rules(min_width=least_width, min_height=least_height)
    assert (size_rule(facts(CLIP, video(width, height), rules)) is None) is (
        width >= least_width and height >= least_height
    )


@given(st.integers(0, 12_000), st.one_of(st.just(OPEN_END), st.integers(1, 12_000)), st.integers(1, 10_000))
def test_a_span_begins_within_the_file_and_ends_at_most_0_1_s_after_it(start: int, end: int, duration: int) -> None:
    clip = replace(CLIP, start_ms=start, end_ms=end)
    inside = start < duration and (end == OPEN_END or end <= duration + 100)
    outcome = span_rule(facts(clip, video(900, 500, duration / 1000)))
    if (start, end) == (0, OPEN_END):
        inside = True
    assert reason(outcome) == ("fine" if inside else "rejected: span_outside")


@pytest.mark.parametrize(
    ("start", "end", "duration", "wanted"),
    [
        (0, OPEN_END, 0.0, "fine"),
        (9_999, OPEN_END, 10.0, "fine"),
        (10_000, OPEN_END, 10.0, "rejected: span_outside"),
        (0, 10_100, 10.0, "fine"),
        (0, 10_101, 10.0, "rejected: span_outside"),
        (10_000, 10_050, 10.0, "rejected: span_outside"),
        (50_000, 60_000, UNKNOWN_DURATION, "fine"),
    ],
)
def test_the_edges_of_a_span(start: int, end: int, duration: float, wanted: str) -> None:
    clip = replace(CLIP, start_ms=start, end_ms=end)
    assert reason(span_rule(facts(clip, video(900, 500, duration)))) == wanted


def test_the_detail_names_span_and_duration() -> None:
    clip = replace(CLIP, start_ms=1_500, end_ms=12_000)
    outcome = span_rule(facts(clip, video(900, 500, 10.0)))
    assert outcome is not None and "1.500–12.000 s" in outcome.detail and "10.000 s" in outcome.detail


def test_an_image_has_no_span() -> None:
    assert reason(span_rule(facts(replace(CLIP, start_ms=0, end_ms=1000), image(600, 600)))) == "rejected: span_outside"
    assert reason(span_rule(facts(replace(CLIP, start_ms=500), image(600, 600)))) == "rejected: span_outside"
    assert span_rule(facts(CLIP, image(600, 600))) is None


# ---- files -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quarter of a second each, in sizes and shapes that are shown otherwise than they are stored."""
    folder = tmp_path_factory.mktemp("footage")
    for name, size, extra in (
        ("plain", "832x480", ()),
        ("narrow", "830x480", ()),
        ("low", "832x478", ()),
        ("small", "640x360", ()),
        ("upright", "480x832", ()),
        ("wide pixels", "704x480", ("-vf", "setsar=32/27")),
        ("narrow pixels", "832x480", ("-vf", "setsar=1/2")),
    ):
        make_video(folder / f"{name}.mp4", 0.25, size, "16", *extra)
    for name in ("plain", "upright"):
        stored, turned = folder / f"{name}.mp4", folder / f"{name} turned.mp4"
        run_ffmpeg("-display_rotation:v:0", "90", "-i", str(stored), "-c", "copy", str(turned))
    run_ffmpeg(
        "-display_rotation:v:0", "180", "-i", str(folder / "plain.mp4"), "-c", "copy", str(folder / "flipped.mp4")
    )
    run_ffmpeg("-f", "lavfi", "-i", "sine=duration=0.2", str(folder / "sound.mp4"))
    for name, size in (("picture.png", "512x600"), ("stamp.jpg", "511x600")):
        run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=size={size}", "-frames:v", "1", str(folder / name))
    (folder / "text.mp4").write_text("no video at all\n" * 100)
    (folder / "empty.mp4").touch()
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text(f"caption of {path.stem}")
    return folder


def screened(source: Path, folder: Path, scratch: Path) -> dict[str, Measured | ClipOutcome]:
    reader = SourceReader(Source.at(str(source)).root, scratch)
    return {clip.name: screen(clip, reader, SMALL) for clip in planned(source, folder, SMALL)}


def test_files_are_judged_as_they_are_shown(footage: Path, tmp_path: Path) -> None:
    found = screened(footage, tmp_path / "out", tmp_path)
    assert {name: reason(outcome) for name, outcome in found.items()} == {
        "plain.mp4": "fine",
        "flipped.mp4": "fine",
        "plain turned.mp4": "rejected: too_narrow",
        "upright.mp4": "rejected: too_narrow",
        "upright turned.mp4": "fine",
        "wide pixels.mp4": "fine",
        "narrow pixels.mp4": "rejected: too_narrow",
        "narrow.mp4": "rejected: too_narrow",
        "low.mp4": "rejected: too_low",
        "small.mp4": "rejected: too_small",
        "sound.mp4": "rejected: no_video",
        "text.mp4": "rejected: unreadable",
        "empty.mp4": "rejected: unreadable",
        "picture.png": "fine",
        "stamp.jpg": "rejected: too_small",
    }
    sizes = {name: (of.width, of.height) for name, of in found.items() if isinstance(of, Measured)}
    assert sizes == {
        "plain.mp4": (832, 480),
        "flipped.mp4": (832, 480),
        "upright turned.mp4": (832, 480),
        "wide pixels.mp4": (834, 480),
        "picture.png": (512, 600),
    }
    for name, of in found.items():
        if isinstance(of, Measured) and not of.is_image:
            assert of.duration == pytest.approx(0.25, abs=0.01), name


@pytest.mark.parametrize("clock", [b"<\x00\x00\x00", b"<MPD", b"\xff\xfe<\x00", b"\xfe\xff\x00<", b"#EXT", b"\n\n\n<"])
def test_a_stream_whose_clock_begins_like_text_is_no_text(footage: Path, tmp_path: Path, clock: bytes) -> None:
    """The packets of an .m2ts have a clock of four bytes in front, which may be any."""
    run_ffmpeg("-i", str(footage / "plain.mp4"), "-c", "copy", str(tmp_path / "plain.ts"))
    stream = (tmp_path / "plain.ts").read_bytes()
    packets = [clock + stream[i : i + 188] for i in range(0, len(stream), 188)]
    (tmp_path / "a.m2ts").write_bytes(b"".join(packets))
    with (tmp_path / "a.m2ts").open("rb") as file:
        measured = measure(file)
    assert (measured.width, measured.height) == (832, 480)


def spans(footage: Path, manifest: Path, *some: tuple[str, Any, Any]) -> Path:
    rows = [{"video": str(footage / name), "start": start, "end": end, "caption": "a"} for name, start, end in some]
    return write_csv(manifest, rows)


def test_a_span_must_lie_inside_its_file(footage: Path, tmp_path: Path) -> None:
    manifest = spans(
        footage,
        tmp_path / "clips.csv",
        ("plain.mp4", "", ""),
        ("plain.mp4", 0.1, ""),
        ("plain.mp4", 0.1, 0.25),
        ("plain.mp4", 0.1, 0.34),
        ("plain.mp4", 0.1, 0.36),
        ("plain.mp4", 0.25, ""),
        ("plain.mp4", 3, 4),
        ("picture.png", 0, 1),
    )
    reader = SourceReader(Source.at(str(manifest)).root, tmp_path)
    found = [reason(screen(clip, reader, SMALL)) for clip in planned(manifest, tmp_path / "out", SMALL)]
    assert found == ["fine"] * 4 + ["rejected: span_outside"] * 4


# ---- sources that are not what was planned --------------------------------------------------------------------


@pytest.fixture
def one(tmp_path: Path) -> tuple[Path, PlannedClip, SourceReader]:
    """One planned video of its own: the file, its clip, and a reader."""
    path = make_video(tmp_path / "in" / "a.mp4", 0.25, "832x480")
    path.with_suffix(".txt").write_text("caption")
    (clip,) = planned(tmp_path / "in", tmp_path / "out", SMALL)
    return path, clip, SourceReader(Source.at(str(tmp_path / "in")).root, tmp_path)


def test_a_file_that_is_as_planned_is_measured(one: tuple[Path, PlannedClip, SourceReader]) -> None:
    assert reason(screen(one[1], one[2], SMALL)) == "fine"


def test_a_file_of_another_size_was_changed(one: tuple[Path, PlannedClip, SourceReader]) -> None:
    path, clip, reader = one
    before = path.stat()
    with path.open("ab") as file:
        file.write(b"x")
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    outcome = screen(clip, reader, SMALL)
    assert reason(outcome) == "failed: source_changed" and isinstance(outcome, ClipOutcome)
    assert "a.mp4" in outcome.detail and f"{before.st_size} bytes, now {before.st_size + 1}" in outcome.detail


def test_a_file_of_another_time_is_as_planned_if_its_ends_are(one: tuple[Path, PlannedClip, SourceReader]) -> None:
    path, clip, reader = one
    os.utime(path, ns=(1, clip.mtime_ns + 1))
    assert reason(screen(clip, reader, SMALL)) == "fine" and reader.was_retimed(clip)
    data = path.read_bytes()
    for at in (0, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        outcome = screen(clip, reader, SMALL)
        assert reason(outcome) == "failed: source_changed" and isinstance(outcome, ClipOutcome)
        assert "as many bytes, of other contents" in outcome.detail
    assert reason(screen(replace(clip, digest=""), reader, SMALL)) != "failed: source_changed", "as older plans have it"


def test_a_file_that_is_gone_was_changed(one: tuple[Path, PlannedClip, SourceReader]) -> None:
    path, clip, reader = one
    path.unlink()
    outcome = screen(clip, reader, SMALL)
    assert reason(outcome) == "failed: source_changed" and isinstance(outcome, ClipOutcome) and "gone" in outcome.detail


def test_a_folder_that_is_gone_is_a_fault_of_the_storage(one: tuple[Path, PlannedClip, SourceReader]) -> None:
    path, clip, reader = one
    path.parent.rename(path.parent.with_name("unmounted"))
    with pytest.raises(StorageFault, match="mounted"):
        screen(clip, reader, SMALL)


def test_a_file_that_was_never_there_is_missing_until_it_comes(tmp_path: Path) -> None:
    (tmp_path / "there.mp4").touch()
    rows = [{"video": name, "caption": "a"} for name in ("in/a.mp4", "b.mp4", "there.mp4")]
    manifest = write_csv(tmp_path / "clips.csv", rows)
    clip, other, _ = planned(manifest, tmp_path / "out", SMALL)
    reader = SourceReader(Source.at(str(manifest)).root, tmp_path)
    for absent in (clip, other):
        outcome = screen(absent, reader, SMALL)
        assert reason(outcome) == "absent: no_file" and isinstance(outcome, ClipOutcome)
        assert absent.location in outcome.detail
    make_video(tmp_path / "in" / "a.mp4", 0.25, "832x480")
    assert reason(screen(clip, reader, SMALL)) == "fine"


# ---- what was measured -----------------------------------------------------------------------------------------


def test_what_was_measured_of_a_clip_that_is_not_kept_stands_in_its_row(tmp_path: Path) -> None:
    """By whichever rule it ends; of what has no headers nothing is known."""
    make_video(tmp_path / "small.mp4", 0.5, "320x240")
    make_video(tmp_path / "short.mp4", 0.5, "832x480")
    make_video(tmp_path / "spoilt.mp4", 0.5, "832x480")
    spoil(tmp_path / "spoilt.mp4")
    (tmp_path / "none.mp4").write_bytes(b"no video")
    rows = [{"video": f"{name}.mp4", "caption": "a"} for name in ("small", "spoilt", "none")]
    source = write_csv(
        tmp_path / "clips.csv", [*rows, {"video": "short.mp4", "caption": "a", "start": "9", "end": "10"}]
    )
    build_inline(source, tmp_path / "out", SMALL)
    found = {
        row.source: (row.outcome, row.source_width, row.source_height, round(row.duration, 2), row.codec)
        for row in ledger(tmp_path / "out")
    }
    assert found == {
        "small.mp4": ("rejected", 320, 240, 0.5, "AVC"),
        "short.mp4": ("rejected", 832, 480, 0.5, "AVC"),
        "spoilt.mp4": ("failed", 832, 480, 0.5, "AVC"),
        "none.mp4": ("rejected", -1, -1, -1.0, ""),
    }
    assert problems(tmp_path / "out") == []
    build_inline(source, tmp_path / "again", SMALL)
    assert_same_dataset(tmp_path / "out", tmp_path / "again")


def test_a_header_that_no_ledger_can_hold_does_not_change_the_end_of_a_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "small.mp4", 0.25, "320x240")
    lie = Measured(False, 2**70, 240, math.inf, "AVC", end=math.inf)
    monkeypatch.setattr("nextscene.curation.stages.screen.HEADER_READER.measure", lambda *_: lie)
    build_inline(write_csv(tmp_path / "clips.csv", [{"video": "small.mp4", "caption": "a"}]), tmp_path / "out", SMALL)
    (row,) = ledger(tmp_path / "out")
    assert (row.outcome, row.reason, row.source_width, row.source_height) == ("rejected", "too_low", -1, 240)
    assert row.duration == -1.0


def test_what_was_measured_is_kept_where_no_picture_can_be_taken_for_a_caption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "a.mp4", 0.25, "832x480")
    source = write_csv(tmp_path / "clips.csv", [{"video": "a.mp4"}])
    monkeypatch.setattr(
        "nextscene.curation.stages.clip_steps.extract_keyframes",
        lambda *_: ClipOutcome("failed", "short_decode", "no frame"),
    )
    prepare(Storage.at(tmp_path / "out"), Source.at(str(source)), CLAUDE, judge_budget(uncaptioned="caption"))
    job = UnitContext(CLAUDE, Storage.at(tmp_path), Storage.at(tmp_path / "out"), ffmpeg.build(), "r", judge_budget())
    (unit,) = Plan(job.out, CLAUDE).units(ShardName("train", 0))
    cut_unit(job, unit, screen_unit(job, unit), [None])
    (row,) = ledger(tmp_path / "out", CLAUDE)
    assert (row.reason, row.source_width, row.source_height, row.codec) == ("short_decode", 832, 480, "AVC")
