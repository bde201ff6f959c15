"""Ending a shard: its units' parts become the tar, its units' ledgers become one, and the receipt makes it so.

Tested in tests/curation/sealing/test_partial_shards.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nextscene.common.errors import DamagedRecord, RunStopped
from nextscene.common.storage import Storage
from nextscene.curation.ledger import Row, read_ledger, write_ledger
from nextscene.curation.paid_calls import keys_of
from nextscene.shards.format.layout import ShardName, UnitName
from nextscene.shards.format.receipt import Receipt
from nextscene.shards.format.seal import seal
from nextscene.shards.format.tar import DamagedShard


class CannotSeal(RunStopped):
    """The files of a shard's units are not what was committed."""


def seal_shard(out: Storage, name: ShardName, units: Sequence[UnitName]) -> Receipt:
    """Tar, offsets, ledger, and the receipt last; only then the units' own files go. Raises StorageFault,
    and CannotSeal when a unit's files are not what was committed.

    A retry that changed no outcome, and paid for nothing, leaves the sealed revision as it is and returns its receipt.
    """
    return _seal(out, name, {unit: unit.ledger for unit in units}, whole=True)


def seal_partial(out: Storage, name: ShardName, ledgers: Mapping[UnitName, str]) -> Receipt:
    """As `seal_shard`, of the clips that are decided: those in the ledgers of these units, which are in order."""
    return _seal(out, name, ledgers, whole=False)


def _seal(out: Storage, name: ShardName, units: Mapping[UnitName, str], *, whole: bool) -> Receipt:
    try:
        rows = [row for ledger in units.values() for row in read_ledger(out, ledger)]
        if name.revision and (before := _same_ends(out, name, rows)):
            receipt = before
        else:
            _mark(out, name, whole)
            sealed = seal(out, name, [unit.part for unit in units], [row.clip_id for row in rows if row.kept])
            receipt = replace(sealed, ledger_sha256=write_ledger(out, name.ledger, rows))
            receipt.publish(out)
    except (DamagedShard, DamagedRecord, FileNotFoundError) as damage:
        if out.stat(name.receipt):  # a worker that outlived its killed driver was first
            return Receipt.read(out, name)
        out.check_anchor()
        raise CannotSeal(f"{name} cannot be sealed, work in progress was damaged: {damage}") from damage
    for unit in units:
        discard_unit(out, unit)
    return receipt


def _mark(out: Storage, name: ShardName, whole: bool) -> None:
    """Before any file of the shard: wherever that ends, it is known what a receipt of it is worth."""
    if whole:
        out.delete(name.partial)
    else:
        out.write(name.partial, b"Sealed before all of its clips were decided. The next run adds the rest.\n")


def discard_unit(out: Storage, unit: UnitName) -> None:
    """Deletes what a unit left; the ledger first, so that a ledger without its part is never taken for a commit."""
    for path in unit.files:
        out.delete(path)


def discard_shard(out: Storage, name: ShardName) -> None:
    """Deletes a revision that another has replaced; the receipt late, so that an interrupted deletion is seen.

    The mark goes after it: without that a receipt would promise a whole shard.
    """
    for path in (name.tar, name.offsets, name.ledger, name.receipt, name.partial):
        out.delete(path)


def _same_ends(out: Storage, name: ShardName, rows: Sequence[Row]) -> Receipt | None:
    before = ShardName(name.split, name.index, name.revision - 1)
    if [_end(row) for row in rows] == [_end(row) for row in read_ledger(out, before.ledger)]:
        return Receipt.read(out, before)
    return None


def _end(row: Row) -> tuple[str, str, str, int, frozenset[str]]:
    """Asked anew in vain is an end of its own: the next retry asks once more. So is what was paid for since."""
    return row.clip_id, row.outcome, row.reason, row.sample, keys_of(row)
