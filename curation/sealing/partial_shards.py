"""Partial shards: sealed before all of their clips are decided, because the asking ended or the run was to be short.

Such a shard has the clips that are decided, and a mark (`ShardName.partial`). Readers can use it as any other shard.
The plan does not change: the next run seals the shard again, as its next revision, with the rest of its clips.
"""

from __future__ import annotations

import logging

from nextscene.common.storage import Storage
from nextscene.curation.ledger import Row, read_ledger, write_ledger
from nextscene.curation.plan import Plan
from nextscene.curation.sealing.committed import CommittedState
from nextscene.curation.sealing.seal_shard import CannotSeal, seal_partial, seal_shard
from nextscene.shards.format.layout import PARTS, UNIT_LEDGERS, ShardName, UnitName
from nextscene.shards.loading.reader import ShardReader

_log = logging.getLogger(__name__)


def seal_partial_shards(out: Storage, plan: Plan, units_per_shard: int) -> None:
    """Seal each shard that has decided clips which its sealed revision lacks. Raise StorageFault.

    Leave a shard whose files are damaged to the next run, which processes its units again.
    """
    state = CommittedState.read(out, units_per_shard)
    ledgers = _partial_ledgers(out) | _whole_ledgers(out)
    for shard, clips in plan.shards():
        name = state.next_revision(shard)
        units = plan.unit_names(name, clips) if name else []
        if name is None or not any(unit in ledgers for unit in units):
            continue
        try:
            if all(ledgers.get(unit) == unit.ledger for unit in units):
                seal_shard(out, name, units)
            else:
                _seal_partial_shard(out, name, units, ledgers)
        except CannotSeal as damage:
            _log.warning("%s", damage)


def _whole_ledgers(out: Storage) -> dict[UnitName, str]:
    found = ((UnitName.of(entry.path), entry) for entry in out.files(UNIT_LEDGERS))
    return {unit: entry.path for unit, entry in found if unit and entry.size}


def _partial_ledgers(out: Storage) -> dict[UnitName, str]:
    found = ((UnitName.of(entry.path), entry.path) for entry in out.files(PARTS))
    return {unit: path for unit, path in found if unit and path == unit.partial_ledger}


def _seal_partial_shard(out: Storage, name: ShardName, units: list[UnitName], ledgers: dict[UnitName, str]) -> None:
    here = {unit: ledgers[unit] for unit in units if unit in ledgers}
    if name.revision:
        here |= _copy_from_previous(out, name, [unit for unit in units if unit not in here])
    seal_partial(out, name, {unit: here[unit] for unit in units if unit in here})


def _copy_from_previous(out: Storage, name: ShardName, units: list[UnitName]) -> dict[UnitName, str]:
    """Write part and ledger of each unit without new decisions, copied from the previous revision of the shard.

    Return unit → path of its ledger.
    """
    before = ShardName(name.split, name.index, name.revision - 1)
    rows: dict[int, list[Row]] = {unit.index: [] for unit in units}
    for row in read_ledger(out, before.ledger):
        if row.unit in rows:
            rows[row.unit].append(row)
    reader = ShardReader(out, before) if any(row.kept for of_unit in rows.values() for row in of_unit) else None
    for unit in units:
        with out.atomic_writer(unit.part) as part:
            for row in rows[unit.index]:
                if row.kept and reader:
                    part.write(reader.sample(row.clip_id).to_bytes())
        write_ledger(out, unit.partial_ledger, rows[unit.index])
    return {unit: unit.partial_ledger for unit in units}
