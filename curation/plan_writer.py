"""The writer of the plan, which assigns clips in source order to splits, units and shards.

The file is written as a stream, in row groups of whole shards. Tested in tests/curation/test_plan.py.
"""

from __future__ import annotations

import hashlib
import json
import logging
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nextscene.common.errors import UsageError
from nextscene.common.hashing import sha256_of
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.duplicate_clips import id64, one_line, refuse_duplicates
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.plan import (
    OPTIONAL_COLUMNS,
    PASSED_OVER_KEY,
    SHARDS_KEY,
    SKIPPED_KEY,
    UNCAPTIONED_KEY,
    PlannedClip,
    plan_schema,
)
from nextscene.curation.source_check import SourceCheck
from nextscene.curation.sources import Clip, SkippedFiles, Source
from nextscene.curation.sources.archive_index import ArchiveIndex
from nextscene.judge.registry import JUDGES
from nextscene.shards.format.layout import PLAN, SPLITS

_log = logging.getLogger(__name__)

# A compromise: more groups make the footer larger, which stays in memory, and a shard is read with its whole group.
_ROWS_PER_GROUP = 8192


def write_plan(
    out: Storage,
    source: Source,
    config: BuildConfig,
    judge_budget: JudgeBudget | None = None,
    columns: frozenset[str] = OPTIONAL_COLUMNS,
) -> str:
    """Write `plan.parquet` atomically and return its sha256.

    `columns` are those of the OPTIONAL_COLUMNS that the plan has, if the judge uses them; older versions wrote fewer.
    Without `digest` no contents are read. `judge_budget` decides what happens to clips without a caption if the judge
    could be paid to caption them.
    Raise UsageError if the source is empty or missing, has a clip twice, or lacks the captions or scenes that its judge
    needs.
    """
    reads_scenes, archives = config.judge_kind.reads_scenes, ArchiveIndex(out)
    schema = plan_schema(columns if reads_scenes else columns - {"scene"})
    # Statistics would put two captions of each row group into the footer, which every reader loads as a whole.
    with (
        out.atomic_writer(PLAN) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_statistics=False) as writer,
    ):
        skipped, check, table = SkippedFiles(), SourceCheck(config), _PlanWriter(file, writer, config)
        clips = source.clips(skipped, "digest" in columns, reads_scenes, archives)
        leaves_out = judge_budget is not None and judge_budget.uncaptioned == "skip"
        for position, (clip, preceding) in enumerate(with_preceding_captions(clips, source, config.judge)):
            check.add(clip)
            table.add(position, _left_out(clip) if leaves_out and not (clip.caption or clip.flaw) else clip, preceding)
        table.end()
        if source.likely_layout:
            _log.warning("%s: %s", source.display_uri, source.likely_layout)
        check.check(source, skipped, judge_budget)
        uncaptioned = check.uncaptioned.count
        table.close(
            {
                UNCAPTIONED_KEY: 0 if leaves_out else uncaptioned,
                SKIPPED_KEY: uncaptioned if leaves_out else 0,
                PASSED_OVER_KEY: skipped.counts,
            }
        )
        refuse_duplicates(file, table.ids, source)
        sha256 = sha256_of(file)
    archives.clear()
    return sha256


def _left_out(clip: Clip) -> Clip:
    return replace(clip, flaw="no_caption", flaw_detail="the source gives no caption for it, and it was to be left out")


