"""The plan: an immutable table that assigns each clip to a unit and a shard, written before any work begins.

It is read one shard at a time, so that only the disk limits its size. `plan_writer` writes it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nextscene.common.parquet import translate_errors
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.sources.caption import outcome_of_flaw
from nextscene.shards.format.layout import PLAN, SPLITS, ShardName, UnitName

# Keys in the metadata of the file.
SHARDS_KEY = "nextscene.shards"
UNCAPTIONED_KEY = "nextscene.uncaptioned"
SKIPPED_KEY = "nextscene.skipped"
PASSED_OVER_KEY = "nextscene.passed_over"


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """One row of the plan. `position` is the index in source order; `unit` and `shard` count within the split.

    Older plans lack `flaw` and the columns after it. `digest` is that of the first and the last MiB of the clip's
    bytes. Only plans for a judge that reads scenes have `scene`.
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
    scene: str = ""
    packed: str = ""
    crop: str = ""
    group: str = ""

    @property
    def source_outcome(self) -> ClipOutcome | None:
        """Return the clip's outcome if its source alone decides it, else None."""
        return outcome_of_flaw(self.flaw, self.flaw_detail)


_TYPES: dict[str, pa.DataType] = {"int": pa.int64(), "str": pa.string()}
SCHEMA = pa.schema([pa.field(f.name, _TYPES[str(f.type)], nullable=False) for f in fields(PlannedClip)])


OPTIONAL_COLUMNS = frozenset(["digest", "scene", "packed", "crop", "group"])
"""The columns that not every plan has: those of older versions lack some, and `scene` depends on the judge."""


def plan_schema(optional: frozenset[str]) -> pa.Schema:
    """Return the columns of a plan that has these of the OPTIONAL_COLUMNS."""
    left_out = OPTIONAL_COLUMNS - optional
    return pa.schema([field for field in SCHEMA if field.name not in left_out])


@dataclass(frozen=True)
class Unit:
    """Consecutive clips of one split, in source order, that are processed, committed and retried together.

    A retry processes only the clips in `redo` and keeps the earlier results of the rest; None means all clips. Clips in
    `quarantined` are not opened. Clips in `deferred` are left undecided.
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
        """Return whether this run decides the clip."""
        return self.redoes(clip) and clip.clip_id not in self.deferred


class Plan:
    """A written plan that gives its units one shard at a time.

    `uncaptioned` counts the clips that the judge captions, if it can; `skipped` those rejected for lack of a caption.
    `passed_over` counts the files of the source that gave no clip, by suffix; None if the plan did not count them.
    """

    def __init__(self, out: Storage, config: BuildConfig) -> None:
        """Raise FileNotFoundError, or DamagedRecord if the file is not a plan."""
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
        self.uncaptioned = int(notes[UNCAPTIONED_KEY.encode()])
        self.skipped = int(notes.get(SKIPPED_KEY.encode(), b"0"))
        skipped = notes.get(PASSED_OVER_KEY.encode())
        self.passed_over: dict[str, int] | None = None if skipped is None else json.loads(skipped)
        for entry in notes[SHARDS_KEY.encode()].decode().split(","):
            split, clips = entry.split(" ")
            self._places[ShardName(split, seen[split])] = self.clips, int(clips)
            seen[split] += 1
            self.clips += int(clips)
        groups = self._file.metadata.num_row_groups
        self._group_ends = list(accumulate(self._file.metadata.row_group(i).num_rows for i in range(groups)))

    def shards(self) -> Iterator[tuple[ShardName, int]]:
        """Yield each planned shard (revision 0) with its number of clips, in the order of the plan."""
        for name, (_, clips) in self._places.items():
            yield name, clips

    def unit_names(self, shard: ShardName, clips: int) -> list[UnitName]:
        """Return the names of the units of a shard of `clips` clips, in order, at the shard's revision."""
        first = shard.index * self._config.units_per_shard
        count = -(-clips // self._config.unit_size)
        return [UnitName(shard.split, first + i, shard.revision) for i in range(count)]

    def units(self, shard: ShardName) -> list[Unit]:
        """Return the units of a shard with their clips, at the shard's revision."""
        rows = [PlannedClip(**row) for row in self._rows_of(replace(shard, revision=0)).to_pylist()]
        size = self._config.unit_size
        return [
            Unit(name, shard, tuple(rows[i * size : (i + 1) * size]))
            for i, name in enumerate(self.unit_names(shard, len(rows)))
        ]

    def _rows_of(self, shard: ShardName) -> pa.Table:
        """Return a shard's rows, which are in one row group. The last group is cached, as shards are read in order."""
        first, clips = self._places[shard]
        group = bisect_right(self._group_ends, first)
        if self._group[0] != group:
            self._group = group, self._file.read_row_group(group, use_threads=False)
        begin = self._group_ends[group] - self._group[1].num_rows
        return self._group[1].slice(first - begin, clips)

    def rows(self) -> Iterable[dict[str, Any]]:
        """Yield every row as plain values in the order of the file, for checks."""
        for batch in self._file.iter_batches(batch_size=1024, use_threads=False):
            yield from batch.to_pylist()
