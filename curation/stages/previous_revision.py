"""Rows and samples of a shard's previous revision, for a retry. Tested in tests/curation/sealing/test_retry.py."""

from __future__ import annotations

from nextscene.common.storage import Storage
from nextscene.curation.ledger import Row, read_ledger
from nextscene.curation.paid_calls import with_earlier_calls
from nextscene.curation.plan import Unit
from nextscene.curation.stages.describe import JUDGE_FAILURES
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.sample import Sample
from nextscene.shards.loading.reader import ShardReader


class PreviousRevision:
    """The rows and samples of the shard's sealed revision. A retry keeps them for clips that it does not redo."""

    def __init__(self, out: Storage, unit: Unit) -> None:
        self._rows: dict[str, Row] = {}
        self._revision = unit.shard.revision
        if unit.redo is not None:
            shard = ShardName(unit.shard.split, unit.shard.index, unit.shard.revision - 1)
            wanted = {clip.clip_id for clip in unit.clips}
            self._rows = {row.clip_id: row for row in read_ledger(out, shard.ledger) if row.clip_id in wanted}
            kept = any(row.kept for row in self._rows.values())
            self._reader = ShardReader(out, shard) if kept else None

    def row_and_sample(self, clip_id: str) -> tuple[Row, Sample | None]:
        row = self._rows[clip_id]
        return row, self._reader.sample(clip_id) if row.kept and self._reader else None

    def with_its_calls(self, row: Row) -> Row:
        """Return the row with the calls that were paid for its clip earlier, whatever its outcome is now."""
        return with_earlier_calls(row, self._rows.get(row.clip_id))

    def next_sample(self, clip_id: str) -> int:
        """Return the attempt number of the judge's questions: a new one if the last gave no scene, else the same.

        It is 0 for a clip without an earlier row.
        """
        row = self._rows.get(clip_id)
        if row is None:
            return 0
        in_vain = row.outcome in ("dropped", "refused") or (row.outcome == "failed" and row.reason in JUDGE_FAILURES)
        return self._revision if in_vain else row.sample
