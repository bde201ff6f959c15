"""Commits whose files are empty, short or gone: taken back and told, one line each, so that the run makes them anew.

A disk can lose what it had acknowledged, and older versions left empty objects behind when they were interrupted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial

from curation.errors import RunStopped
from curation.ledger import Tally, read_ledger
from curation.sealing import CannotSeal, discard_shard, seal_shard
from curation.state import State, take_stock
from judge.account import ACCOUNT
from judge.store import CALLS
from shards.ahead import ahead
from shards.layout import LEDGER, MANIFEST, PARTS, SHARDS, UNIT_LEDGERS, ShardName, UnitName
from shards.parquet import open_table
from shards.receipt import DamagedRecord, Manifest, Receipt, sealed_shards
from shards.sample import CLIPS
from shards.scratch import scratch_folder
from shards.seal import read_back
from shards.storage import Storage
from shards.tar import BLOCK, END, DamagedShard
from shards.untrusted import json_of

_log = logging.getLogger(__name__)

Sizes = Mapping[str, int]
"""path → bytes, as listed."""


def heal(out: Storage, units_per_shard: int) -> tuple[State, Tally]:
    """The state and counts of what is committed and whole. Only the lock's holder may call this.

    Raises RunStopped where so much is gone that a disk must be missing.
    """
    folders = (SHARDS, LEDGER, PARTS)
    sizes = {entry.path: entry.size for folder in folders for entry in out.files(folder, recursive=True)}
    _refuse_lost_disk(out, sizes)
    sealed = list(sealed_shards(out).values())
    for name, fault in zip(sealed, ahead(partial(_fault_of_shard, out, sizes), sealed), strict=True):
        if fault:
            _take_back_shard(out, name, fault)
    _take_back_units(out, sizes, units_per_shard)
    _drop_empty_calls(out)
    try:
        return take_stock(out, units_per_shard)
    except DamagedRecord:
        if not _take_back_unreadable(out, units_per_shard):
            raise
    return take_stock(out, units_per_shard)


def seal_or_take_back(out: Storage, name: ShardName, units: Sequence[UnitName]) -> Receipt | None:
    """As `seal_shard`; None where the files of some of the units are not what was committed: they are to be redone."""
    try:
        return seal_shard(out, name, units)
    except CannotSeal as damage:
        if name.revision:  # a retry begins anew by itself
            raise
        faults = {unit: fault for unit in units if (fault := _fault_of_contents(out, unit))}
        if not faults:
            raise
        out.check_anchor()
        for unit, fault in faults.items():
            _take_back_unit(out, unit, fault)
        _log.info("%s", damage)
        return None


def _refuse_lost_disk(out: Storage, sizes: Sizes) -> None:
    try:
        listed = [shard.name for shard in Manifest.read(out).shards]
    except (FileNotFoundError, DamagedRecord):
        return
    kinds = {"receipt": [name.receipt for name in listed]}
    if len(listed) > 1:  # of one shard, each file may have been lost by itself
        kinds |= {"tar": [name.tar for name in listed], "ledger": [name.ledger for name in listed]}
    for kind, paths in kinds.items():
        if paths and not any(path in sizes for path in paths):
            raise RunStopped(
                f"{out.shown}: {MANIFEST} lists {len(paths):,} shards, and none of them has its {kind} any more"
                f" ({paths[0]}, …); mount the disk that holds them, or delete {MANIFEST} to have them made anew"
            )


def _fault_of_shard(out: Storage, sizes: Sizes, name: ShardName) -> str:
    """Why a sealed shard is to be made anew; "" for one that is there, or whose receipt is of another version."""
    try:
        json_of(out.read(name.receipt))
        receipt = Receipt.read(out, name)
    except DamagedRecord:
        return ""
    except ValueError as error:
        return f"{name.receipt} is not a receipt ({error})"
    if not sizes.get(name.ledger):
        return f"{name.ledger} is {'empty' if name.ledger in sizes else 'missing'}"
    if not receipt.count:
        return ""
    if (found := sizes.get(name.tar)) != receipt.bytes:
        return f"{name.tar} {_has(found)}, and had {receipt.bytes:,} bytes as it was sealed"
    if (found := sizes.get(name.offsets)) != len(receipt.offsets):
        _log.warning("%s is written again: it %s", name.offsets, _has(found))
        out.write(name.offsets, receipt.offsets)
    return ""


def _has(size: int | None) -> str:
    return "is missing" if size is None else f"has {size:,} bytes"


def _take_back_shard(out: Storage, name: ShardName, fault: str) -> None:
    retried = "; ask for its --retry once more" if name.revision else ""
    _log.warning("%s is made anew, from stored answers where they were paid for: %s%s", name, fault, retried)
    out.delete(name.receipt)  # first: without it the shard is not sealed
    discard_shard(out, name)


def _take_back_units(out: Storage, sizes: Sizes, units_per_shard: int) -> None:
    sealed = sealed_shards(out)
    for path in sizes:
        unit = UnitName.of(path) if path.startswith(f"{UNIT_LEDGERS}/") else None
        if unit and (unit.split, unit.index // units_per_shard) not in sealed and (fault := _fault(out, sizes, unit)):
            _take_back_unit(out, unit, fault)


def _take_back_unit(out: Storage, unit: UnitName, fault: str) -> None:
    _log.warning("unit %s is done anew: %s", unit, fault)
    out.delete(unit.ledger)  # first: without it the unit is not committed
    out.delete(unit.part)


def _fault(out: Storage, sizes: Sizes, unit: UnitName) -> str:
    """Why a committed unit is to be done anew, as far as its ledger and the size of its part tell."""
    try:
        if _is_no_table(out, unit.ledger):
            return f"{unit.ledger} is not a whole ledger"
        least = sum(row.bytes for row in read_ledger(out, unit.ledger) if row.kept)
    except FileNotFoundError:
        return ""  # sealed since it was listed, by a worker that outlived its run
    found = sizes.get(unit.part)
    if found is None or found < least or found % BLOCK:
        return f"{unit.part} {_has(found)}, and its clips have {least:,}"
    return ""


def _fault_of_contents(out: Storage, unit: UnitName) -> str:
    """Likewise, after its part has been read whole."""
    try:
        kept = [row.clip_id for row in read_ledger(out, unit.ledger) if row.kept]
        with scratch_folder() as folder:
            part = folder / "part.tar"
            out.copy_to(part, unit.part)
            with part.open("r+b") as tar:
                tar.seek(0, os.SEEK_END)
                tar.write(END)
                found = read_back(tar, ShardName(unit.split, unit.index), CLIPS).clip_ids
    except (DamagedShard, DamagedRecord, FileNotFoundError) as damage:
        return f"{damage}"
    return "" if found == tuple(kept) else f"{unit.part} does not hold the clips of {unit.ledger}"


def _is_no_table(out: Storage, path: str) -> bool:
    try:
        open_table(out, path)
    except DamagedRecord:
        return True
    return False


def _take_back_unreadable(out: Storage, units_per_shard: int) -> bool:
    """Takes back what has a ledger that is not Parquet, which only reading shows. Whether there was any."""
    state = State.read(out, units_per_shard)
    shards = [name for name in state.sealed.values() if _is_no_table(out, name.ledger)]
    for name in shards:
        _take_back_shard(out, name, f"{name.ledger} is not a whole ledger")
    return bool(shards)


def _drop_empty_calls(out: Storage) -> None:
    """An empty file of answers can come from an interrupted upload alone, and then nobody has acted on it."""
    if out.is_local:
        return
    for entry in out.files(CALLS, recursive=True):
        if not entry.size and entry.path != ACCOUNT:
            _log.warning(
                "%s holds nothing: its upload was interrupted; what it may have cost counts as lost", entry.path
            )
            out.delete(entry.path)
