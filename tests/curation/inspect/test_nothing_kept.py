"""A finished dataset that keeps no clip ends with 1, and says why and what to give instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.curation.config import BuildConfig, Rules
from nextscene.curation.inspect.nothing_kept import why_nothing_is_kept
from tests.fakes.without_ray import build, without_ray
from tests.support import SMALL, build_inline, captioned_spans, make_video, problems, write_csv

FILM = BuildConfig(judge="film")


@pytest.mark.parametrize(
    ("outcome", "reason", "config", "remedy"),
    [
        ("rejected", "first_shot", FILM, "give `judge` none or `judge` claude; then build into another `out`"),
        ("rejected", "too_small", SMALL, "lower `rules.min_width` 832 `rules.min_height` 480"),
        ("rejected", "too_low", replace(SMALL, rules=Rules(min_height=999)), "`rules.min_height` 999"),
        ("rejected", "hdr", replace(SMALL, rules=Rules(hdr="reject")), "give `rules.hdr` convert"),
        ("rejected", "no_caption", SMALL, "`judge` claude `caption_missing`"),
        ("rejected", "no_scene", BuildConfig(judge="given"), "give the source a column `scene`, or another `judge`"),
        ("rejected", "span_outside", SMALL, "correct `start` and `end`"),
        ("dropped", "no_pass", FILM, "raise `film.max_overlap` 0.5, or give `judge` none"),
        ("failed", "damaged", SMALL, "raise `rules.max_damaged_frames` 0"),
    ],
)
def test_the_remedy_names_the_setting_that_decided(outcome: str, reason: str, config: BuildConfig, remedy: str) -> None:
    told = why_nothing_is_kept([(outcome, reason, 1200)], config)
    assert told.startswith(f"1,200 {outcome} {reason}; ") and remedy in told and "\n" not in told


@pytest.mark.parametrize("reason", ["no_pass", "unreadable", "source_missing"])
def test_no_setting_is_named_where_none_decided(reason: str) -> None:
    assert why_nothing_is_kept([("dropped", reason, 2)], BuildConfig(judge="claude")) == f"2 dropped {reason}"


def test_the_commonest_ends_come_first_and_a_remedy_comes_once() -> None:
    ends = [("rejected", "hdr", 1), ("rejected", "too_low", 2), ("rejected", "too_small", 4), ("failed", "damaged", 3)]
    told = why_nothing_is_kept(ends, SMALL)
    assert told.startswith("4 rejected too_small, 3 failed damaged, 2 rejected too_low; lower `rules.min_width` 832")
    assert told.count("lower") == 1 and "hdr" not in told


@pytest.fixture
def single_shots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """How a dataset of two videos of one shot each is built with the default judge."""
    without_ray(monkeypatch)
    for name in ("a", "b"):
        make_video(tmp_path / "in" / f"{name}.mp4", 0.25)
        (tmp_path / "in" / f"{name}.txt").write_text(f"words of {name}")
    return "--source", tmp_path / "in", "--out", tmp_path / "out", "--test", 0, "--unit-size", 1


def test_a_build_that_keeps_nothing_ends_with_1_each_time(single_shots: tuple[object, ...], tmp_path: Path) -> None:
    said = build(*single_shots, code=1)
    (line,) = [line for line in said.splitlines() if line.startswith("kept ")]
    assert line.startswith("kept      nothing: 2 rejected first_shot; no shot with a caption is just before them")
    assert "--judge none or --judge claude" in line and f"show.py {tmp_path}/out shows more" in line
    again = build("--out", tmp_path / "out", code=1)
    assert again.startswith("Nothing to do") and line in again
    assert line in build("--out", tmp_path / "out", "--status")
    assert "The dataset is whole" in build("--out", tmp_path / "out", "--verify")


def test_a_source_with_scenes_is_to_be_built_with_the_judge_that_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    make_video(tmp_path / "a.mp4", 0.25)
    source = write_csv(tmp_path / "clips.csv", [{"video": "a.mp4", "caption": "words", "scene": "before"}])
    said = build("--source", source, "--out", tmp_path / "out", code=1)
    assert "give --judge given, which takes the source's scenes, --judge none or --judge claude" in said
    build(
        "--source",
        source,
        "--out",
        tmp_path / "given",
        "--judge",
        "given",
        "--rules.min-width",
        2,
        "--rules.min-height",
        2,
    )


def test_a_test_split_without_a_clip_is_named_unless_none_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    source = captioned_spans(tmp_path / "in", 2)
    said = build("--source", source, "--out", tmp_path / "out", "--judge", "none", "--test", "0.0001")
    assert "split     test has no clip, by --test 0.0001 --split-by source; for some, build into another --out" in said
    assert "split  " not in build("--source", source, "--out", tmp_path / "no", "--judge", "none", "--test", 0)
    both = ("--test", "0.5", "--split-by", "clip")
    many = captioned_spans(tmp_path / "many", 12)
    assert "split  " not in build("--source", many, "--out", tmp_path / "both", "--judge", "none", *both)


def test_a_build_that_is_not_finished_may_keep_nothing_so_far(single_shots: tuple[object, ...], tmp_path: Path) -> None:
    said = build(*single_shots, "--stop-after", 1)
    assert "kept  " not in said + build("--out", tmp_path / "out", "--status")


def test_one_clip_that_is_kept_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    make_video(tmp_path / "small.mp4", 0.25, "64x48")
    make_video(tmp_path / "a.mp4", 0.25, "832x480")
    rows = [{"video": f"{name}.mp4", "caption": f"words {name}"} for name in ("a", "small")]
    flags = ("--judge", "none", "--test", 0)
    said = build("--source", write_csv(tmp_path / "clips.csv", rows), "--out", tmp_path / "out", *flags)
    assert "nothing" not in said


def test_a_summary_tells_it_by_itself(tmp_path: Path) -> None:
    summary = build_inline(captioned_spans(tmp_path / "in", 2, size="64x48"), tmp_path / "out", SMALL)
    assert summary.keeps_nothing and summary.needs_attention() and problems(tmp_path / "out") == []
