"""The plan: the immutable table clip → unit → shard, written before any work.

Written and read in a stream, in row groups of whole shards, so that its size is bounded by the disk alone.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nextscene.common.errors import UsageError
from nextscene.common.hashing import sha256_of
from nextscene.common.parquet import translate_errors
from nextscene.common.storage import Storage
from nextscene.common.text import MAX_NAME, readable_text
from nextscene.curation.config import BuildConfig
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.source_check import SourceCheck
from nextscene.curation.sources import Clip, SkippedFiles, Source
from nextscene.curation.sources.caption import outcome_of_flaw
from nextscene.judge.registry import JUDGES
from nextscene.shards.format.layout import PLAN, SPLITS, ShardName, UnitName

_SHARDS_KEY = "nextscene.shards"
_UNCAPTIONED_KEY = "nextscene.uncaptioned"
_SKIPPED_KEY = "nextscene.skipped"
_PASSED_OVER_KEY = "nextscene.passed_over"
# The footer, which stays in memory, grows with the row groups; a shard is read by reading its whole group.
_ROWS_PER_GROUP = 8192


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """One row of the plan. `position` is the place in source order; `unit` and `shard` count within the split.

    `flaw` and what follows it are missing in older plans. `digest` is of the first and last MiB of the clip's bytes.
    """

    position: int
    clip_id: str
    split: str
    unit: int
    shard: int
    preceding_caption: str
    name: str
    identity: str
    location: str
    start_ms: int
    end_ms: int
    caption: str
    provenance: str
    offset: int
    length: int
    size: int
    mtime_ns: int
    flaw: str = ""
    flaw_detail: str = ""
    digest: str = ""

    @property
    def source_outcome(self) -> ClipOutcome | None:
        """The clip's end where its source alone has decided that."""
        return outcome_of_flaw(self.flaw, self.flaw_detail)


_TYPES: dict[str, pa.DataType] = {"int": pa.int64(), "str": pa.string()}
SCHEMA = pa.schema([pa.field(f.name, _TYPES[str(f.type)], nullable=False) for f in fields(PlannedClip)])

_WITHOUT_DIGESTS = SCHEMA.remove(SCHEMA.get_field_index("digest"))


@dataclass(frozen=True)
class Unit:
    """A run of clips of one split, in source order: what is worked on, committed and retried as one.

    A retry works on the clips in `redo` only and takes over the rest; None is all of them. A clip in `quarantined`
    is not touched, one in `deferred` is left undecided.
    """

    name: UnitName
    shard: ShardName
    clips: tuple[PlannedClip, ...]
    redo: frozenset[str] | None = None
    quarantined: frozenset[str] = frozenset()
    deferred: frozenset[str] = frozenset()

    def redoes(self, clip: PlannedClip) -> bool:
        return self.redo is None or clip.clip_id in self.redo

    def decides(self, clip: PlannedClip) -> bool:
        """Whether it is decided in this run."""
        return self.redoes(clip) and clip.clip_id not in self.deferred


# ---- making ----------------------------------------------------------------------------------------------------


def write_plan(
    out: Storage, source: Source, config: BuildConfig, judge_budget: JudgeBudget | None = None, digests: bool = True
) -> str:
    """Writes `plan.parquet`, whole or not at all, and returns its sha256.

    Without `digests` no file is read for one, and the plan is as older versions wrote it, without that column.
    Raises UsageError for a source that is empty or not there, holds a clip twice, or lacks the captions its judge
    needs. `judge_budget` say what becomes of clips without a caption where the judge could be paid to caption them.
    """
    schema = SCHEMA if digests else _WITHOUT_DIGESTS
    # Statistics would put two captions of each row group into the footer, which every reader loads whole.
    with (
        out.atomic_writer(PLAN) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_statistics=False) as writer,
    ):
        skipped, survey, table = SkippedFiles(), SourceCheck(config), _PlanWriter(file, writer, config)
        clips = source.clips(skipped, digests)
        skips = judge_budget is not None and judge_budget.uncaptioned == "skip"
        for position, (clip, preceding) in enumerate(with_preceding_captions(clips, source, config.judge)):
            survey.add(clip)
            table.add(position, _skipped(clip) if skips and not (clip.caption or clip.flaw) else clip, preceding)
        table.end()
        survey.check(source, skipped, judge_budget)
        uncaptioned = survey.uncaptioned.count
        table.close(
            {
                _UNCAPTIONED_KEY: 0 if skips else uncaptioned,
                _SKIPPED_KEY: uncaptioned if skips else 0,
                _PASSED_OVER_KEY: skipped.counts,
            }
        )
        table.refuse_duplicates(source)
        return sha256_of(file)


