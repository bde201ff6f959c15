"""What is left to do: the shards that are not sealed, and those that a retry opens again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from curation.ledger import read_ledger
from curation.plan import Plan, Unit
from curation.state import State
from shards.layout import ShardName, UnitName
from shards.storage import Storage


@dataclass
class ShardWork:
    """A shard to be finished: the units still to be done, and all that it consists of, at its revision."""

    name: ShardName
    todo: list[Unit]
    units: list[UnitName]


def remaining(plan: Plan, state: State) -> Iterator[ShardWork]:
    """The shards without a receipt, in the order of the plan, read one at a time."""
    for shard, clips in plan.shards():
        if (shard.split, shard.index) not in state.sealed:
            yield _open_units(plan, state, shard, clips, None)


def to_retry(plan: Plan, state: State, out: Storage, outcomes: frozenset[str]) -> Iterator[ShardWork]:
    """The sealed shards that hold a clip with one of `outcomes`, under their next revision."""
    for shard, clips in plan.shards():
        sealed = state.sealed.get((shard.split, shard.index))
        if sealed is None:
            continue
        redo = frozenset(row.clip_id for row in read_ledger(out, sealed.ledger) if row.outcome in outcomes)
        if redo:
            yield _open_units(plan, state, replace(sealed, revision=sealed.revision + 1), clips, redo)


def _open_units(plan: Plan, state: State, shard: ShardName, clips: int, redo: frozenset[str] | None) -> ShardWork:
    names = plan.unit_names(shard, clips)
    if state.committed.issuperset(names):  # so that the plan need not be read
        return ShardWork(shard, [], names)
    units = [replace(unit, redo=redo) for unit in plan.units(shard) if unit.name not in state.committed]
    return ShardWork(shard, units, names)
