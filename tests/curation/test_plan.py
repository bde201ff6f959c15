"""The plan: every clip once, in runs, the same for the same input and configuration."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.plan import Plan, PlannedClip
from nextscene.curation.sources import OPEN_END, Clip
from nextscene.shards.format.layout import PLAN
from tests.curation.planning import plan_of, planned
from tests.support import SMALL, write_csv

pytestmark = pytest.mark.slow


def film(name: str, shots: int, caption: str = "shot") -> list[Clip]:
    return [
        Clip(
            name=name,
            identity=name,
            location=name,
            start_ms=1000 * i,
            end_ms=1000 * (i + 1),
            caption=f"{caption} {i}",
            size=1,
        )
        for i in range(shots)
    ]


def films(counts: Sequence[int]) -> list[Clip]:
    return [clip for number, shots in enumerate(counts) for clip in film(f"{number}.mp4", shots)]


def rows_of(plan: Plan) -> list[PlannedClip]:
    return sorted((PlannedClip(**row) for row in plan.rows()), key=lambda row: row.position)


configs = st.builds(
    BuildConfig,
    judge=st.sampled_from(["film", "none"]),
    test=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    split_by=st.sampled_from(["source", "clip"]),
    unit_size=st.integers(1, 5),
    units_per_shard=st.integers(1, 4),
)
sources = st.lists(st.integers(1, 9), min_size=1, max_size=8).map(films)


@settings(max_examples=40, deadline=None)
@given(sources, configs)
def test_every_clip_is_planned_once_in_consecutive_units_and_shards(clips: list[Clip], config: BuildConfig) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(clips, folder, config)
        rows = rows_of(plan)
        assert [row.position for row in rows] == list(range(len(clips))) and plan.clips == len(clips)
        assert [row.clip_id for row in rows] == [clip.clip_id for clip in clips]
        by_split = {split: [row for row in rows if row.split == split] for split in ("train", "test")}
        assert sum(map(len, by_split.values())) == len(clips)
        for of_split in by_split.values():
            for place, row in enumerate(of_split):
                assert row.unit == place // config.unit_size
                assert row.shard == place // (config.unit_size * config.units_per_shard)


@settings(max_examples=30, deadline=None)
@given(sources, configs)
def test_reading_a_plan_by_shard_and_unit_gives_what_was_written(clips: list[Clip], config: BuildConfig) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(clips, folder, config)
        rows = rows_of(plan)
        found: list[PlannedClip] = []
        for shard, count in plan.shards():
            units = plan.units(shard)
            assert [unit.name for unit in units] == plan.unit_names(shard, count)
            assert sum(len(unit.clips) for unit in units) == count
            for unit in units:
                assert {(clip.split, clip.unit, clip.shard) for clip in unit.clips} == {
                    (unit.name.split, unit.name.index, shard.index)
                }
                assert unit.shard == shard and all(unit.redoes(clip) for clip in unit.clips)
                found += unit.clips
        assert sorted(found, key=lambda row: row.position) == rows
        per_split = [(row.split, row.position) for row in found]
        for _, places in groupby(sorted(per_split, key=lambda pair: pair[0]), key=lambda pair: pair[0]):
            run = [position for _, position in places]
            assert run == sorted(run)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.builds(
            Clip,
            name=texts,
            identity=texts,
            location=texts,
            start_ms=st.integers(0, 10**10),
            end_ms=st.one_of(st.just(OPEN_END), st.integers(1, 10**10)),
            caption=texts.map(lambda text: f"a {text}"),
            provenance=texts,
            offset=st.integers(0, 2**60),
            length=st.integers(-1, 2**60),
            size=st.integers(0, 2**60),
            mtime_ns=st.integers(0, 2**62),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda clip: clip.clip_id,
    )
)
def test_all_that_a_source_says_of_a_clip_comes_back(clips: list[Clip]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(plan_of(clips, folder, SMALL))
    for clip, row in zip(clips, rows, strict=True):
        assert {name: getattr(row, name) for name in asdict(clip)} == asdict(clip)


# ---- splits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", [0.05, 0.3])
def test_the_share_of_the_test_split_is_about_what_was_asked(tmp_path: Path, test: float) -> None:
    clips = [clip for number in range(2000) for clip in film(f"{number}.mp4", 2)]
    sizes: tuple[tuple[Literal["source", "clip"], int], ...] = (("source", 2000), ("clip", 4000))
    for split_by, draws in sizes:
        config = replace(SMALL, test=test, split_by=split_by, unit_size=100)
        rows = rows_of(plan_of(clips, tmp_path / split_by, config))
        share = sum(row.split == "test" for row in rows) / len(rows)
        # Five standard deviations of so many independent draws; the names, and with them the draws, never change.
        assert abs(share - test) < 5 * (test * (1 - test) / draws) ** 0.5
        torn = {row.name for row in rows if row.split == "test"} & {row.name for row in rows if row.split == "train"}
        assert bool(torn) is (split_by == "clip")


@settings(max_examples=20, deadline=None)
@given(sources, st.data())
def test_a_video_s_split_does_not_depend_on_the_others(clips: list[Clip], data: st.DataObject) -> None:
    config = replace(SMALL, test=0.5)
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(plan_of(clips, f"{folder}/all", config))
        name = data.draw(st.sampled_from([clip.name for clip in clips]))
        alone = rows_of(plan_of([clip for clip in clips if clip.name == name], f"{folder}/alone", config))
    assert {row.split for row in alone} == {row.split for row in rows if row.name == name}


def test_a_larger_share_only_adds_to_the_test_split(tmp_path: Path) -> None:
    clips = films([1] * 200)
    before: set[str] = set()
    for test in (0.0, 0.1, 0.5, 1.0):
        rows = rows_of(plan_of(clips, tmp_path / str(test), replace(SMALL, test=test)))
        chosen = {row.name for row in rows if row.split == "test"}
        assert before <= chosen
        before = chosen
    assert len(before) == 200


# ---- the same for the same ------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(sources, configs)
def test_the_same_clips_and_configuration_give_the_same_bytes(clips: list[Clip], config: BuildConfig) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plan_of(clips, f"{folder}/one", config)
        plan_of(list(clips), f"{folder}/two", config)
        assert Storage.at(f"{folder}/one").read(PLAN) == Storage.at(f"{folder}/two").read(PLAN)


def test_settings_that_do_not_group_or_split_do_not_change_the_plan(tmp_path: Path) -> None:
    clips = films([3, 4])
    plan_of(clips, tmp_path / "one", SMALL)
    other = replace(SMALL, resolution="native", limits=replace(SMALL.limits, clip_seconds=1.0))
    plan_of(clips, tmp_path / "two", other)
    assert Storage.at(tmp_path / "one").read(PLAN) == Storage.at(tmp_path / "two").read(PLAN)


def test_a_long_plan_is_written_a_shard_at_a_time(tmp_path: Path) -> None:
    plan = plan_of(films([20] * 20), tmp_path, replace(SMALL, test=0.3))
    shards = list(plan.shards())
    assert sum(count for _, count in shards) == 400
    for split in ("train", "test"):
        of_split = [(name.index, count) for name, count in shards if name.split == split]
        assert [index for index, _ in of_split] == list(range(len(of_split)))
        assert {count for _, count in of_split[:-1]} == {4}


# ---- preceding captions ---------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_under_film_each_shot_knows_the_caption_before_it_in_its_own_video(counts: list[int]) -> None:
    clips = films(counts)
    with tempfile.TemporaryDirectory() as folder:
        known = [row.preceding_caption for row in rows_of(plan_of(clips, f"{folder}/f", replace(SMALL, judge="film")))]
        unknown = [row.preceding_caption for row in rows_of(plan_of(clips, f"{folder}/n", SMALL))]
    assert known == [caption for shots in counts for caption in ["", *(f"shot {i}" for i in range(shots - 1))]]
    assert set(unknown) == {""}


def test_an_uncaptioned_shot_leaves_the_next_without_a_scene(tmp_path: Path) -> None:
    clips = film("a.mp4", 3)
    clips[1] = replace(clips[1], caption="")
    rows = rows_of(plan_of(clips, tmp_path, replace(SMALL, judge="film")))
    assert [row.preceding_caption for row in rows] == ["", "shot 0", ""]


def test_after_an_unusable_shot_the_next_one_has_no_preceding_caption(tmp_path: Path) -> None:
    clips = film("a.mp4", 4)
    clips[1] = replace(clips[1], location="", flaw="bad_span", flaw_detail="its end is too large")
    rows = rows_of(plan_of(clips, tmp_path, replace(SMALL, judge="film")))
    assert [row.preceding_caption for row in rows] == ["", "", "", "shot 2"]


def test_the_preceding_caption_reaches_across_units_shards_and_splits(tmp_path: Path) -> None:
    config = BuildConfig(judge="film", test=0.5, split_by="clip", unit_size=1, units_per_shard=1)
    rows = rows_of(plan_of(film("a.mp4", 12), tmp_path, config))
    assert {row.split for row in rows} == {"train", "test"}
    assert [row.preceding_caption for row in rows] == ["", *(f"shot {i}" for i in range(11))]


def refused(clips: Sequence[Clip], out: Path, config: BuildConfig = SMALL) -> str:
    with pytest.raises(UsageError) as error:
        plan_of(clips, out, config)
    assert list(out.rglob("*.unfinished")) == [] and not (out / PLAN).exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_under_film_rows_out_of_time_order_are_refused_by_name(tmp_path: Path) -> None:
    clips = film("a.mp4", 4)
    said = refused([clips[0], clips[2], clips[1], clips[3]], tmp_path, replace(SMALL, judge="film"))
    assert "a.mp4" in said and "1.0 s" in said and "sort" in said


def test_under_film_the_rows_of_a_video_stand_together(tmp_path: Path) -> None:
    clips = [*film("a.mp4", 2), *film("b.mp4", 1), *film("a.mp4", 4)[2:]]
    assert "not together" in refused(clips, tmp_path, replace(SMALL, judge="film"))


def test_without_film_rows_may_stand_in_any_order(tmp_path: Path) -> None:
    clips = [*film("b.mp4", 3)[::-1], *film("a.mp4", 2), *film("c.mp4", 1)]
    clips.append(replace(clips[0], start_ms=9000, end_ms=9500))
    assert [row.clip_id for row in rows_of(plan_of(clips, tmp_path, SMALL))] == [clip.clip_id for clip in clips]


def test_shots_that_begin_together_keep_the_order_of_the_rows(tmp_path: Path) -> None:
    clips = [replace(clip, start_ms=0) for clip in film("a.mp4", 3)]
    rows = rows_of(plan_of(clips, tmp_path, replace(SMALL, judge="film")))
    assert [row.preceding_caption for row in rows] == ["", "shot 0", "shot 1"]


# ---- what cannot be planned -----------------------------------------------------------------------------------


@pytest.mark.parametrize("test", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("judge", ["film", "none"])
def test_a_clip_that_is_there_twice_is_refused_with_both_places(tmp_path: Path, judge: str, test: float) -> None:
    clips = film("a.mp4", 30)
    clips[17] = clips[16] = replace(clips[16], caption="once more")
    said = refused(clips, tmp_path, replace(SMALL, judge=judge, test=test, split_by="clip"))  # type: ignore[arg-type]
    assert "number 17 (a.mp4)" in said and "number 18 (a.mp4)" in said


def test_two_videos_under_one_id_are_refused_with_the_id(tmp_path: Path) -> None:
    rows = [{"video": "a.mp4", "id": "x", "caption": "a"}, {"video": "b.mp4", "id": "x", "caption": "b"}]
    (tmp_path / "a.mp4").touch()
    manifest = write_csv(tmp_path / "clips.csv", rows)
    with pytest.raises(UsageError, match=r"number 2 \(x\) is the same as number 1 \(x\)"):
        planned(manifest, tmp_path / "out", SMALL)


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    assert "no videos or images" in refused([], tmp_path)


@pytest.mark.parametrize("judge", ["film", "none"])
def test_a_source_without_any_caption_is_refused_and_one_caption_is_enough(tmp_path: Path, judge: str) -> None:
    config = replace(SMALL, judge=judge)  # type: ignore[arg-type]
    bare = [replace(clip, caption="") for clip in film("a.mp4", 3)]
    said = refused(bare, tmp_path, config)
    assert "caption" in said and f"`judge` {judge}" in said
    assert plan_of([*bare[:2], film("a.mp4", 3)[2]], tmp_path, config).clips == 3


def test_a_source_that_fails_halfway_leaves_no_plan(tmp_path: Path) -> None:
    manifest = write_csv(tmp_path / "clips.csv", [{"video": f"{i}.mp4", "caption": "a"} for i in range(50)])
    manifest.write_text(manifest.read_text() + ",no video\n")
    with pytest.raises(UsageError, match="line 52"):
        planned(manifest, tmp_path / "out", SMALL)
    assert not (tmp_path / "out" / PLAN).exists()
