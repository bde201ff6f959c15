"""What has been done so far, read from the files that commit it: receipts for shards, ledgers for units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from curation.ledger import Row, Tally, read_ledger
from curation.plan import Plan
from curation.sealing import discard_shard, discard_unit
from shards.layout import PARTS, SHARDS, UNIT_LEDGERS, ShardName, UnitName
from shards.receipt import Receipt, sealed_shards
from shards.storage import Storage


@dataclass(frozen=True)
class State:
    """The newest sealed revision of each shard, and the committed units that no sealed shard holds yet."""

    sealed: dict[tuple[str, int], ShardName]
    committed: frozenset[UnitName]

    @staticmethod
    def read(out: Storage, units_per_shard: int) -> State:
        sealed = sealed_shards(out)
        committed = frozenset(unit for unit in _committed(out) if not _is_sealed(unit, sealed, units_per_shard))
        return State(sealed, committed)

    def tally(self, out: Storage) -> Tally:
        """Counts of all committed clips."""
        tally = Tally.empty()
        for rows in self.ledgers(out):
            tally.add(rows)
        return tally

    def ledgers(self, out: Storage) -> Iterator[list[Row]]:
        """The rows of every committed clip, a file at a time. A retry on its way counts once it is sealed."""
        for shard in self.sealed.values():
            yield read_ledger(out, shard.ledger)
        for unit in sorted(self.committed):
            if unit.revision == 0:
                yield read_ledger(out, unit.ledger)

    def receipts(self, out: Storage) -> Iterator[Receipt]:
        for shard in self.sealed.values():
            yield Receipt.read(out, shard)

    def complete(self, plan: Plan) -> bool:
        return all((shard.split, shard.index) in self.sealed for shard, _ in plan.shards())


def tidy(out: Storage, state: State, units_per_shard: int) -> None:
    """Finishes deletions that a killed run began. Only the holder of the run's lock may call this."""
    out.sweep()
    for unit in _committed(out):
        if _is_sealed(unit, state.sealed, units_per_shard):
            discard_unit(out, unit)
    for entry in out.files(PARTS):
        stem = entry.path.removeprefix(f"{PARTS}/").removesuffix(".part")
        owner = UnitName.of_ledger(f"{UNIT_LEDGERS}/{stem}.parquet")
        if owner is not None and _is_sealed(owner, state.sealed, units_per_shard):
            discard_unit(out, owner)


def discard_superseded(out: Storage, state: State) -> None:
    """Deletes the revisions that a retry has replaced, once the manifest names the newer ones."""
    for entry in out.files(SHARDS, recursive=True):
        name = ShardName.of_receipt(entry.path)
        if name is not None and name != state.sealed[name.split, name.index]:
            discard_shard(out, name)


def _committed(out: Storage) -> Iterator[UnitName]:
    for entry in out.files(UNIT_LEDGERS):
        unit = UnitName.of_ledger(entry.path)
        if unit is not None:
            yield unit


def _is_sealed(unit: UnitName, sealed: dict[tuple[str, int], ShardName], units_per_shard: int) -> bool:
    shard = sealed.get((unit.split, unit.index // units_per_shard))
    return shard is not None and shard.revision >= unit.revision
