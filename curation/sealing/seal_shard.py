"""Sealing of a shard: its units' parts become the tar, their ledgers become one, and the receipt commits both.

Tested in tests/curation/sealing/test_partial_shards.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nextscene.common.errors import DamagedRecord, RunStopped
from nextscene.common.storage import Storage
from nextscene.curation.ledger import Row, read_ledger, write_ledger
from nextscene.curation.paid_calls import keys_of
from nextscene.curation.recorded_config import clips_of
from nextscene.shards.format.layout import ShardName, UnitName
from nextscene.shards.format.receipt import Receipt
from nextscene.shards.format.seal import seal
from nextscene.shards.format.tar import DamagedShard


class CannotSeal(RunStopped):
    """The files of a shard's units are not what was committed."""


def seal_shard(out: Storage, name: ShardName, units: Sequence[UnitName]) -> Receipt:
    """Write tar, offsets, ledger, and last the receipt; only then delete the units' own files. Return the receipt.

    If a retry has changed no outcome and paid for nothing, leave the sealed revision as it is and return its receipt.
    Raise StorageFault; raise CannotSeal if a unit's files are not what was committed.
    """
    return _seal(out, name, {unit: unit.ledger for unit in units}, whole=True)


def seal_partial(out: Storage, name: ShardName, ledgers: Mapping[UnitName, str]) -> Receipt:
    """Seal as `seal_shard`, but only the decided clips: those in the `ledgers` of the units, which are in order."""
    return _seal(out, name, ledgers, whole=False)


def _seal(out: Storage, name: ShardName, units: Mapping[UnitName, str], *, whole: bool) -> Receipt:
    try:
        rows = [row for ledger in units.values() for row in read_ledger(out, ledger)]
        if name.revision and (before := _same_ends(out, name, rows)):
            receipt = before
        else:
            _mark(out, name, whole)
            kept = [row.clip_id for row in rows if row.kept]
            sealed = seal(out, name, [unit.part for unit in units], kept, clips_of(out))
            receipt = replace(sealed, ledger_sha256=write_ledger(out, name.ledger, rows))
            receipt.publish(out)
    except (DamagedShard, DamagedRecord, FileNotFoundError) as damage:
        if out.stat(name.receipt):  # a worker that outlived its killed driver has sealed it already
            return Receipt.read(out, name)
        out.check_anchor()
        raise CannotSeal(f"{name} cannot be sealed, work in progress was damaged: {damage}") from damage
    for unit in units:
        discard_unit(out, unit)
    return receipt


def _mark(out: Storage, name: ShardName, whole: bool) -> None:
    """Write or delete the mark of a partial shard, before any other file of the shard.

    So, even after an interruption, a receipt is known to be of a whole or of a partial shard.
    """
    if whole:
        out.delete(name.partial)
    else:
        out.write(name.partial, b"Sealed before all of its clips were decided. The next run adds the rest.\n")


def discard_unit(out: Storage, unit: UnitName) -> None:
    """Delete a unit's files; the ledger first, so that a ledger without its part is never taken for a commit."""
    for path in unit.files:
        out.delete(path)


def discard_shard(out: Storage, name: ShardName) -> None:
    """Delete a replaced revision; the receipt almost last, so that an interrupted deletion is noticed.

    The mark of a partial shard is deleted after the receipt: a receipt without it would promise a whole shard.
    """
    for path in (name.tar, name.offsets, name.ledger, name.receipt, name.partial):
        out.delete(path)


def _same_ends(out: Storage, name: ShardName, rows: Sequence[Row]) -> Receipt | None:
    before = ShardName(name.split, name.index, name.revision - 1)
    if [_end(row) for row in rows] == [_end(row) for row in read_ledger(out, before.ledger)]:
        return Receipt.read(out, before)
    return None


def _end(row: Row) -> tuple[str, str, str, int, frozenset[str]]:
    """Return the values that differ if a retry has changed a row.

    A repeated question without a new outcome changes `sample`: it is sealed, so that the next retry asks once more. New
    paid calls change the keys.
    """
    return row.clip_id, row.outcome, row.reason, row.sample, keys_of(row)
