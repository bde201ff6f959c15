"""Random access to the samples of sealed shards: one ranged read for each sample, and each read is checked."""

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
    """A dataset that does not exist, or has no such split."""


class DatasetChanged(StoppedError):
    """A dataset whose shards were sealed again and replaced since it was opened. Opening it again helps."""


class MissingShard(DamagedShard):
    """A tar that is missing."""


def read_group(
    out: Storage, shard: ShardName, key: str, place: SampleLocation, members: Sequence[str], checksums: bool = True
) -> MemberGroup:
    """Return the sample of a tar at `place`, its location in the index. Raise DamagedShard, naming shard and sample.

    Headers, names, order and sizes are always compared with what was sealed; contents by their checksum if `checksums`.
    """
    where = f"{shard}: sample {key!r}"
    try:
        data = out.read(shard.tar, place.offset, place.end - place.offset)
    except FileNotFoundError as error:
        raise MissingShard(f"{where}: the file is missing") from error
    if len(data) < place.end - place.offset:
        raise DamagedShard(f"{where}: the file ends before the sample does")
    slices = ((member, start - place.offset, size) for member, start, size in place.slices(members))
    contents = {member: data[start : start + size] for member, start, size in slices}
    if group_bytes(key, contents) != data:
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
        """Return a sample. Raise KeyError for a key that is not in the shard, DamagedShard for a damaged sample."""
        name = self.receipt.name
        return Sample.of(read_group(self._out, name, key, self._places[key], self.receipt.members), str(name))


def open_split(location: str, split: str) -> tuple[Storage, Manifest]:
    """Open the dataset at a path or URI. Raise DatasetNotFound if there is none, or no sample of that split in it."""
    out = Storage.at(location)
    try:
        manifest = Manifest.read(out)
    except FileNotFoundError as error:
        raise DatasetNotFound(f"{out.display_uri} {explain_missing_dataset(out)}") from error
    if split not in manifest.splits:
        there = " and ".join(manifest.splits) or "none at all"
        instead = f"give `split` {manifest.splits[0]}, or " if manifest.splits else ""
        raise DatasetNotFound(
            f"{out.display_uri} has no samples in a split {split!r}, but {there}; {instead}build another dataset, such"
            " as with `test` 0.1"
        )
    return out, manifest


class SplitReader:
    """One split of a sealed dataset, opened by its manifest; its samples are numbered in the order of the shards.

    No file stays open between two reads, so a reader may be pickled or forked.
    """

    def __init__(self, location: str, split: str, checksums: bool = True) -> None:
        """Open the split. Raise DatasetNotFound, DamagedRecord, DamagedShard, StorageFault."""
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
        """Return the members of one sample. Raise DamagedShard, DatasetChanged."""
        index, shard = self.index, self.shard_of(number)
        try:
            return read_group(
                self._out, shard, index.key(number), index.location(number), index.members, self._checksums
            )
        except MissingShard as missing:
            if shard.tar not in (listed.path for listed in Manifest.read(self._out).shards):
                raise DatasetChanged(
                    f"{shard} was sealed again since {self._out.display_uri} was opened; open it again"
                ) from missing
            raise

    def _check_files(self) -> None:
        """Check that every tar exists and has its length. Raise DamagedShard, naming the first that does not."""
        shards = self.index.shards
        for shard, entry in zip(shards, self._out.stats([shard.path for shard in shards]), strict=True):
            if entry is None:
                raise DamagedShard(f"{shard.path} is missing in {self._out.display_uri}")
            if entry.size != shard.bytes:
                raise DamagedShard(f"{shard.path} has {entry.size:,} bytes, {shard.bytes:,} were sealed")
