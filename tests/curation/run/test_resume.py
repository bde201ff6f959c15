"""What a run finds when it comes back: half a retry, a lost disk, a changed plan, a shard that another sealed."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nextscene.common import ffmpeg
from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.storage import Storage, StorageFault
from nextscene.curation.plan import Plan
from nextscene.curation.run.prepare import prepare
from nextscene.curation.run.unit_judge import UnitJudge
from nextscene.curation.sealing.committed import CommittedState
from nextscene.curation.sealing.remaining import retried_shards
from nextscene.curation.sealing.retry import start_or_resume_retry
from nextscene.curation.sealing.seal_shard import seal_shard
from nextscene.curation.sources import Source
from nextscene.curation.sources.manifest import clips_of_manifest
from nextscene.curation.stages.unit import UnitContext, cut_unit, screen_unit
from nextscene.shards.format.layout import ShardName
from tests.support import (
    SMALL,
    assert_conserved,
    assert_same_dataset,
    build_inline,
    captioned_spans,
    ledger,
    make_video,
    write_csv,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four clips in four files, two of which are not there yet."""
    for name in "abcd":
        make_video(tmp_path / "videos" / f"{name}.mp4", 0.25)
    for name in "bd":
        (tmp_path / "videos" / f"{name}.mp4").rename(tmp_path / f"{name}.later")
    return write_csv(
        tmp_path / "videos" / "clips.csv", [{"video": f"{n}.mp4", "caption": f"shows {n}"} for n in "abcd"]
    )


def put_in_place(source: Path, name: str) -> None:
    (source.parent.parent / f"{name}.later").rename(source.parent / f"{name}.mp4")


def half_a_retry(source: Path, out: Path) -> None:
    """What a retry leaves that was killed when the first of its two units had been committed."""
    place, given = Storage.at(out), Source.at(str(source))
    job = UnitContext(SMALL, given.root, place, ffmpeg.build(), "killed")
    plan, state = Plan(place, SMALL), CommittedState.read(place, SMALL.units_per_shard)
    retry = start_or_resume_retry(place, state, frozenset({"absent"}))
    assert retry is not None
    (work,) = retried_shards(plan, state, place, retry)
    unit = work.todo[0]
    screened = screen_unit(job, unit)
    decision = asyncio.run(UnitJudge(job.config, None, job.out, job.run_id).decide(unit, screened))
    cut_unit(job, unit, screened, decision.scenes)


