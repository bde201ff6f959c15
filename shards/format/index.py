"""The index of a split: the location and shape of each sample, from all receipts of the split in one table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nextscene.common.errors import DamagedRecord
from nextscene.common.hashing import sha256_of
from nextscene.common.parquet import open_table, read_open
from nextscene.common.storage import Storage
from nextscene.shards.format import layout
from nextscene.shards.format.checksums import Checksums
from nextscene.shards.format.manifest import Manifest, ManifestShard, receipts_of
from nextscene.shards.format.receipt import ABSENT, Receipt, SampleLocation
from nextscene.shards.format.sample_type import MAX_SIDE
from nextscene.shards.format.tar import BLOCK, END, MAX_MEMBER_BYTES

_SHARDS_KEY = b"nextscene.shards"
_ROWS_PER_GROUP = 1 << 16
_SIZE_SUFFIX = "_bytes"


@dataclass(frozen=True)
class Index:
    """The samples of a split, numbered in the order of its shards.

    Columns: `key`; `shard`, the number of its shard in `shards`; `offset`; `<member>_bytes` for each member, or ABSENT;
    `crc32`; `frames`, `width`, `height`. See `SampleLocation` for their meaning.
    """

    shards: tuple[ManifestShard, ...]
    table: pa.Table

    @staticmethod
    def read(out: Storage, manifest: Manifest, split: str) -> Index:
        """Return the index from its file, or from the receipts if the file is missing or of another manifest.

        Raise DamagedRecord for a file or receipt that contradicts the manifest.
        """
        shards = manifest.of_split(split)
        table = _published(out, layout.index(split), shards)
        index = Index(shards, table.combine_chunks()) if table else Index.of_receipts(out, shards)
        if not index._fits():
            raise DamagedRecord(
                f"{layout.index(split)} or the receipts do not fit {layout.MANIFEST}; verify the dataset"
            )
        return index

    @staticmethod
    def of_receipts(out: Storage, shards: tuple[ManifestShard, ...]) -> Index:
        return Index(shards, pa.concat_tables(_tables(out, shards)).combine_chunks())

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> tuple[type[Index], tuple[tuple[ManifestShard, ...], pa.Table]]:
        """Pickle without the cached arrays, which are as large as the table."""
        return Index, (self.shards, self.table)

    @cached_property
    def members(self) -> tuple[str, ...]:
        return tuple(name.removesuffix(_SIZE_SUFFIX) for name in self.table.column_names if name.endswith(_SIZE_SUFFIX))

    @cached_property
    def shapes(self) -> npt.NDArray[np.int64]:
        """Return the shapes, [samples, 3]: frames, width and height."""
        return np.stack([self._column(name) for name in ("frames", "width", "height")], axis=1)

    @cached_property
    def shard(self) -> npt.NDArray[np.int64]:
        """Return the number of each sample's shard, [samples]."""
        return self._column("shard")

    def key(self, number: int) -> str:
        return str(self.table["key"][number])

    def key_bytes(self) -> bytes:
        """Return all keys, in order, with their lengths: two sets of samples differ in it."""
        column = self.table["key"].combine_chunks()
        text = np.frombuffer(column.buffers()[2], np.uint8)
        ends = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
        return text[ends[0] : ends[-1]].tobytes() + np.diff(ends).astype("<i4").tobytes()

    def location(self, number: int) -> SampleLocation:
        sizes = tuple(int(self.sizes(member)[number]) for member in self.members)
        offset, crc32 = (int(self._column(name)[number]) for name in ("offset", "crc32"))
        return SampleLocation(offset, sizes, crc32, *map(int, self.shapes[number]))

    def sizes(self, member: str) -> npt.NDArray[np.int64]:
        """Return the bytes of this member of each sample, or ABSENT, [samples]."""
        return self._column(f"{member}{_SIZE_SUFFIX}")

    def find(self, key: str) -> int:
        """Return the number of the sample with this key. Raise KeyError."""
        number: int = pc.index(self.table["key"], key).as_py()
        if number < 0:
            raise KeyError(key)
        return number

    def join(self, other: Index) -> npt.NDArray[np.int64]:
        """Return the number of each sample in `other`, [samples], a set with the same keys in any order.

        Raise DamagedRecord, naming the first key that `other` lacks.
        """
        numbers = pc.index_in(self.table["key"], value_set=other.table["key"].combine_chunks())
        if numbers.null_count:
            lacking = self.table["key"].filter(pc.is_null(numbers))
            raise DamagedRecord(
                f"{len(lacking)} samples have no counterpart in the other set, the first is {lacking[0]}"
            )
        return np.asarray(numbers.combine_chunks(), dtype=np.int64)

    def _column(self, name: str) -> npt.NDArray[np.int64]:
        return self._columns[name]

    @cached_property
    def _columns(self) -> dict[str, npt.NDArray[np.int64]]:
        return {name: self.table[name].to_numpy() for name in self.table.column_names if name != "key"}

    def _fits(self) -> bool:
        """Return whether samples of bounded size fill each shard of the manifest without a gap, as in a receipt."""
        table = self.table
        if not table.schema.remove_metadata().equals(_schema(self.members)) or any(c.null_count for c in table.columns):
            return False
        if not ((self.shapes > 0) & (self.shapes <= MAX_SIDE)).all() or (self._column("crc32") >> 32).any():
            return False
        counts = np.array([shard.count for shard in self.shards], np.int64)
        if not np.array_equal(self._column("shard"), np.repeat(np.arange(len(counts)), counts)):
            return False
        sizes = np.stack([self.sizes(member) for member in self.members])
        if sizes.min() < ABSENT or sizes.max() > MAX_MEMBER_BYTES:
            return False
        blocks = np.where(sizes == ABSENT, 0, BLOCK + -(-sizes // BLOCK) * BLOCK)
        ends = self._column("offset") + blocks.sum(axis=0)
        begins = np.concatenate([[0], ends[:-1]])
        lasts = np.cumsum(counts) - 1
        begins[lasts[:-1] + 1] = 0
        room = np.array([shard.bytes - len(END) for shard in self.shards])
        return np.array_equal(self._column("offset"), begins) and np.array_equal(ends[lasts], room)


def publish_indexes(out: Storage, manifest: Manifest) -> Checksums:
    """Write the index of each split from its receipts, unless it is up to date; in bounded memory.

    Return the SHA-256 of each file that was written.
    """
    wanted = {layout.index(split): manifest.of_split(split) for split in manifest.splits}
    for entry in out.files(layout.INDEX):
        if entry.path not in wanted and layout.owns(entry.path):
            out.delete(entry.path)
    return {path: _publish(out, path, shards) for path, shards in wanted.items() if not _is_current(out, path, shards)}


def _publish(out: Storage, path: str, shards: Sequence[ManifestShard]) -> str:
    with out.atomic_writer(path) as file:
        writer: pq.ParquetWriter | None = None
        for table in _grouped(_tables(out, shards)):
            if writer is None:
                schema = table.schema.with_metadata({_SHARDS_KEY: _digest(shards)})
                writer = pq.ParquetWriter(file, schema, compression="zstd")
            writer.write_table(table.cast(schema), row_group_size=_ROWS_PER_GROUP)
        if writer:
            writer.close()
        return sha256_of(file)


def check_index(out: Storage, manifest: Manifest, split: str) -> None:
    """Raise DamagedRecord for an index that is missing, or contradicts the receipts."""
    path, shards = layout.index(split), manifest.of_split(split)
    table = _published(out, path, shards)
    if table is None:
        raise DamagedRecord(f"{path} is missing, or of another manifest; run the build again to write it")
    if not table.equals(Index.of_receipts(out, shards).table):
        raise DamagedRecord(f"{path} contradicts the receipts; delete it and run the build again")


def _published(out: Storage, path: str, shards: Sequence[ManifestShard]) -> pa.Table | None:
    """Return the table in a split's file, or None if there is no file, or one of another manifest."""
    try:
        file = open_table(out, path)
        if (file.schema_arrow.metadata or {}).get(_SHARDS_KEY) != _digest(shards):
            return None
        if file.metadata.num_rows != sum(shard.count for shard in shards):
            raise DamagedRecord(f"{path} has {file.metadata.num_rows:,} rows, other than {layout.MANIFEST} has samples")
        return read_open(file, path)
    except FileNotFoundError:
        return None
    except DamagedRecord as damage:
        raise DamagedRecord(f"{damage}; delete it, and the receipts are read instead") from damage


def _is_current(out: Storage, path: str, shards: Sequence[ManifestShard]) -> bool:
    try:
        return _published(out, path, shards) is not None
    except DamagedRecord:
        return False


def _tables(out: Storage, shards: Sequence[ManifestShard]) -> Iterator[pa.Table]:
    for number, receipt in enumerate(receipts_of(out, shards)):
        yield _table(receipt, number)


def _table(receipt: Receipt, number: int) -> pa.Table:
    rows = [
        (key, number, place.offset, *place.sizes, *place[2:])
        for key, place in zip(receipt.clip_ids, receipt.places, strict=True)
    ]
    schema = _schema(receipt.members)
    return pa.table([pa.array(column, schema.types[at]) for at, column in enumerate(zip(*rows, strict=True))], schema)


def _schema(members: Sequence[str]) -> pa.Schema:
    sizes = [f"{member}{_SIZE_SUFFIX}" for member in members]
    numbers = ["shard", "offset", *sizes, "crc32", "frames", "width", "height"]
    return pa.schema([("key", pa.string()), *((name, pa.int64()) for name in numbers)])


def _grouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Merge tables: each becomes a row group, which costs readers time."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= _ROWS_PER_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _digest(shards: Sequence[ManifestShard]) -> bytes:
    listed = [(shard.path, shard.sha256, shard.count) for shard in shards]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest().encode()
