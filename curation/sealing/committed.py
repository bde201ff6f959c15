"""The progress of a dataset, read from the files that commit it: receipts for shards, ledgers for units.

Tested in tests/curation/run/test_resume.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from nextscene.common.consistent_read import read_consistently
from nextscene.common.prefetch import prefetch_map
from nextscene.common.storage import Storage
from nextscene.curation.ledger import Row, Tally, read_ledger
from nextscene.curation.plan import Plan
from nextscene.curation.sealing.seal_shard import discard_shard
from nextscene.curation.shared_out import sweep_probes
from nextscene.curation.sources.archive_index import ArchiveIndex
from nextscene.shards.format.layout import CRASHES, LEDGER, PARTS, SHARDS, UNIT_LEDGERS, ShardName, UnitName, owns
from nextscene.shards.format.receipt import Receipt, sealed_and_partial


@dataclass(frozen=True)
class CommittedState:
    """The newest sealed revision of each shard, and the committed units of shards that are not sealed yet.

    A `partial` shard has undecided clips: once they are decided, it is sealed again as its next revision.
    """

    sealed: dict[tuple[str, int], ShardName]
    committed: frozenset[UnitName]
    partial: frozenset[ShardName] = frozenset()

    @staticmethod
    def read(out: Storage, units_per_shard: int) -> CommittedState:
        sealed, partial_ones = sealed_and_partial(out)
        units = (UnitName.of(entry.path) for entry in out.files(UNIT_LEDGERS) if entry.size)
        committed = (unit for unit in units if unit and not _is_obsolete(unit, sealed, units_per_shard))
        return CommittedState(sealed, frozenset(committed), partial_ones)

    def ledgers(self, out: Storage) -> Iterator[list[Row]]:
        """Yield the rows of all committed clips, one ledger file at a time."""
        paths = [shard.ledger for shard in self.sealed.values()] + [unit.ledger for unit in sorted(self.committed)]
        return prefetch_map(partial(read_ledger, out), paths)

    def receipts(self, out: Storage) -> Iterator[Receipt]:
        return prefetch_map(partial(Receipt.read, out), self.sealed.values())

    def complete(self, plan: Plan) -> bool:
        return not self.partial and all((shard.split, shard.index) in self.sealed for shard, _ in plan.shards())

    def next_revision(self, shard: ShardName) -> ShardName | None:
        """Return the name under which a planned shard is to be sealed; None if it is sealed with all its clips."""
        sealed = self.sealed.get((shard.split, shard.index))
        if sealed is None:
            return shard
        return replace(sealed, revision=sealed.revision + 1) if sealed in self.partial else None


def read_progress(out: Storage, units_per_shard: int) -> tuple[CommittedState, Tally]:
    """Return the state and the counts of all committed clips. Raise FileNotFoundError if a ledger is missing.

    Read again if files are gone and the list has changed: a run in progress, or a worker that outlived its run, may
    seal a shard between the listing and the reading.
    """
    return read_consistently(partial(CommittedState.read, out, units_per_shard), partial(_with_tally, out))


def _with_tally(out: Storage, state: CommittedState) -> tuple[CommittedState, Tally]:
    tally = Tally.empty()
    for rows in state.ledgers(out):
        tally.add(rows)
    return state, tally


def clean_up(out: Storage, state: CommittedState, units_per_shard: int) -> None:
    """Finish the deletions that a killed run began, and delete its uncommitted work.

    That is its drafts and uploads, listings of archives that the plan was made from, the partial ledgers of units, and
    the unsealed files of a retry. Only the lock's holder may call this.
    """
    out.remove_drafts(owns)
    out.abort_uploads(owns)
    sweep_probes(out)
    ArchiveIndex(out).clear()
    for folder in (UNIT_LEDGERS, PARTS, CRASHES):
        for entry in out.files(folder):
            unit = UnitName.of(entry.path)
            if unit and (entry.path == unit.partial_ledger or _is_obsolete(unit, state.sealed, units_per_shard)):
                out.delete(entry.path)
    for folder in (SHARDS, LEDGER):
        for entry in out.files(folder, recursive=True):
            shard = ShardName.of(entry.path)
            if shard is None or entry.path not in shard.files:
                continue
            unsealed = entry.path == shard.partial and out.stat(shard.receipt) is None
            if unsealed or shard.revision > state.sealed.get((shard.split, shard.index), shard).revision:
                out.delete(entry.path)


def discard_superseded(out: Storage, state: CommittedState) -> None:
    """Delete the revisions that newer ones have replaced. To be called once the manifest names the newer ones."""
    for entry in out.files(SHARDS, recursive=True):
        name = ShardName.of(entry.path)
        if name and entry.path == name.receipt and name < state.sealed.get((name.split, name.index), name):
            discard_shard(out, name)


def _is_obsolete(unit: UnitName, sealed: dict[tuple[str, int], ShardName], units_per_shard: int) -> bool:
    """Return whether the unit's shard is sealed.

    The unit's own files then no longer count, so an unsealed retry of the shard starts again.
    """
    return (unit.split, unit.index // units_per_shard) in sealed