class _PlanWriter:
    """A buffer of rows until they fill a shard of their split, and of full shards until they fill a row group."""

    def __init__(self, file: BinaryIO, writer: pq.ParquetWriter, config: BuildConfig) -> None:
        self._file = file
        self._writer = writer
        self._config = config
        self._filling: dict[str, list[PlannedClip]] = {split: [] for split in SPLITS}
        self._counts = dict.fromkeys(SPLITS, 0)
        self._shards: list[str] = []
        self._waiting: list[pa.Table] = []
        self.ids = array("Q")

    def add(self, position: int, clip: Clip, preceding: str) -> None:
        config = self._config
        clip_id = clip.clip_id
        split = _split(clip_id if config.split_by == "clip" else clip.original, config.test)
        unit = self._counts[split] // config.unit_size
        self._counts[split] += 1
        self.ids.append(id64(clip_id))
        rows = self._filling[split]
        rows.append(
            PlannedClip(
                position,
                clip_id,
                split,
                unit,
                unit // config.units_per_shard,
                preceding,
                clip.name,
                clip.identity,
                clip.location,
                clip.start_ms,
                clip.end_ms,
                clip.caption,
                clip.provenance,
                clip.offset,
                clip.length,
                clip.size,
                clip.mtime_ns,
                clip.flaw,
                clip.flaw_detail,
                clip.digest,
                clip.scene,
                clip.packed,
                clip.crop,
                clip.group,
            )
        )
        if len(rows) == config.unit_size * config.units_per_shard:
            self._end_shard(split)

    def end(self) -> None:
        """Write the buffered rows."""
        for split in SPLITS:
            if self._filling[split]:
                self._end_shard(split)
        self._write_group()

    def close(self, metadata: Mapping[str, Any]) -> None:
        """Finish the file. Each value of `metadata` is stored beside the rows as JSON."""
        self._writer.add_key_value_metadata({SHARDS_KEY: ",".join(self._shards)})
        self._writer.add_key_value_metadata({name: json.dumps(value) for name, value in metadata.items()})
        self._writer.close()

    def _end_shard(self, split: str) -> None:
        rows = self._filling[split]
        schema = self._writer.schema
        columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in schema]
        self._waiting.append(pa.Table.from_arrays(columns, schema=schema))
        self._shards.append(f"{split} {len(rows)}")
        rows.clear()
        if sum(table.num_rows for table in self._waiting) >= _ROWS_PER_GROUP:
            self._write_group()

    def _write_group(self) -> None:
        if self._waiting:
            group = pa.concat_tables(self._waiting)
            self._writer.write_table(group, row_group_size=group.num_rows)
            self._waiting.clear()


def _split(key: str, test: float) -> str:
    """Return "test" for a fraction `test` of all keys, else "train". The hash decides: only the key matters."""
    return "test" if int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) < test * 2**64 else "train"


def with_preceding_captions(clips: Iterator[Clip], source: Source, judge: str) -> Iterator[tuple[Clip, str]]:
    """Yield each clip with the caption of the clip before it in the same video; "" if the judge does not use it.

    Raise UsageError if the rows of a video are not together or not in time order.
    """
    if not JUDGES[judge].reads_preceding:
        yield from ((clip, "") for clip in clips)
        return
    if source.leaves_gaps:
        raise UsageError(
            f"under `judge` {judge} the scene of a clip is the caption of the shot before it, which `where` or"
            " `sample_seed` may leave out; take the first clips by `limit` alone, or choose another `judge`"
        )
    in_order = f"under `judge` {judge} the rows of a video must be together, in time order: sort by video and start"
    videos = array("Q")
    last: Clip | None = None
    is_next = True
    for clip in clips:
        if not clip.has_place:
            yield clip, ""
            is_next = False  # its place among the other clips is unknown
            continue
        if last is None or clip.original != last.original:
            videos.append(int.from_bytes(hashlib.sha256(clip.original.encode()).digest()[:8]))
            yield clip, ""
        elif clip.name == last.name and clip.start_ms < last.start_ms:
            raise UsageError(
                f"`source` {source.display_uri}: {one_line(clip.name)} at {clip.start_ms / 1000} s is out of order;"
                f" {in_order}"
            )
        else:
            yield clip, last.caption if is_next else ""
        last, is_next = clip, True
    if len(np.unique(np.frombuffer(videos, dtype=np.uint64))) < len(videos):
        raise UsageError(f"`source` {source.display_uri}: the rows of a video are not together; {in_order}")
