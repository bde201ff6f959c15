"""Proving a dataset: every byte against its receipt, every row against the plan, every sum against the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from curation.config import Config
from curation.ledger import Row, read_ledger
from curation.plan import Plan, PlannedClip
from curation.progress import Progress
from curation.setup import Recorded, file_sha256
from curation.state import State
from shards.index import check_index
from shards.layout import LEDGER, MANIFEST, PLAN, SHARDS, UNIT_LEDGERS, ShardName
from shards.receipt import DamagedRecord, Manifest, Receipt
from shards.seal import check_sealed
from shards.storage import Storage
from shards.tar import DamagedShard

_PLANNED_COLUMNS = ("position", "clip_id", "split", "unit", "shard", "start_ms", "end_ms", "caption")


def verify(out: Storage, recorded: Recorded, config: Config, progress: Progress) -> Iterator[str]:
    """Each thing that is wrong, as one line that names it; nothing if the dataset is whole.

    Reads every shard; `progress` is told of each that was looked at.
    """
    try:
        if file_sha256(out, PLAN) != recorded.plan_sha256:
            yield f"{PLAN} was changed: its sha256 is not the one in config.toml"
            return
    except FileNotFoundError:
        yield f"{PLAN} is missing"
        return
    plan, state = Plan(out, config), State.read(out, config.units_per_shard)
    progress.begin(plan.clips, 0)
    receipts: list[Receipt] = []
    names: list[ShardName] = []
    for planned, clips in plan.shards():
        name = state.sealed.get((planned.split, planned.index))
        if name is None:
            yield f"{planned} is not sealed; run the same command again to finish it"
        else:
            names.append(name)
            receipt, problems = _shard(out, plan, name)
            yield from problems
            if receipt:
                receipts.append(replace(receipt, clip_ids=(), places=()))
        progress.advance(clips)
        progress.tick()
    yield from _manifest(out, receipts, recorded, state.complete(plan))
    yield from _strangers(out, names)


def _shard(out: Storage, plan: Plan, name: ShardName) -> tuple[Receipt | None, list[str]]:
    problems: list[str] = []
    receipt: Receipt | None = None
    rows: list[Row] = []
    try:
        receipt = Receipt.read(out, name)
        check_sealed(out, receipt)
    except (DamagedShard, DamagedRecord) as damage:
        problems.append(str(damage))
    try:
        rows = read_ledger(out, name.ledger)
    except FileNotFoundError:
        problems.append(f"{name.ledger} is missing")
    except DamagedRecord as damage:
        problems.append(str(damage))
    else:
        problems += _rows(name, rows, [clip for unit in plan.units(name) for clip in unit.clips])
        if receipt and [row.clip_id for row in rows if row.kept] != list(receipt.clip_ids):
            problems.append(f"{name}: the clips kept by the ledger are not those of the receipt")
    return receipt, problems


def _rows(name: ShardName, rows: list[Row], clips: list[PlannedClip]) -> Iterator[str]:
    found, wanted = {row.clip_id for row in rows}, {clip.clip_id for clip in clips}
    for clip_id in sorted(wanted - found):
        yield f"{name.ledger}: no row for clip {clip_id}"
    for clip_id in sorted(found - wanted):
        yield f"{name.ledger}: a row for clip {clip_id}, which is not planned there"
    if len(rows) != len(found):
        yield f"{name.ledger}: a clip has two rows"
    by_id = {clip.clip_id: clip for clip in clips}
    for row in rows:
        planned = by_id.get(row.clip_id)
        captioned = planned is not None and planned.caption != ""
        if planned and _key(row, captioned) != _key(planned, captioned):
            yield f"{name.ledger}: the row of clip {row.clip_id} does not fit the plan"


def _key(row: Row | PlannedClip, captioned: bool) -> tuple[Any, ...]:
    return tuple(getattr(row, column) for column in _PLANNED_COLUMNS if captioned or column != "caption")


def _manifest(out: Storage, receipts: list[Receipt], recorded: Recorded, complete: bool) -> Iterator[str]:
    try:
        manifest = Manifest.read(out)
    except FileNotFoundError:
        yield f"{MANIFEST} is missing; run the same command again to write it"
        return
    except DamagedRecord as damage:
        yield str(damage)
        return
    if manifest != Manifest.of(receipts, recorded.fingerprint, complete):
        yield f"{MANIFEST} does not list the sealed shards as their receipts do"
        return
    for split in manifest.splits:
        try:
            check_index(out, manifest, split)
        except DamagedRecord as damage:
            yield str(damage)


def _strangers(out: Storage, names: list[ShardName]) -> Iterator[str]:
    """Files where only the shards and ledgers of the plan should be."""
    known = {path for name in names for path in (name.tar, name.offsets, name.receipt, name.ledger)}
    for folder in (SHARDS, LEDGER):
        for entry in out.files(folder, recursive=True):
            if entry.path not in known and not entry.path.startswith(UNIT_LEDGERS):
                yield f"{entry.path} belongs to no planned shard"