def test_a_retry_killed_halfway_is_dropped_and_the_next_one_is_complete(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_inline(source, out, SMALL)
    half_a_retry(source, out)
    assert any(out.glob("ledger/units/*-r1.parquet"))
    build_inline(source, out, SMALL)
    assert not any(out.glob("ledger/units/*")) and not any(out.glob("parts/*.part"))
    assert_conserved(out)
    put_in_place(source, "b")
    put_in_place(source, "d")
    build_inline(source, out, SMALL, retry=frozenset({"absent"}))
    assert [row.outcome for row in ledger(out)] == ["kept"] * 4
    assert_conserved(out)


def test_a_shard_of_a_retry_without_its_receipt_is_cleared_away(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_inline(source, out, SMALL)
    tar = Storage.at(out).local_path(ShardName("train", 0).tar)
    assert tar is not None
    shutil.copy(tar, tar.with_name("nsp-000000-r1.tar"))
    build_inline(source, out, SMALL)
    assert_conserved(out)


def test_a_disk_that_is_not_mounted_is_no_clips_fault(source: Path, tmp_path: Path) -> None:
    """Its folder is there, and empty."""
    out, videos = tmp_path / "out", tmp_path / "elsewhere"
    videos.mkdir()
    manifest = write_csv(
        tmp_path / "clips.csv", [{"video": str(videos / f"{n}.mp4"), "caption": f"shows {n}"} for n in "ab"]
    )
    for name in "ab":
        make_video(videos / f"{name}.mp4", 0.25)
    build_inline(manifest, tmp_path / "undisturbed", SMALL)
    prepare(Storage.at(out), Source.at(str(manifest)), SMALL)
    videos.rename(tmp_path / "unmounted")
    videos.mkdir()
    with pytest.raises(StorageFault, match="elsewhere is gone or empty; is the right disk mounted"):
        build_inline(manifest, out, SMALL)
    videos.rmdir()
    (tmp_path / "unmounted").rename(videos)
    build_inline(manifest, out, SMALL)
    assert_same_dataset(tmp_path / "undisturbed", out)


def test_a_changed_plan_is_not_worked_from(tmp_path: Path) -> None:
    source, out = captioned_spans(tmp_path, 3), tmp_path / "out"
    build_inline(source, out, SMALL)
    table, notes = pq.read_table(out / "plan.parquet"), pq.read_metadata(out / "plan.parquet").metadata
    pq.write_table(table.slice(0, 2).replace_schema_metadata(notes), out / "plan.parquet")
    with pytest.raises(UsageError, match=r"plan\.parquet was changed"):
        build_inline(source, out, SMALL)


def test_a_worker_that_does_not_see_the_dataset_says_so_and_writes_nothing(tmp_path: Path) -> None:
    source, out = captioned_spans(tmp_path, 2), tmp_path / "out"
    build_inline(source, out, SMALL)
    given = Source.at(str(source))
    job = UnitContext(SMALL, given.root, Storage.at(tmp_path / "not-mounted"), ffmpeg.build(), "run")
    (unit, *_) = Plan(Storage.at(out), SMALL).units(ShardName("train", 0))
    with pytest.raises(RunStopped, match="does not see `out`"):
        screen_unit(job, unit)
    assert not (tmp_path / "not-mounted").exists()


def test_a_shard_that_an_outlived_worker_sealed_is_taken_as_sealed(tmp_path: Path) -> None:
    source, out = captioned_spans(tmp_path, 4), tmp_path / "out"
    build_inline(source, out, SMALL)
    place = Storage.at(out)
    name, clips = next(iter(Plan(place, SMALL).shards()))
    receipt = seal_shard(place, name, Plan(place, SMALL).unit_names(name, clips))
    assert receipt.count == 4


def test_a_name_that_no_file_can_have_is_a_file_that_is_not_there(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "a.mp4", 0.25)
    (tmp_path / "videos" / "loop.mp4").symlink_to("loop.mp4")
    rows = [{"video": name, "caption": "it"} for name in ("a.mp4", "x" * 300 + ".mp4", "loop.mp4")]
    out = tmp_path / "out"
    build_inline(write_csv(tmp_path / "videos" / "clips.csv", rows), out, SMALL)
    assert [(row.outcome, row.reason) for row in ledger(out)] == [
        ("kept", ""),
        ("absent", "no_file"),
        ("absent", "no_file"),
    ]
    assert_conserved(out)
    folder = tmp_path / "folder-out"
    (tmp_path / "videos" / "a.txt").write_text("it")
    build_inline(tmp_path / "videos", folder, replace(SMALL, judge="none"))
    assert [row.outcome for row in ledger(folder)] == ["kept", "absent"]


def test_a_strangers_file_among_the_scratch_folders_is_left_alone(tmp_path: Path, scratch: Path) -> None:
    stranger = scratch / "nextscene-notes.txt"
    stranger.write_text("mine")
    os.utime(stranger, (0, 0))
    build_inline(captioned_spans(tmp_path, 2), tmp_path / "out", SMALL)
    assert stranger.read_text() == "mine"


def test_a_key_in_a_videos_address_is_nowhere_in_the_records(tmp_path: Path) -> None:
    write_csv(tmp_path / "clips.csv", [{"video": "s3://bucket/a.mp4?endpoint_override=x&sig=SECRET", "caption": "it"}])
    (clip,) = clips_of_manifest(Storage.at(tmp_path), "clips.csv")
    assert (clip.name, clip.identity) == ("s3://bucket/a.mp4",) * 2
    assert "SECRET" in clip.location
