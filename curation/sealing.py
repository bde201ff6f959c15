"""Ending a shard: its units' parts become the tar, its units' ledgers become one, and the receipt makes it so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from curation.errors import RunStopped
from curation.ledger import Row, read_ledger, write_ledger
from shards.layout import ShardName, UnitName
from shards.receipt import DamagedRecord, Receipt
from shards.seal import seal
from shards.storage import Storage
from shards.tar import DamagedShard


class CannotSeal(RunStopped):
    """The files of a shard's units are not what was committed."""


def seal_shard(out: Storage, name: ShardName, units: Sequence[UnitName]) -> Receipt:
    """Tar, offsets, ledger, and the receipt last; only then the units' own files go. Raises StorageFault,
    and CannotSeal when a unit's files are not what was committed.

    A retry that changed no outcome leaves the sealed revision as it is and returns its receipt.
    """
    try:
        rows = [row for unit in units for row in read_ledger(out, unit.ledger)]
        if name.revision and (before := _same_ends(out, name, rows)):
            receipt = before
        else:
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


def discard_unit(out: Storage, unit: UnitName) -> None:
    """Deletes what a unit left; the ledger first, so that a ledger without its part is never taken for a commit."""
    out.delete(unit.ledger)
    out.delete(unit.part)
    out.delete(unit.crashes)


def discard_shard(out: Storage, name: ShardName) -> None:
    """Deletes a revision that another has replaced; the receipt last, so that an interrupted deletion is seen."""
    for path in (name.tar, name.offsets, name.ledger, name.receipt):
        out.delete(path)


def _same_ends(out: Storage, name: ShardName, rows: Sequence[Row]) -> Receipt | None:
    before = ShardName(name.split, name.index, name.revision - 1)
    if [_end(row) for row in rows] == [_end(row) for row in read_ledger(out, before.ledger)]:
        return Receipt.read(out, before)
    return None


def _end(row: Row) -> tuple[str, str, str, int]:
    """Asked anew in vain is an end of its own: the next retry asks once more."""
    return row.clip_id, row.outcome, row.reason, row.sample
