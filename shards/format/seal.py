"""Sealing a shard: concatenate its parts, read the whole back, publish the tar with its offsets. And checking one."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import BinaryIO

from nextscene.common.hashing import sha256_of
from nextscene.common.storage import Storage
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.receipt import ABSENT, Receipt, SampleLocation
from nextscene.shards.format.sample_type import SampleType
from nextscene.shards.format.tar import END, DamagedShard, MemberGroup, group_bytes, read_groups


def seal(out: Storage, name: ShardName, parts: Sequence[str], clip_ids: Sequence[str], kind: SampleType) -> Receipt:
    """Concatenate `parts` into the shard, read it back and publish it. Without clips no tar is written.

    The shard exists once the returned receipt is published too. Sealing is deterministic: the same parts give the same
    bytes. Raise DamagedShard if the parts do not hold exactly `clip_ids` in that order, StorageFault if OUT fails.
    """
    if not clip_ids:
        for path in (name.tar, name.offsets):  # written under this name before its sources were lost
            out.delete(path)
        return Receipt.empty(name, kind.members)
    with out.atomic_writer(name.tar) as tar:
        for part in parts:
            with out.open(part) as source:
                shutil.copyfileobj(source, tar, 1 << 20)
        tar.write(END)
        receipt = read_back(tar, name, kind)
        if receipt.clip_ids != tuple(clip_ids):
            raise DamagedShard(f"{name}: its parts do not hold the {len(clip_ids)} clips of the ledger, in order")
    out.write(name.offsets, receipt.offsets)
    return receipt


def check_sealed(
    out: Storage, receipt: Receipt, kind: SampleType, look: Callable[[MemberGroup], None] | None = None
) -> None:
    """Read a sealed shard completely and compare it with its receipt and its offsets. Raise DamagedShard.

    `look` is called with each sample, in order.
    """
    name = receipt.name
    if not receipt.count:
        return
    for path in (name.tar, name.offsets):
        if out.stat(path) is None:
            raise DamagedShard(f"{name}: {path} is missing")
    with out.open(name.tar) as tar:
        found = read_back(tar, name, kind, look)
    offsets = out.read(name.offsets)
    if found != replace(receipt, ledger_sha256=""):
        raise DamagedShard(f"{name}: sha256, size, clips or their places are not those of its receipt")
    if found.offsets != offsets:
        raise DamagedShard(f"{name}: {name.offsets} does not fit the tar")


def read_back(
    tar: BinaryIO, name: ShardName, kind: SampleType, look: Callable[[MemberGroup], None] | None = None
) -> Receipt:
    """Read a tar to its end, validate each sample, and return its receipt. Raise DamagedShard."""
    tar.seek(0)
    clip_ids, places = [], []
    for group in read_groups(tar, str(name), kind.members, kind.optional):
        shape = kind.validate(group, str(name))
        crc32 = zlib.crc32(group_bytes(group.key, group.contents))
        clip_ids.append(group.key)
        sizes = tuple(len(group.contents[member]) if member in group.contents else ABSENT for member in kind.members)
        places.append(SampleLocation(group.offset, sizes, crc32, *shape))
        if look:
            look(group)
    size = tar.tell()
    return Receipt(
        name.split,
        name.index,
        name.revision,
        sha256_of(tar),
        size,
        len(places),
        kind.members,
        tuple(clip_ids),
        tuple(places),
    )