def _skipped(clip: Clip) -> Clip:
    return replace(clip, flaw="no_caption", flaw_detail="the source gives no caption for it, and it was to be left out")


class _PlanWriter:
    """Rows on their way into the file: each split fills a shard, and full shards wait until they make a row group."""

    def __init__(self, file: BinaryIO, writer: pq.ParquetWriter, config: BuildConfig) -> None:
        self._file = file
        self._writer = writer
        self._config = config
        self._filling: dict[str, list[PlannedClip]] = {split: [] for split in SPLITS}
        self._counts = dict.fromkeys(SPLITS, 0)
        self._shards: list[str] = []
        self._waiting: list[pa.Table] = []
        self._ids = array("Q")

    def add(self, position: int, clip: Clip, preceding: str) -> None:
        config = self._config
        clip_id = clip.clip_id
        split = _split(clip_id if config.split_by == "clip" else clip.name, config.test)
        unit = self._counts[split] // config.unit_size
        self._counts[split] += 1
        self._ids.append(int(clip_id[:16], 16))
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
            )
        )
        if len(rows) == config.unit_size * config.units_per_shard:
            self._end_shard(split)

    def end(self) -> None:
        """Writes what is left."""
        for split in SPLITS:
            if self._filling[split]:
                self._end_shard(split)
        self._write_group()

    def close(self, notes: Mapping[str, Any]) -> None:
        """Ends the file. `notes` are kept beside the rows, as JSON."""
        self._writer.add_key_value_metadata({_SHARDS_KEY: ",".join(self._shards)})
        self._writer.add_key_value_metadata({name: json.dumps(value) for name, value in notes.items()})
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

    def refuse_duplicates(self, source: Source) -> None:
        """Raises UsageError for two clips with one id; the file is closed by now."""
        ids = np.sort(np.frombuffer(self._ids, dtype=np.uint64))
        suspects = {int(value) for value in ids[1:][ids[1:] == ids[:-1]]}
        if not suspects:
            return
        seen: dict[str, str] = {}
        self._file.seek(0)
        for batch in pq.ParquetFile(self._file).iter_batches(
            1024, columns=["clip_id", "identity", "position"], use_threads=False
        ):
            for row in batch.to_pylist():
                if int(row["clip_id"][:16], 16) not in suspects:
                    continue
                place = f"number {row['position'] + 1} ({_one_line(row['identity'])})"
                if row["clip_id"] in seen:
                    raise UsageError(
                        f"--source {source.display_uri}: clip {place} is the same as {seen[row['clip_id']]}:"
                        " same id or video, same span; remove one or give each its own `id`"
                    )
                seen[row["clip_id"]] = place


def _one_line(name: str) -> str:
    """A name in a message: short, and on one line."""
    return readable_text(" ".join(name.split()), MAX_NAME)


def _split(of: str, test: float) -> str:
    """`test` for a share `test` of all hashes: the same for the same text, whatever else is in the source."""
    return "test" if int.from_bytes(hashlib.sha256(of.encode()).digest()[:8]) < test * 2**64 else "train"


