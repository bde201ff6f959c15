"""Sealing: the parts of a shard's units become one published tar with its offsets. And looking at one again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from shards.layout import ShardName
from shards.receipt import Receipt
from shards.storage import Storage
from shards.tar import END, DamagedShard, read_samples


def seal(out: Storage, name: ShardName, parts: Sequence[str], clip_ids: Sequence[str]) -> Receipt:
    """Concatenates `parts` into the shard, reads the whole back and publishes it. No clips, no tar.

    The shard exists once the receipt that is returned is published too; sealing twice writes the same bytes twice.
    Raises DamagedShard when the parts do not hold exactly `clip_ids` in that order, StorageFault when OUT fails.
    """
    if not clip_ids:
        return Receipt(name.split, name.index, name.revision, "", 0, 0, ())
    with out.publishing(name.tar) as tar:
        for part in parts:
            with out.open(part) as source:
                shutil.copyfileobj(source, tar, 1 << 20)
        tar.write(END)
        contents = read_back(tar, name)
        if contents.clip_ids != tuple(clip_ids):
            raise DamagedShard(f"{name}: its parts do not hold the {len(clip_ids)} clips of the ledger, in order")
    out.write(name.offsets, contents.offsets)
    return contents.receipt(name)


def check_sealed(out: Storage, receipt: Receipt) -> None:
    """Reads a sealed shard whole and compares it with its receipt and its offsets. Raises DamagedShard."""
    name = receipt.name
    if not receipt.count:
        return
    for path in (name.tar, name.offsets):
        if out.stat(path) is None:
            raise DamagedShard(f"{name}: {path} is missing")
    with out.open(name.tar) as tar:
        contents = read_back(tar, name)
    offsets = out.read(name.offsets)
    if contents.receipt(name) != receipt:
        raise DamagedShard(f"{name}: sha256, size or clips are not those of its receipt")
    if contents.offsets != offsets:
        raise DamagedShard(f"{name}: {name.offsets} does not fit the tar")


@dataclass(frozen=True)
class Contents:
    """What a tar was found to hold. `offsets` are little-endian uint64: where each sample begins, then where the
    last one ends (Energon's `.tar.idx`).
    """

    sha256: str
    size: int
    clip_ids: tuple[str, ...]
    offsets: bytes

    def receipt(self, name: ShardName) -> Receipt:
        count = len(self.clip_ids)
        return Receipt(name.split, name.index, name.revision, self.sha256, self.size, count, self.clip_ids)


def read_back(tar: BinaryIO, name: ShardName) -> Contents:
    """Reads a tar to its end, each sample checked for form and its video against its record. Raises DamagedShard."""
    tar.seek(0)
    starts, clip_ids = [], []
    for placed in read_samples(tar, str(name)):
        starts.append(placed.offset)
        clip_ids.append(placed.sample.key)
        if hashlib.sha256(placed.sample.mp4).hexdigest() != placed.sample.record.mp4_sha256:
            raise DamagedShard(f"{name}: sample {placed.sample.key!r}: the video is not the one its record names")
    size = tar.tell()
    starts.append(size - len(END))
    return Contents(_sha256(tar), size, tuple(clip_ids), np.array(starts, dtype="<u8").tobytes())


def _sha256(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()
