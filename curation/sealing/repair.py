"""Repair of commits whose files are empty, short or missing: each is undone, and the run makes it again.

A disk can lose data that it had acknowledged, and older versions left empty objects when they were interrupted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from nextscene.common.errors import DamagedRecord, RunStopped
from nextscene.common.hashing import file_sha256
from nextscene.common.parquet import open_table
from nextscene.common.prefetch import prefetch_map
from nextscene.common.scratch import scratch_folder
from nextscene.common.storage import Storage
from nextscene.common.strict_json import parse_json
from nextscene.common.text import many
from nextscene.curation.ledger import Tally, read_ledger
from nextscene.curation.recorded_config import clips_of
from nextscene.curation.sealing.committed import CommittedState, read_progress
from nextscene.curation.sealing.damaged_shards import files_to_delete
from nextscene.curation.sealing.seal_shard import CannotSeal, discard_shard, seal_shard
from nextscene.curation.summary import sums_of_last_run
from nextscene.judge.spending.answer_segments import CALLS
from nextscene.judge.spending.budget_record import ACCOUNT
from nextscene.shards.format.layout import CHECKSUMS, LEDGER, MANIFEST, PARTS, SHARDS, ShardName, UnitName
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.receipt import Receipt, sealed_shards
from nextscene.shards.format.seal import read_back
from nextscene.shards.format.tar import BLOCK, END, DamagedShard

_log = logging.getLogger(__name__)

Sizes = Mapping[str, int]
"""path → bytes, as listed."""


def repair_commits(out: Storage, units_per_shard: int) -> tuple[CommittedState, Tally]:
    """Undo damaged commits, and return the state and counts of the others. Only the lock's holder may call this.

    Nothing undamaged is deleted: the source may not give it again. Raise RunStopped, with the remedy, if a sealed
    shard is damaged only in part, or if so much is gone that a disk must be missing.
    """
    folders = (SHARDS, LEDGER, PARTS)
    sizes = {entry.path: entry.size for folder in folders for entry in out.files(folder, recursive=True)}
    _refuse_lost_receipts(out, sizes)
    sealed = list(sealed_shards(out).values())
    receipts = [*prefetch_map(partial(_receipt, out), sealed)]
    _refuse_lost_tars(out, sizes, receipts)
    for name, receipt in zip(sealed, receipts, strict=True):
        if receipt is None:
            _log.warning("%s is not a receipt, and is written anew", name.receipt)
            out.delete(name.receipt)
        elif receipt:
            _mend_shard(out, sizes, receipt)
    _recover_receipts(out, sizes, units_per_shard)
    _take_back_units(out, sizes, units_per_shard)
    _drop_empty_calls(out)
    try:
        return read_progress(out, units_per_shard)
    except DamagedRecord:
        for name in CommittedState.read(out, units_per_shard).sealed.values():
            if _is_no_table(out, name.ledger):
                raise RunStopped(_restore(out, name, f"{name.ledger} is not a whole ledger")) from None
        raise


def seal_or_redo(out: Storage, name: ShardName, units: Sequence[UnitName]) -> Receipt | None:
    """Seal as `seal_shard` and return the receipt.

    If files of some units are not what was committed, undo these commits and return None: the next round of the run
    makes the units again. Raise CannotSeal for a revision after the first, or if no damaged unit is found.
    """
    try:
        return seal_shard(out, name, units)
    except CannotSeal as damage:
        if name.revision:  # the next run makes an unsealed later revision again
            raise
        faults = {unit: fault for unit in units if (fault := _fault_of_contents(out, unit))}
        if not faults:
            raise
        out.check_anchor()
        for unit, fault in faults.items():
            _take_back_unit(out, unit, fault)
        _log.info("%s", damage)
        return None


def _refuse_lost_receipts(out: Storage, sizes: Sizes) -> None:
    try:
        receipts = [shard.name.receipt for shard in Manifest.read(out).shards]
    except (FileNotFoundError, DamagedRecord):
        return
    if receipts and not any(path in sizes for path in receipts):
        raise RunStopped(
            f"{out.display_uri}: {MANIFEST} lists {many(len(receipts), 'shard')}, and none has its receipt any more"
            f" ({receipts[0]}, …); mount the disk that holds them, or delete {MANIFEST} to have them made anew"
        )


def _refuse_lost_tars(out: Storage, sizes: Sizes, receipts: Sequence[Receipt | Literal[False] | None]) -> None:
    tars = [receipt.name.tar for receipt in receipts if receipt and receipt.count]
    if len(tars) > 1 and not any(path in sizes for path in tars):  # a single tar may have been lost alone
        raise RunStopped(
            f"{out.display_uri}: {len(tars):,} shards have receipts, and none of them has its tar any more"
            f" ({tars[0]}, …); mount the disk that holds them, or delete the receipts and {MANIFEST} to have the shards"
            " made anew"
        )


def _receipt(out: Storage, name: ShardName) -> Receipt | Literal[False] | None:
    """Return the receipt; None if it is empty or cut short, False if only another version can read it."""
    try:
        parse_json(out.read(name.receipt))
        return Receipt.read(out, name)
    except DamagedRecord:
        return False
    except ValueError:
        return None


def _mend_shard(out: Storage, sizes: Sizes, receipt: Receipt) -> None:
    """Undo a shard that has lost its tar, or one without clips that has lost its ledger: the run makes it again.

    Write damaged offsets again. Raise RunStopped for other damage.
    """
    name = receipt.name
    tar, ledger = sizes.get(name.tar), sizes.get(name.ledger)
    if receipt.count and not tar:
        return _take_back_shard(out, name, f"{name.tar} {_has(tar)}")
    if not ledger and not receipt.count:
        return _take_back_shard(out, name, f"{name.ledger} {_has(ledger)}")
    if not ledger:
        raise RunStopped(_restore(out, name, f"{name.ledger} {_has(ledger)}"))
    if receipt.count and tar != receipt.bytes:
        raise RunStopped(
            _restore(out, name, f"{name.tar} {_has(tar)}, and had {receipt.bytes:,} bytes as it was sealed")
        )
    if receipt.count and (found := sizes.get(name.offsets)) != len(receipt.offsets):
        _log.warning("%s is written again: it %s", name.offsets, _has(found))
        out.write(name.offsets, receipt.offsets)
    return None


def _restore(out: Storage, name: ShardName, fault: str) -> str:
    *others, last = files_to_delete(out, [name])
    files = f"{', '.join(others)} and {last}" if others else last
    return (
        f"{out.display_uri}: {fault}; restore it from a copy, or delete {files} to have the shard made anew from its"
        " source, if that still has all of it"
    )


def _recover_receipts(out: Storage, sizes: Sizes, units_per_shard: int) -> None:
    """Write the lost receipts of shards whose ledger and tar are whole: such a shard was sealed.

    Skip shards that still have committed units, because these will be sealed.
    """
    state = CommittedState.read(out, units_per_shard)
    unfinished = {(unit.split, unit.index // units_per_shard) for unit in state.committed}
    sums = sums_of_last_run(out)
    names = {name for path in sizes if (name := ShardName.of(path)) and path == name.ledger}
    for name in sorted(names, reverse=True):
        if (name.split, name.index) in state.sealed.keys() | unfinished:
            continue
        if receipt := _receipt_of_files(out, name, sums.get(name.ledger, "")):
            _log.warning("%s was lost; tar and ledger are whole and give it again", name.receipt)
            if receipt.checksums[name.receipt] != sums.get(name.receipt):
                out.delete(CHECKSUMS)
            out.write(name.offsets, receipt.offsets)
            receipt.publish(out)
            unfinished.add((name.split, name.index))


def _receipt_of_files(out: Storage, name: ShardName, ledger_sha256: str) -> Receipt | None:
    """Return the receipt that tar and ledger prove; None if they do not match, or if the ledger keeps no clip.

    `ledger_sha256` is the recorded hash of the ledger as it was written, "" if none is known. A shard without clips is
    simply made again.
    """
    try:
        if ledger_sha256 not in ("", file_sha256(out, name.ledger)):
            return None
        kept = tuple(row.clip_id for row in read_ledger(out, name.ledger) if row.kept)
        if not kept:
            return None
        with out.open(name.tar) as tar:
            receipt = read_back(tar, name, clips_of(out))
    except (DamagedShard, DamagedRecord, FileNotFoundError):
        return None
    return replace(receipt, ledger_sha256=ledger_sha256) if receipt.clip_ids == kept else None


def _has(size: int | None) -> str:
    return "is missing" if size is None else f"has {size:,} bytes"


def _take_back_shard(out: Storage, name: ShardName, fault: str) -> None:
    retried = "; ask for its `retry` once more" if name.revision else ""
    _log.warning("%s is made anew, from stored answers where they were paid for: %s%s", name, fault, retried)
    out.delete(name.receipt)  # first: without its receipt the shard is not sealed
    discard_shard(out, name)


def _take_back_units(out: Storage, sizes: Sizes, units_per_shard: int) -> None:
    sealed = sealed_shards(out)
    for path in sizes:
        unit = UnitName.of(path)
        if (
            unit
            and path == unit.ledger
            and (unit.split, unit.index // units_per_shard) not in sealed
            and (fault := _fault(out, sizes, unit))
        ):
            _take_back_unit(out, unit, fault)


def _take_back_unit(out: Storage, unit: UnitName, fault: str) -> None:
    _log.warning("unit %s is done anew: %s", unit, fault)
    out.delete(unit.ledger)  # first: without its ledger the unit is not committed
    out.delete(unit.part)


def _fault(out: Storage, sizes: Sizes, unit: UnitName) -> str:
    """Return why a committed unit must be made again, by its ledger and the size of its part; "" if it need not."""
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
    """Return why a committed unit must be made again, after reading its whole part; "" if it need not."""
    try:
        kept = [row.clip_id for row in read_ledger(out, unit.ledger) if row.kept]
        with scratch_folder() as folder:
            part = folder / "part.tar"
            out.copy_to(part, unit.part)
            with part.open("r+b") as tar:
                tar.seek(0, os.SEEK_END)
                tar.write(END)
                found = read_back(tar, ShardName(unit.split, unit.index), clips_of(out)).clip_ids
    except (DamagedShard, DamagedRecord, FileNotFoundError) as damage:
        return f"{damage}"
    return "" if found == tuple(kept) else f"{unit.part} does not hold the clips of {unit.ledger}"


def _is_no_table(out: Storage, path: str) -> bool:
    try:
        open_table(out, path)
    except DamagedRecord:
        return True
    return False


def _drop_empty_calls(out: Storage) -> None:
    """Delete empty files of answers in an object store.

    Only an interrupted upload leaves such a file, and no answer in it can have been used.
    """
    if out.is_local:
        return
    for entry in out.files(CALLS, recursive=True):
        if not entry.size and entry.path != ACCOUNT:
            _log.warning(
                "%s holds nothing: its upload was interrupted; what it may have cost counts as lost", entry.path
            )
            out.delete(entry.path)