def with_preceding_captions(clips: Iterator[Clip], source: Source, judge: str) -> Iterator[tuple[Clip, str]]:
    """Each clip with the caption of the clip before it in the same video, which judge `film` alone asks for."""
    if not JUDGES[judge].reads_preceding:
        yield from ((clip, "") for clip in clips)
        return
    in_order = f"under --judge {judge} the rows of a video stand together, in time order: sort them by video and start"
    videos = array("Q")
    last: Clip | None = None
    is_next = True
    for clip in clips:
        if not clip.has_place:
            yield clip, ""
            is_next = False  # it may have been between two others
            continue
        if last is None or clip.name != last.name:
            videos.append(int.from_bytes(hashlib.sha256(clip.name.encode()).digest()[:8]))
            yield clip, ""
        elif clip.start_ms < last.start_ms:
            raise UsageError(
                f"--source {source.display_uri}: {_one_line(clip.name)} at {clip.start_ms / 1000} s comes late;"
                f" {in_order}"
            )
        else:
            yield clip, last.caption if is_next else ""
        last, is_next = clip, True
    if len(np.unique(np.frombuffer(videos, dtype=np.uint64))) < len(videos):
        raise UsageError(f"--source {source.display_uri}: the rows of a video stand apart; {in_order}")


# ---- reading ---------------------------------------------------------------------------------------------------


class Plan:
    """A written plan, opened: what is in it, and its units a shard at a time.

    `uncaptioned` clips are captioned by the judge, if it can; `skipped` ones end for the lack of a caption.
    `passed_over` says what of the source no clip was made of, by suffix; None in a plan that did not count.
    """

    def __init__(self, out: Storage, config: BuildConfig) -> None:
        """Raises FileNotFoundError, or DamagedRecord for a file that is no plan."""
        self._config = config
        self._places: dict[ShardName, tuple[int, int]] = {}
        self.clips = 0
        with translate_errors(out, PLAN):
            self._file = pq.ParquetFile(out.open(PLAN))
            self._open()
        self._group = -1, SCHEMA.empty_table()

    def _open(self) -> None:
        seen = dict.fromkeys(SPLITS, 0)
        notes: dict[bytes, bytes] = self._file.metadata.metadata
        self.uncaptioned = int(notes[_UNCAPTIONED_KEY.encode()])
        self.skipped = int(notes.get(_SKIPPED_KEY.encode(), b"0"))
        skipped = notes.get(_PASSED_OVER_KEY.encode())
        self.passed_over: dict[str, int] | None = None if skipped is None else json.loads(skipped)
        for entry in notes[_SHARDS_KEY.encode()].decode().split(","):
            split, clips = entry.split(" ")
            self._places[ShardName(split, seen[split])] = self.clips, int(clips)
            seen[split] += 1
            self.clips += int(clips)
        groups = self._file.metadata.num_row_groups
        self._group_ends = list(accumulate(self._file.metadata.row_group(i).num_rows for i in range(groups)))

    def shards(self) -> Iterator[tuple[ShardName, int]]:
        """Every planned shard (revision 0) with the number of its clips, in the order of the plan."""
        for name, (_, clips) in self._places.items():
            yield name, clips

    def unit_names(self, shard: ShardName, clips: int) -> list[UnitName]:
        """The units of a shard of `clips` clips, in order, at the shard's revision."""
        first = shard.index * self._config.units_per_shard
        count = -(-clips // self._config.unit_size)
        return [UnitName(shard.split, first + i, shard.revision) for i in range(count)]

    def units(self, shard: ShardName) -> list[Unit]:
        """The units of a shard, with their clips, at the shard's revision."""
        rows = [PlannedClip(**row) for row in self._rows_of(replace(shard, revision=0)).to_pylist()]
        size = self._config.unit_size
        return [
            Unit(name, shard, tuple(rows[i * size : (i + 1) * size]))
            for i, name in enumerate(self.unit_names(shard, len(rows)))
        ]

    def _rows_of(self, shard: ShardName) -> pa.Table:
        """A whole shard lies in one group; the group last read is kept, since shards are asked for in order."""
        first, clips = self._places[shard]
        group = bisect_right(self._group_ends, first)
        if self._group[0] != group:
            self._group = group, self._file.read_row_group(group, use_threads=False)
        begin = self._group_ends[group] - self._group[1].num_rows
        return self._group[1].slice(first - begin, clips)

    def rows(self) -> Iterable[dict[str, Any]]:
        """Every row as plain values, in the order of the file, for checks."""
        for batch in self._file.iter_batches(batch_size=1024, use_threads=False):
            yield from batch.to_pylist()
