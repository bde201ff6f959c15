"""Random access to the samples of sealed shards: each is one ranged read, and each read is checked."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from nextscene.common.errors import StoppedError, UsageError
from nextscene.common.storage import Storage
from nextscene.shards.format.dataset_hints import explain_missing_dataset
from nextscene.shards.format.index import Index
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.receipt import Receipt, SampleLocation
from nextscene.shards.format.sample import Sample
from nextscene.shards.format.tar import DamagedShard, MemberGroup, group_bytes


class DatasetNotFound(UsageError, ValueError):
    """There is no dataset, or no such split of one, where one was looked for."""


class DatasetChanged(StoppedError):
    """Shards were made anew and replaced since the dataset was opened. Opened again, it is whole."""


class MissingShard(DamagedShard):
    """A tar that is not there."""


def read_group(
    out: Storage, shard: ShardName, key: str, place: SampleLocation, members: Sequence[str], checksums: bool = True
) -> MemberGroup:
    """One sample of a tar, from where its index says it is. Raise DamagedShard, naming shard and sample.

    Headers, names, order and sizes are always compared with what was sealed; contents by their checksum, on request.
    """
    where = f"{shard}: sample {key!r}"
    try:
        data = out.read(shard.tar, place.offset, place.end - place.offset)
    except FileNotFoundError as error:
        raise MissingShard(f"{where}: the file is missing") from error
    if len(data) < place.end - place.offset:
        raise DamagedShard(f"{where}: the file ends before the sample does")
    starts = [start - place.offset for start in place.contents]
    contents = tuple(data[start : start + size] for start, size in zip(starts, place.sizes, strict=True))
    if group_bytes(key, members, contents) != data:
        raise DamagedShard(f"{where}: the headers found where it should be are not its own")
    if checksums and zlib.crc32(data) != place.crc32:
        raise DamagedShard(f"{where}: its contents are not those that were sealed, by their checksum")
    return MemberGroup(place.offset, key, contents)


class ShardReader:
    """One sealed shard, opened by its receipt."""

    def __init__(self, out: Storage, name: ShardName) -> None:
        self._out = out
        self.receipt = Receipt.read(out, name)
        self._places = dict(zip(self.receipt.clip_ids, self.receipt.places, strict=True))

    def __len__(self) -> int:
        return len(self._places)

    def sample(self, key: str) -> Sample:
        """Raise KeyError for a key that is not in the shard, DamagedShard for one that is not whole."""
        name = self.receipt.name
        return Sample.of(read_group(self._out, name, key, self._places[key], self.receipt.members), str(name))


def open_split(location: str, split: str) -> tuple[Storage, Manifest]:
    """The dataset at a path or URI. Raise DatasetNotFound where there is none, or no sample of that split in it."""
    out = Storage.at(location)
    try:
        manifest = Manifest.read(out)
    except FileNotFoundError as error:
        raise DatasetNotFound(f"{out.display_uri} {explain_missing_dataset(out)}") from error
    if split not in manifest.splits:
        there = " and ".join(manifest.splits) or "none at all"
        raise DatasetNotFound(f"{out.display_uri} has no samples in a split {split!r}, but {there}")
    return out, manifest


class SplitReader:
    """One split of a sealed dataset, opened by its manifest; its samples have numbers, in the order of the shards.

    Nothing stays open between two reads, so a reader may be pickled or forked.
    """

    def __init__(self, location: str, split: str, checksums: bool = True) -> None:
        """Raise DatasetNotFound where there is none, DamagedRecord, DamagedShard or StorageFault."""
        self._out, manifest = open_split(location, split)
        self._checksums = checksums
        self.index = Index.read(self._out, manifest, split)
        self._check_files()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def location(self) -> str:
        return self._out.uri

    @property
    def is_local(self) -> bool:
        return self._out.is_local

    def shard_of(self, number: int) -> ShardName:
        return self.index.shards[int(self.index.shard[number])].name

    def group(self, number: int) -> MemberGroup:
        """The members of one sample. Raise DamagedShard, or DatasetChanged."""
        index, shard = self.index, self.shard_of(number)
        try:
            return read_group(
                self._out, shard, index.key(number), index.location(number), index.members, self._checksums
            )
        except MissingShard as missing:
            if shard.tar not in (listed.path for listed in Manifest.read(self._out).shards):
                raise DatasetChanged(
                    f"{shard} was made anew since {self._out.display_uri} was opened; open it again"
                ) from missing
            raise

    def _check_files(self) -> None:
        """Before anything is read: every tar is there and as long as it was. Raise DamagedShard, naming the first."""
        shards = self.index.shards
        for shard, entry in zip(shards, self._out.stats([shard.path for shard in shards]), strict=True):
            if entry is None:
                raise DamagedShard(f"{shard.path} is missing in {self._out.display_uri}")
            if entry.size != shard.bytes:
                raise DamagedShard(f"{shard.path} has {entry.size:,} bytes, {shard.bytes:,} were sealed")
