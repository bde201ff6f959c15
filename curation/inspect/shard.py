"""One shard: its receipt, its samples, and the clips planned for it that are not in it.

Tested in tests/curation/inspect/test_inspect.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from nextscene.curation.inspect.open_dataset import OpenDataset
from nextscene.curation.inspect.sample import SampleFound, SampleReader
from nextscene.curation.ledger import Row, read_ledger
from nextscene.curation.sources import span_text
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.receipt import Receipt
from nextscene.shards.format.sample import CLIPS


@dataclass(frozen=True)
class ClipEnd:
    """A clip and its outcome. `source` is its file and the span in that file."""

    clip_id: str
    source: str
    outcome: str
    reason: str
    detail: str


@dataclass(frozen=True)
class ShardHistory:
    """The history of one shard: `planned` clips, `decided` and `kept` ones so far. It has no tar before it is `sealed`.

    `planned` and `decided` are None if no file has them. `sha256` and `bytes` are those of the tar; "" and 0 if there
    is none.
    """

    name: str
    sealed: bool
    planned: int | None
    decided: int | None
    kept: int
    tar: str
    sha256: str
    bytes: int
    samples: tuple[SampleFound, ...]
    not_kept: tuple[ClipEnd, ...]
    missing: tuple[str, ...]

    @property
    def damages(self) -> list[str]:
        return [sample.damage for sample in self.samples if sample.damage]


def shard_history(opened: OpenDataset, name: ShardName) -> ShardHistory:
    """Read every sample of the shard and return its history.

    Raise DamagedRecord, or FileNotFoundError for a file that is gone.
    """
    sealed = name in opened.state.sealed.values()
    planned = dict(opened.plan.shards()).get(ShardName(name.split, name.index)) if opened.plan else None
    receipt = Receipt.read(opened.out, name) if sealed else Receipt.empty(name, CLIPS.members)
    reader = SampleReader(opened.out, receipt)
    rows = [row for path in _ledgers(opened, name, sealed, planned) for row in read_ledger(opened.out, path)]
    known = opened.has_ledger or not sealed
    return ShardHistory(
        name=str(name),
        sealed=sealed,
        planned=planned,
        decided=len(rows) if known else None,
        kept=sum(row.kept for row in rows) if known else receipt.count,
        tar=name.tar if receipt.count else "",
        sha256=receipt.sha256,
        bytes=receipt.bytes,
        samples=tuple(reader.find(number) for number in range(receipt.count)),
        not_kept=tuple(end_of(row) for row in rows if not row.kept),
        missing=opened.missing,
    )


def end_of(row: Row) -> ClipEnd:
    source = f"{row.source}{span_text(row.start_ms, row.end_ms)}"
    return ClipEnd(row.clip_id, source, row.outcome, row.reason, row.detail)


def _ledgers(opened: OpenDataset, name: ShardName, sealed: bool, planned: int | None) -> list[str]:
    """Return the ledger of a sealed shard, or the ledgers of the committed units of an unsealed one."""
    if sealed:
        return [name.ledger] if opened.has_ledger else []
    units = opened.plan.unit_names(name, planned) if opened.plan and planned else []
    return [unit.ledger for unit in units if unit in opened.state.committed]
