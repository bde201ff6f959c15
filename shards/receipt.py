"""What vouches for the shards: a receipt beside each, and the manifest that lists them. Readers open the manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from shards.layout import MANIFEST, SHARDS, ShardName
from shards.sample import SCHEMA_VERSION
from shards.storage import Storage


class DamagedRecord(ValueError):
    """A receipt, manifest or ledger that cannot be read. The message names it."""


@dataclass(frozen=True)
class Receipt:
    """A sealed shard. `bytes` and `sha256` are of its tar; a shard without kept clips has no tar, 0 and ""."""

    split: str
    index: int
    revision: int
    sha256: str
    bytes: int
    count: int
    clip_ids: tuple[str, ...]

    @property
    def name(self) -> ShardName:
        return ShardName(self.split, self.index, self.revision)

    def publish(self, out: Storage) -> None:
        out.write(self.name.receipt, _json(asdict(self)))

    @staticmethod
    def read(out: Storage, name: ShardName) -> Receipt:
        """Raises FileNotFoundError, or DamagedRecord for a receipt that is not this shard's."""
        try:
            value = json.loads(out.read(name.receipt))
            receipt = Receipt(**{**value, "clip_ids": tuple(value["clip_ids"])})
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedRecord(f"{name.receipt} is not a receipt: {error}") from error
        if receipt.name != name:
            raise DamagedRecord(f"{name.receipt} is the receipt of {receipt.name}")
        if receipt.count != len(receipt.clip_ids):
            raise DamagedRecord(f"{name.receipt} counts {receipt.count} clips and names {len(receipt.clip_ids)}")
        return receipt


def sealed_shards(out: Storage) -> dict[tuple[str, int], ShardName]:
    """The newest revision of each shard that has a receipt, by (split, index)."""
    newest: dict[tuple[str, int], ShardName] = {}
    for entry in out.files(SHARDS, recursive=True):
        name = ShardName.of(entry.path)
        if name is not None and entry.path == name.receipt:
            place = (name.split, name.index)
            newest[place] = max(name, newest.get(place, name))
    return dict(sorted(newest.items()))


@dataclass(frozen=True)
class ManifestShard:
    """One tar of the dataset, as readers need it."""

    path: str
    split: str
    sha256: str
    bytes: int
    count: int


@dataclass(frozen=True)
class Manifest:
    """The tars that make up the dataset, in order. `complete` says whether every planned shard is sealed."""

    fingerprint: str
    complete: bool
    shards: tuple[ManifestShard, ...]
    schema_version: int = SCHEMA_VERSION

    @staticmethod
    def of(receipts: Iterable[Receipt], fingerprint: str, complete: bool) -> Manifest:
        shards = [
            ManifestShard(r.name.tar, r.split, r.sha256, r.bytes, r.count)
            for r in sorted(receipts, key=lambda r: r.name)
            if r.count
        ]
        return Manifest(fingerprint, complete, tuple(shards))

    def publish(self, out: Storage) -> None:
        out.write(MANIFEST, _json(asdict(self)))

    @staticmethod
    def read(out: Storage) -> Manifest:
        """Raises FileNotFoundError, or DamagedRecord for a manifest this version cannot read."""
        try:
            value = json.loads(out.read(MANIFEST))
            version = value["schema_version"]
            if version == SCHEMA_VERSION:
                shards = tuple(ManifestShard(**shard) for shard in value["shards"])
                return Manifest(value["fingerprint"], value["complete"], shards)
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedRecord(f"{MANIFEST} is not a manifest: {error}") from error
        raise DamagedRecord(f"{MANIFEST} has schema version {version}, not {SCHEMA_VERSION}")


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
