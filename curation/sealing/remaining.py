"""The remaining work: shards that are not sealed, and shards that a retry opens again.

Tested in tests/curation/run/test_resume.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nextscene.common.storage import Storage
from nextscene.curation.ledger import read_ledger
from nextscene.curation.plan import Plan, Unit
from nextscene.curation.sealing.committed import CommittedState
from nextscene.curation.sealing.retry import OpenRetry
from nextscene.shards.format.layout import ShardName, UnitName


@dataclass
class ShardWork:
    """A shard to be finished at its revision: the units still `todo`, and all `units` that it consists of.

    If `others` is True, it has more units to be done, which this run leaves to the next run.
    """

    name: ShardName
    todo: list[Unit]
    units: list[UnitName]
    others: bool = False

    @property
    def is_done(self) -> bool:
        return not self.todo and not self.others


@dataclass(frozen=True)
class WorkLeft:
    """The work of a run, given a state: all that is left, at most `stop_after` clips of it, or the work of a retry."""

    state: CommittedState
    stop_after: int | None = None
    retry: OpenRetry | None = None

    def shards(self, plan: Plan, out: Storage) -> Iterator[ShardWork]:
        if self.retry:
            return retried_shards(plan, self.state, out, self.retry)
        work = remaining(plan, self.state, out)
        return first_clips(work, self.stop_after) if self.stop_after else work


def remaining(plan: Plan, state: CommittedState, out: Storage) -> Iterator[ShardWork]:
    """Yield the shards that are not sealed, or only in part, in the order of the plan, reading one at a time."""
    for shard, clips in plan.shards():
        name = state.next_revision(shard)
        if name is not None:
            yield _open_units(plan, state, name, clips, _undecided(plan, state, out, shard))


def first_clips(work: Iterator[ShardWork], clips: int) -> Iterator[ShardWork]:
    """Yield the work on the first `clips` clips only."""
    for shard in work:
        begun: list[Unit] = []
        for unit in shard.todo if clips else ():
            undecided = [clip.clip_id for clip in unit.clips if unit.redoes(clip)]
            if clips:
                begun.append(replace(unit, deferred=frozenset(undecided[clips:])))
            clips -= min(clips, len(undecided))
        yield replace(shard, todo=begun, others=len(begun) < len(shard.todo))
        if not clips:
            return


def _undecided(plan: Plan, state: CommittedState, out: Storage, shard: ShardName) -> frozenset[str] | None:
    """Return the clips that a shard was sealed without; None if it was not sealed."""
    sealed = state.sealed.get((shard.split, shard.index))
    if sealed is None:
        return None
    decided = {row.clip_id for row in read_ledger(out, sealed.ledger)}
    return frozenset(clip.clip_id for unit in plan.units(shard) for clip in unit.clips) - decided


def retried_shards(plan: Plan, state: CommittedState, out: Storage, retry: OpenRetry) -> Iterator[ShardWork]:
    """Yield the shards that the retry has not sealed yet, under their next revision."""
    for shard, clips in plan.shards():
        sealed = state.sealed.get((shard.split, shard.index))
        if sealed is None or not retry.is_pending(sealed):
            continue
        redo = frozenset(row.clip_id for row in read_ledger(out, sealed.ledger) if row.outcome in retry.outcomes)
        if redo:
            yield _open_units(plan, state, replace(sealed, revision=sealed.revision + 1), clips, redo)


def count_retried(state: CommittedState, out: Storage, retry: OpenRetry) -> tuple[int, int]:
    """Return how many clips `retried_shards` processes again, and in how many shards, if every shard is sealed."""
    left = [shard for shard in state.sealed.values() if retry.is_pending(shard)]
    counts = [sum(row.outcome in retry.outcomes for row in read_ledger(out, shard.ledger)) for shard in left]
    return sum(counts), sum(count > 0 for count in counts)


def _open_units(
    plan: Plan, state: CommittedState, shard: ShardName, clips: int, redo: frozenset[str] | None
) -> ShardWork:
    names = plan.unit_names(shard, clips)
    if state.committed.issuperset(names):  # then the plan need not be read
        return ShardWork(shard, [], names)
    units = [replace(unit, redo=redo) for unit in plan.units(shard) if unit.name not in state.committed]
    return ShardWork(shard, units, names)
