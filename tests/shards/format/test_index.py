"""The index of a split: the receipts in one table, never believed against the manifest, and joined by key."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.errors import DamagedRecord
from nextscene.common.storage import Storage
from nextscene.shards.format.index import Index, check_index, publish_indexes
from nextscene.shards.format.layout import ShardName, index
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.receipt import Receipt
from nextscene.shards.format.sample import Sample
from nextscene.shards.format.sample_type import SampleType, Shape
from nextscene.shards.format.seal import seal
from nextscene.shards.format.tar import DamagedShard, MemberGroup, group_bytes
from tests.shards.samples import publish_dataset, sample, samples, seal_dataset, seal_samples

pytestmark = pytest.mark.slow

SHARDS = {
    ShardName("test", 0): [sample(9)],
    ShardName("train", 0): [sample(1), sample(2)],
    ShardName("train", 2): [sample(3)],
}
TRAIN = index("train")


@pytest.fixture
def out(tmp_path: Path) -> Storage:
    return seal_dataset(tmp_path / "out", SHARDS)


def read(out: Storage, split: str = "train") -> Index:
    return Index.read(out, Manifest.read(out), split)


@settings(max_examples=15)
@given(st.lists(samples, min_size=1, max_size=9, unique_by=lambda one: one.key), st.integers(1, 4))
def test_the_index_says_of_every_sample_what_its_receipt_says(contents: list[Sample], a_shard: int) -> None:
    runs = [contents[at : at + a_shard] for at in range(0, len(contents), a_shard)]
    with tempfile.TemporaryDirectory() as folder:
        out = seal_dataset(Path(folder), {ShardName("train", number): run for number, run in enumerate(runs)})
        found = read(out)
        receipts = [shard.receipt(out) for shard in found.shards]
        published = pq.read_table(str(out.local_path(TRAIN)))
        assert found.table.equals(published) and found.table.equals(Index.of_receipts(out, found.shards).table)
    wanted = [
        (receipt.name.tar, key, place)
        for receipt in receipts
        for key, place in zip(receipt.clip_ids, receipt.places, strict=True)
    ]
    assert wanted == [
        (found.shards[found.shard[number]].path, found.key(number), found.location(number))
        for number in range(len(found))
    ]
    assert [found.find(one.key) for one in contents] == list(range(len(contents)))
    assert found.shapes.tolist() == [list(place[3:]) for _, _, place in wanted]


def test_each_split_has_an_index_of_its_own(out: Storage) -> None:
    assert [read(out, "test").key(0), len(read(out, "test")), len(read(out))] == [f"{9:024x}", 1, 3]
    with pytest.raises(KeyError):
        read(out).find(f"{9:024x}")


def test_many_shards_become_few_row_groups(out: Storage) -> None:
    """Readers pay for each."""
    assert pq.ParquetFile(str(out.local_path(TRAIN))).metadata.num_row_groups == 1


def test_a_missing_or_foreign_index_is_replaced_by_the_receipts(out: Storage) -> None:
    right = read(out).table
    out.delete(TRAIN)
    assert read(out).table.equals(right)
    out.write(TRAIN, out.read(index("test")))
    assert read(out).table.equals(right)
    manifest = Manifest.read(out)
    for wrong in (b"", out.read(index("test"))):
        out.delete(TRAIN)
        if wrong:
            out.write(TRAIN, wrong)
        with pytest.raises(DamagedRecord, match=TRAIN):
            check_index(out, manifest, "train")
        publish_indexes(out, manifest)
        check_index(out, manifest, "train")


def test_a_retried_shard_makes_the_old_index_one_of_another_manifest(out: Storage) -> None:
    before = out.read(TRAIN)
    retried = ShardName("train", 0, 1)
    receipts = [seal_samples(Path(out.uri), [sample(5), sample(2)], retried)[1]]
    receipts += [Receipt.read(out, name) for name in SHARDS if name != ShardName("train", 0)]
    publish_dataset(out, receipts)
    out.write(TRAIN, before)
    assert [read(out).key(number) for number in range(3)] == [f"{number:024x}" for number in (5, 2, 3)]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"x" * 100])
def test_an_index_that_cannot_be_read_is_told_by_name(out: Storage, data: bytes) -> None:
    out.write(TRAIN, data)
    with pytest.raises(DamagedRecord, match=TRAIN):
        read(out)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("shard", 1),
        ("offset", -512),
        ("offset", 10**9),
        ("mp4_bytes", 10**12),
        ("mp4_bytes", -1),
        ("crc32", 2**32),
        ("crc32", -1),
        ("frames", 0),
        ("width", 2**40),
    ],
)
def test_an_index_that_contradicts_its_manifest_is_refused(out: Storage, column: str, value: int) -> None:
    table = pq.read_table(str(out.local_path(TRAIN)))
    numbers = table[column].to_numpy().copy()
    numbers[0] = value
    pq.write_table(table.set_column(table.column_names.index(column), column, [numbers]), str(out.local_path(TRAIN)))
    with pytest.raises(DamagedRecord, match=f"{TRAIN} .*do not fit"):
        read(out)


@pytest.mark.parametrize("kind", [pa.string(), pa.float64(), pa.int32()])
@pytest.mark.parametrize("column", ["shard", "frames", "crc32"])
def test_a_column_of_another_type_is_refused(out: Storage, column: str, kind: pa.DataType) -> None:
    table = pq.read_table(str(out.local_path(TRAIN)))
    changed = table[column].cast(pa.int32() if column != "crc32" else pa.int64()).cast(kind, safe=False)
    pq.write_table(table.set_column(table.column_names.index(column), column, changed), str(out.local_path(TRAIN)))
    with pytest.raises(DamagedRecord, match=f"{TRAIN} .*do not fit"):
        read(out)


@pytest.mark.parametrize("column", ["key", "frames"])
def test_a_missing_value_is_refused(out: Storage, column: str) -> None:
    table = pq.read_table(str(out.local_path(TRAIN)))
    holey = pa.chunked_array([[None, *table[column].to_pylist()[1:]]], table.schema.field(column).type)
    pq.write_table(table.set_column(table.column_names.index(column), column, holey), str(out.local_path(TRAIN)))
    with pytest.raises(DamagedRecord, match=f"{TRAIN} .*do not fit"):
        read(out)


def test_an_index_of_more_rows_than_there_are_samples_is_not_even_read(out: Storage) -> None:
    table = pq.read_table(str(out.local_path(TRAIN)))
    pq.write_table(pa.concat_tables([table] * 2), str(out.local_path(TRAIN)))
    with pytest.raises(DamagedRecord, match=f"{TRAIN} has 6 rows"):
        read(out)


def test_an_index_pickles_without_what_is_computed_from_it(out: Storage) -> None:
    index = read(out)
    before = len(pickle.dumps(index))
    assert len(index.shapes) == len(index.shard) == 3
    assert len(pickle.dumps(index)) == before
    assert pickle.loads(pickle.dumps(index)).location(2) == index.location(2)


def test_a_wrong_number_in_an_index_is_found_when_it_is_checked(out: Storage) -> None:
    table = pq.read_table(str(out.local_path(TRAIN)))
    frames = table["frames"].to_numpy() + 1
    pq.write_table(table.set_column(table.column_names.index("frames"), "frames", [frames]), str(out.local_path(TRAIN)))
    with pytest.raises(DamagedRecord, match=f"{TRAIN} contradicts the receipts"):
        check_index(out, Manifest.read(out), "train")


def test_a_manifest_without_the_receipts_it_lists_is_refused(out: Storage) -> None:
    out.delete(TRAIN)
    out.delete(ShardName("train", 2).receipt)
    with pytest.raises(DamagedRecord, match=r"nsp-000002.tar, whose receipt is missing"):
        read(out)


# ---- sets that belong together -----------------------------------------------------------------------------------


def validate(group: MemberGroup, shard: str) -> Shape:
    if len(group.contents["npy"]) % 8:
        raise DamagedShard(f"{shard}: sample {group.key!r}: half a number")
    return Shape(1, 2, 3)


LATENTS = SampleType(("json", "npy"), validate)


def seal_latents(folder: Path, keys: list[str]) -> Index:
    out, name = Storage.at(folder), ShardName("train", 0)
    contents = {
        key: {"json": b"{}", "npy": np.full(4, number, np.float64).tobytes()} for number, key in enumerate(keys)
    }
    out.write("part", b"".join(group_bytes(key, both) for key, both in contents.items()))
    receipt = seal(out, name, ["part"], keys, LATENTS)
    receipt.publish(out)
    return read(publish_dataset(out, [receipt]))


@given(st.permutations(range(1, 4)), st.sets(st.integers(10, 20)))
def test_a_set_of_another_kind_joins_by_key_in_whatever_order(order: list[int], further: set[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clips = read(seal_dataset(Path(folder) / "clips", SHARDS))
        latents = seal_latents(Path(folder) / "latents", [f"{number:024x}" for number in [*further, *order]])
    assert latents.members == LATENTS.members
    joined = clips.join(latents)
    assert [latents.key(number) for number in joined] == [clips.key(number) for number in range(len(clips))]


def test_a_sample_without_its_counterpart_is_named(out: Storage, tmp_path: Path) -> None:
    latents = seal_latents(tmp_path / "latents", [f"{number:024x}" for number in (1, 3)])
    with pytest.raises(DamagedRecord, match=f"1 samples have no counterpart .* the first is {2:024x}"):
        read(out).join(latents)


def test_a_sample_of_another_kind_is_examined_by_its_own_rule(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    out.write("part", group_bytes("a" * 24, {"json": b"{}", "npy": b"1234567"}))
    with pytest.raises(DamagedShard, match="half a number"):
        seal(out, ShardName("train", 0), ["part"], ["a" * 24], LATENTS)


def test_a_split_that_has_no_sample_any_more_has_no_index(out: Storage) -> None:
    publish_indexes(out, Manifest.of([Receipt.read(out, ShardName("test", 0))], "f" * 64, True))
    assert [entry.path for entry in out.files("index")] == [index("test")]


def test_an_index_that_stands_is_not_written_again_and_a_damaged_one_is(out: Storage) -> None:
    before = out.stat(TRAIN)
    publish_indexes(out, Manifest.read(out))
    assert out.stat(TRAIN) == before
    right = out.read(TRAIN)
    out.write(TRAIN, right[:-10])
    publish_indexes(out, Manifest.read(out))
    assert out.read(TRAIN) == right
