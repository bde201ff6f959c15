"""Verification of one shard: its tar against its receipt, each row of its ledger against plan and record.

Tested in tests/curation/verify/test_verify.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from nextscene.common.errors import DamagedRecord
from nextscene.common.hashing import file_sha256
from nextscene.common.storage import Storage
from nextscene.curation.clip_record import conditioning_text, record_of
from nextscene.curation.config import CUT_VERSION, BuildConfig
from nextscene.curation.ledger import Row, read_ledger
from nextscene.curation.plan import PlannedClip
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.sources import OPEN_END
from nextscene.curation.storable_row import UNWRITABLE
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.receipt import Receipt
from nextscene.shards.format.sample import CLIP_TYPES, Sample
from nextscene.shards.format.seal import check_sealed
from nextscene.shards.format.tar import DamagedShard, MemberGroup

_PLANNED_COLUMNS = ("position", "clip_id", "split", "unit", "shard", "start_ms", "end_ms")


@dataclass
class ShardFindings:
    """The receipt and the rows of a shard, and path → faults of its files."""

    receipt: Receipt | None = None
    rows: list[Row] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)

    def add(self, path: str, *texts: str) -> None:
        if texts:
            self.faults.setdefault(path, []).extend(texts)


def check_shard(
    out: Storage,
    recorded: RecordedConfig,
    config: BuildConfig,
    name: ShardName,
    clips: Sequence[PlannedClip],
    is_partial: bool,
) -> ShardFindings:
    """Read a whole sealed shard and return the findings. `clips` are planned for it; a partial one lacks some of them.

    Raise StorageFault.
    """
    found = ShardFindings()
    try:
        found.receipt = Receipt.read(out, name)
    except DamagedRecord as damage:
        found.add(name.receipt, str(damage))
    _check_ledger(out, config, name, clips, is_partial, found)
    if found.receipt:
        planned = {clip.clip_id: clip for clip in clips}
        samples = _ShardSamples(recorded, config, planned, {row.clip_id: row for row in found.rows})
        try:
            check_sealed(out, found.receipt, CLIP_TYPES[recorded.schema_version], samples.look)
        except DamagedShard as damage:
            found.add(name.tar, str(damage))
        else:
            found.add(name.ledger, *samples.faults)
    return found


def _check_ledger(
    out: Storage,
    config: BuildConfig,
    name: ShardName,
    clips: Sequence[PlannedClip],
    is_partial: bool,
    found: ShardFindings,
) -> None:
    try:
        found.rows = read_ledger(out, name.ledger)
        sha256 = file_sha256(out, name.ledger)
    except FileNotFoundError:
        found.add(name.ledger, "it is missing")
        return
    except DamagedRecord as damage:
        found.add(name.ledger, str(damage))
        return
    decided = {row.clip_id for row in found.rows}
    wanted = [clip for clip in clips if not is_partial or clip.clip_id in decided]
    found.add(name.ledger, *_against_plan(found.rows, wanted, config))
    if found.receipt:
        if [row.clip_id for row in found.rows if row.kept] != list(found.receipt.clip_ids):
            found.add(name.ledger, f"the clips kept by the ledger of {name} are not those of its receipt")
        if found.receipt.ledger_sha256 not in ("", sha256):
            found.add(name.ledger, "it is not the file that was written, by its sha256 in the receipt")


def _against_plan(rows: Sequence[Row], clips: Sequence[PlannedClip], config: BuildConfig) -> Iterator[str]:
    found, wanted = {row.clip_id for row in rows}, {clip.clip_id: clip for clip in clips}
    for clip_id in sorted(wanted.keys() - found):
        yield f"no row for clip {clip_id}"
    for clip_id in sorted(found - wanted.keys()):
        yield f"a row for clip {clip_id}, which is not planned there"
    if len(rows) != len(found):
        yield "a clip has two rows"
    for row in rows:
        clip = wanted.get(row.clip_id)
        if clip and not _fits(row, clip, config):
            yield f"the row of clip {row.clip_id} does not fit the plan"
    if [row.clip_id for row in rows if row.clip_id in wanted] != [clip_id for clip_id in wanted if clip_id in found]:
        yield "its rows are not in the order of the plan"


def _fits(row: Row, clip: PlannedClip, config: BuildConfig) -> bool:
    if any(getattr(row, column) != getattr(clip, column) for column in _PLANNED_COLUMNS):
        return False
    if row.reason == UNWRITABLE:
        return True
    if row.source != clip.name or row.judge != config.judge or (clip.caption and row.caption != clip.caption):
        return False
    if row.scene_description != clip.scene and config.judge_kind.reads_scenes and (row.kept or row.scene_description):
        return False
    end = clip.source_outcome
    return end is None or row.outcome == "quarantined" or (row.outcome, row.reason) == (end.outcome, end.reason)


class _ShardSamples:
    """The comparison of the samples in a tar with the plan and the ledger."""

    def __init__(
        self, recorded: RecordedConfig, config: BuildConfig, clips: dict[str, PlannedClip], rows: dict[str, Row]
    ) -> None:
        self._recorded = recorded
        self._config = config
        self._clips = clips
        self._rows = rows
        self.faults: list[str] = []

    def look(self, group: MemberGroup) -> None:
        row, clip, sample = self._rows.get(group.key), self._clips.get(group.key), Sample.of(group, "")
        if row is None or clip is None:
            return  # reported by the comparison with the plan
        record, wanted = sample.record, record_of(self._config, clip, row)
        if clip.end_ms == OPEN_END and self._recorded.cut_version < CUT_VERSION:
            wanted = replace(wanted, end=record.end)  # an older version could tell the end of fewer files
        if (record, sample.text.decode(), len(sample.media)) != (wanted, conditioning_text(row), row.bytes):
            self.faults.append(f"the row of clip {row.clip_id} does not say what its sample in the tar says")
