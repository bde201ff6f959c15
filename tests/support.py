"""Helpers of several test files: generated videos, a run without Ray, and the invariants of every run."""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest

from nextscene.common import ffmpeg
from nextscene.common.errors import LeftUndecided, RunStopped, UsageError
from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.ledger import RUN_SPECIFIC, Row
from nextscene.curation.plan import Plan
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.run.existing_plan import has_only_plan
from nextscene.curation.run.locations import claim_out, open_out
from nextscene.curation.run.prepare import prepare
from nextscene.curation.run.source_sentinels import read_sentinels
from nextscene.curation.run.unit_judge import UnitJudge
from nextscene.curation.sealing.committed import CommittedState, clean_up, discard_superseded, read_progress
from nextscene.curation.sealing.partial_shards import seal_partial_shards
from nextscene.curation.sealing.remaining import ShardWork, first_clips, remaining, retried_shards
from nextscene.curation.sealing.repair import repair_commits, seal_or_redo
from nextscene.curation.sealing.retry import check_open_retry, end_retry, start_or_resume_retry
from nextscene.curation.sources.several import source_at
from nextscene.curation.stages.unit import UnitContext, cut_unit, screen_unit
from nextscene.curation.summary import BuildSummary, publish_summary, sums_of_last_run
from nextscene.curation.verify.verify import verify
from nextscene.pipelines.cli.progress import ProgressLine
from nextscene.shards.format.checksums import write_checksums
from nextscene.shards.format.layout import CHECKSUMS
from nextscene.shards.format.manifest import Manifest

REPOSITORY = Path(__file__).resolve().parent.parent
CLIPS = REPOSITORY.parent / "shared" / "clips"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason=f"no real footage at {CLIPS}")

SMALL = BuildConfig(judge="none", test=0.0, unit_size=2, units_per_shard=2)
"""Settings with units and shards so small that a dozen clips fill several."""


