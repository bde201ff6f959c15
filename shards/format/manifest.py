"""The manifest (`manifest.json`): the list of a dataset's tars, which readers open first.

Tested in tests/shards/format/test_receipt.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from operator import methodcaller

from nextscene.common.errors import DamagedRecord
from nextscene.common.prefetch import prefetch_map
from nextscene.common.storage import Storage
from nextscene.common.strict_json import check_types, parse_json
from nextscene.shards.format.layout import MANIFEST, ShardName
from nextscene.shards.format.receipt import Receipt, canonical_json
from nextscene.shards.format.sample import CLIP_TYPES, SCHEMA_VERSION


@dataclass(frozen=True)
class ManifestShard:
    """One tar of the dataset, with what readers need to know of it."""

    path: str
    split: str
    sha256: str
    bytes: int
    count: int

    @property
    def name(self) -> ShardName:
        """Return the name of the shard. Raise DamagedRecord for a path that is not a shard's."""
        name = ShardName.of(self.path)
        if name is None or self.path != name.tar:
            raise DamagedRecord(f"{MANIFEST} lists {self.path!r}, which is not where a shard can be")
        return name

    def receipt(self, out: Storage) -> Receipt:
        """Return the receipt of the shard. Raise DamagedRecord if it is missing, or that of another tar."""
        try:
            receipt = Receipt.read(out, self.name)
        except FileNotFoundError:
            receipt = Receipt.empty(self.name, ())
        if (receipt.sha256, receipt.bytes, receipt.count) != (self.sha256, self.bytes, self.count):
            raise DamagedRecord(
                f"{MANIFEST} lists {self.path}, whose receipt is missing or of another tar; verify the dataset"
            )
        return receipt


def receipts_of(out: Storage, shards: Iterable[ManifestShard]) -> Iterator[Receipt]:
    """Yield the receipts of the shards, prefetched a few at a time. Raise DamagedRecord for a wrong one."""
    return prefetch_map(methodcaller("receipt", out), shards)


@dataclass(frozen=True)
class Manifest:
    """The tars of the dataset, in order. `complete` says whether all planned shards are sealed and not partial.

    `schema_version` is that of the dataset's clips.
    """

    fingerprint: str
    complete: bool
    shards: tuple[ManifestShard, ...]
    schema_version: int = SCHEMA_VERSION

    @staticmethod
    def of(
        receipts: Iterable[Receipt], fingerprint: str, complete: bool, schema_version: int = SCHEMA_VERSION
    ) -> Manifest:
        """Return the manifest of a stream of receipts. It holds one at a time: those of a million clips fill the
        memory.
        """
        named = ((r.name, ManifestShard(r.name.tar, r.split, r.sha256, r.bytes, r.count)) for r in receipts if r.count)
        shards = tuple(shard for _, shard in sorted(named, key=lambda one: one[0]))
        return Manifest(fingerprint, complete, shards, schema_version)

    @property
    def splits(self) -> list[str]:
        """Return the splits that have a sample."""
        return list(dict.fromkeys(shard.split for shard in self.shards))

    def of_split(self, split: str) -> tuple[ManifestShard, ...]:
        return tuple(shard for shard in self.shards if shard.split == split)

    def to_bytes(self) -> bytes:
        return canonical_json(asdict(self))

    def publish(self, out: Storage) -> None:
        out.write_if_changed(MANIFEST, self.to_bytes())

    @staticmethod
    def read(out: Storage) -> Manifest:
        """Return the manifest. Raise FileNotFoundError, or DamagedRecord if this version cannot read it."""
        try:
            value = parse_json(out.read(MANIFEST))
            version = value.get("schema_version") if isinstance(value, dict) else None
            if type(version) is int and version not in CLIP_TYPES:
                known = " or ".join(map(str, CLIP_TYPES))
                raise DamagedRecord(
                    f"{MANIFEST} in {out.display_uri} has schema version {version}, not {known}; read it"
                    " with the version of this package that wrote it, or build again into another folder"
                )
            fields = check_types(value, _MANIFEST)
            shards = tuple(ManifestShard(**check_types(shard, _MANIFEST_SHARD)) for shard in fields["shards"])
        except DamagedRecord:
            raise
        except ValueError as error:
            raise DamagedRecord(f"{MANIFEST} is not a manifest: {error}") from error
        for shard in shards:
            if shard.name.split != shard.split or shard.count < 1:
                raise DamagedRecord(f"{MANIFEST} lists {shard.path} in the split {shard.split!r} with {shard.count}")
        return Manifest(fields["fingerprint"], fields["complete"], shards, fields["schema_version"])


_MANIFEST = {"schema_version": int, "fingerprint": str, "complete": bool, "shards": list}
_MANIFEST_SHARD = {"path": str, "split": str, "sha256": str, "bytes": int, "count": int}