def make_video(path: Path, seconds: float = 1.0, size: str = "854x480", fps: str = "16", *extra: str) -> Path:
    """Write a short H.264 video of a moving test picture, and return its path.

    `extra` are further output arguments of ffmpeg.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = f"testsrc2=size={size}:rate={fps}:duration={seconds}"
    encoding = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    run_ffmpeg("-f", "lavfi", "-i", picture, *encoding, *extra, str(path))
    return path


def run_ffmpeg(*arguments: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *arguments]
    subprocess.run(command, check=True)


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def captioned_spans(folder: Path, count: int, seconds: float = 0.25, size: str = "854x480") -> Path:
    """Write a manifest of `count` spans of one video, each with a caption in different words, and return its path."""
    make_video(folder / "film.mp4", count * seconds, size)
    rows = [
        {
            "video": "film.mp4",
            "start": f"{i * seconds:.3f}",
            "end": f"{(i + 1) * seconds:.3f}",
            "caption": f"word{chr(97 + i % 26)} thing{chr(97 + i)}",
        }
        for i in range(count)
    ]
    return write_csv(folder / "clips.csv", rows)


def build_inline(
    source: Path | str,
    out: Path | str,
    config: BuildConfig,
    retry: frozenset[str] = frozenset(),
    judge_budget: JudgeBudget | None = None,
    stop_after: int | None = None,
) -> BuildSummary:
    """Build as `curation.run.run.build` does, but with the engine's steps one after another in this process.

    Raise the error that ended the judging, after all decided clips are sealed and in the summary.
    """
    begun = time.monotonic()
    with claim_out(open_out(str(out))) as place, hold_lock(place, "inline"), asyncio.Runner() as runner:
        check_open_retry(place, retry)
        found = source_at(str(source), config.map, config.source_settings)
        given = replace(found, selection=config.selection, caption_lines=config.caption_lines)
        recorded = prepare(place, given, config, judge_budget, retry=bool(retry))
        job = UnitContext(
            config,
            given.roots,
            place,
            ffmpeg.build(),
            "inline",
            judge_budget,
            recorded.begun_with_cut,
            read_sentinels(place),
            schema_version=recorded.schema_version,
        )
        judging = UnitJudge(config, judge_budget, place, "inline")
        plan, before = Plan(place, config), sums_of_last_run(place)
        state, _ = repair_commits(place, config.units_per_shard)
        clean_up(place, state, config.units_per_shard)
        end: Exception | None = None
        try:
            while not (end or state.complete(plan)):
                works = remaining(plan, state, place)
                end = do_all(job, first_clips(works, stop_after) if stop_after else works, judging, runner)
                if end or stop_after:
                    seal_partial_shards(place, plan, config.units_per_shard)
                    break
                state = CommittedState.read(place, config.units_per_shard)
            state = CommittedState.read(place, config.units_per_shard)
            if retry and not end and (under_way := start_or_resume_retry(place, state, retry)):
                end = do_all(job, retried_shards(plan, state, place, under_way), judging, runner)
        finally:
            runner.run(judging.end())
        if end and has_only_plan(place):
            raise end
        state, tally = read_progress(place, config.units_per_shard)
        summary, sums = publish_summary(place, plan, recorded, state, tally, time.monotonic() - begun, before)
        discard_superseded(place, state)
        if end:
            raise end
        if sums is not None:
            write_checksums(place, sums)
        if retry:
            end_retry(place)
    return summary


def do_all(
    job: UnitContext, works: Iterable[ShardWork], judging: UnitJudge, runner: asyncio.Runner
) -> RunStopped | UsageError | None:
    """Do all the work. Return the error that ended the judging, or left clips undecided; None if all is done."""
    left: LeftUndecided | None = None
    for work in works:
        job.out.delete(CHECKSUMS)
        for unit in list(work.todo):
            screened = screen_unit(job, unit)
            decision = runner.run(judging.decide(unit, screened))
            if decision.result.has_scenes or not decision.end:
                cut_unit(job, unit, screened, decision.scenes)
            if isinstance(decision.end, LeftUndecided):
                left = left or decision.end
            elif decision.end:
                return decision.end
            if not decision.result.is_partial:
                work.todo.remove(unit)
        if work.is_done:
            seal_or_redo(job.out, work.name, work.units)
    return left


def ledger(out: Path | str, config: BuildConfig = SMALL) -> list[Row]:
    """Return all committed rows, in source order."""
    place = Storage.at(out)
    rows = [row for rows in CommittedState.read(place, config.units_per_shard).ledgers(place) for row in rows]
    return sorted(rows, key=lambda row: row.position)


def decided(out: Path | str, config: BuildConfig = SMALL) -> int:
    """Return the number of committed clips. This is safe while a run works, which may seal a shard meanwhile."""
    return read_progress(Storage.at(out), config.units_per_shard)[1].total


def problems(out: Path | str, config: BuildConfig = SMALL) -> list[str]:
    """Return the problems that `--verify` finds."""
    place = Storage.at(out)
    recorded = RecordedConfig.read(place)
    assert recorded is not None
    return [found.text for found in verify(place, recorded, config, ProgressLine("verifying")) if found.wrong]


def assert_conserved(out: Path | str, config: BuildConfig = SMALL) -> None:
    """Check that planned = sum of outcomes, kept = samples in shards, and that `--verify` finds no problem."""
    place = Storage.at(out)
    planned = Plan(place, config)
    rows = ledger(out, config)
    assert len(rows) == planned.clips
    assert sorted(row.clip_id for row in rows) == sorted(row["clip_id"] for row in planned.rows())
    assert sum(row.kept for row in rows) == sum(shard.count for shard in Manifest.read(place).shards)
    found = problems(out, config)
    assert found == [], "\n".join(found)


def assert_same_dataset(one: Path | str, other: Path | str, config: BuildConfig = SMALL) -> None:
    """Check that manifests, hence shards, are identical, and ledgers are equal except for run-specific columns."""
    a, b = Storage.at(one), Storage.at(other)
    assert json.loads(a.read("manifest.json")) == json.loads(b.read("manifest.json"))
    assert a.read("manifest.json") == b.read("manifest.json")
    assert [_lasting(row) for row in ledger(one, config)] == [_lasting(row) for row in ledger(other, config)]


def assert_same_clips(one: Path | str, other: Path | str, config: BuildConfig = SMALL) -> None:
    """Check that tars and ledgers are equal except for run-specific columns. Revisions may differ."""
    a, b = (
        {(s.split, s.name.index): (s.sha256, s.count) for s in Manifest.read(Storage.at(o)).shards}
        for o in (one, other)
    )
    assert a == b
    assert [_lasting(row) for row in ledger(one, config)] == [_lasting(row) for row in ledger(other, config)]


def as_before_sums(out: Path) -> None:
    """Make a dataset look like one of an older version: without SHA256SUMS, and without the ledgers' hashes."""
    (out / CHECKSUMS).unlink(missing_ok=True)
    for path in out.glob("shards/**/*.receipt.json"):
        value = json.loads(path.read_text())
        value.pop("ledger_sha256", None)
        path.write_text(json.dumps(value, sort_keys=True) + "\n")


def _lasting(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__ if name not in RUN_SPECIFIC}
