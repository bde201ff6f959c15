"""Reading single samples: each is what was sealed, and no damage to a shard goes unnamed."""

from __future__ import annotations

import pickle
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings

from nextscene.common.errors import DamagedRecord
from nextscene.common.storage import Storage
from nextscene.shards.format.layout import MANIFEST, ShardName
from nextscene.shards.format.sample import Sample
from nextscene.shards.format.tar import BLOCK, END, DamagedShard
from nextscene.shards.loading.reader import DatasetNotFound, ShardReader, SplitReader
from tests.shards.samples import NAME, sample, seal_dataset, seal_samples, some_samples

SHARDS = {NAME: [sample(1), sample(2), sample(3)], ShardName("train", 8): [sample(4), sample(5)]}
ALL = [one for contents in SHARDS.values() for one in contents]
FIRST = len(sample(1).to_bytes())
JSON_BLOCKS = -(-len(sample(1).json) // BLOCK) * BLOCK
MP4 = FIRST + 2 * BLOCK + JSON_BLOCKS  # where the second sample's video begins


@pytest.fixture
def out(tmp_path: Path) -> Storage:
    return seal_dataset(tmp_path / "out", SHARDS)


def read_all(out: Storage, checksums: bool = True) -> list[Sample]:
    reader = SplitReader(out.uri, "train", checksums)
    return [Sample.of(reader.group(number), "train") for number in range(len(reader))]


@settings(max_examples=25, deadline=None)
@given(some_samples)
def test_every_sample_is_found_by_its_key(contents: list[Sample]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out, _ = seal_samples(Path(folder), contents)
        reader = ShardReader(out, NAME)
        assert len(reader) == len(contents)
        for one in reversed(contents):
            assert reader.sample(one.key) == one
        with pytest.raises(KeyError):
            reader.sample("z" * 20)


def test_the_samples_of_a_split_are_numbered_through_its_shards(out: Storage) -> None:
    assert read_all(out) == ALL
    assert read_all(out, checksums=False) == ALL


def test_a_reader_goes_to_another_process_as_it_is(out: Storage) -> None:
    reader = pickle.loads(pickle.dumps(SplitReader(out.uri, "train")))
    assert [reader.group(number).key for number in range(len(reader))] == [one.key for one in ALL]


# ---- the damage matrix -------------------------------------------------------------------------------------------


def cut(keep: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:keep]


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def doubled(data: bytes) -> bytes:
    """The second sample's text is there twice."""
    text = data[2 * FIRST - 2 * BLOCK : 2 * FIRST]
    return data[: 2 * FIRST] + text + data[2 * FIRST :]


def doubled_in_place(data: bytes) -> bytes:
    """As long as before: the second sample's text stands where the third sample began."""
    text = data[2 * FIRST - 2 * BLOCK : 2 * FIRST]
    return data[: 2 * FIRST] + text + data[2 * FIRST + len(text) :]


def keyless(data: bytes) -> bytes:
    """The second sample once more in place of the third."""
    return data[: 2 * FIRST] + data[FIRST : 2 * FIRST] + END


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut between samples": (cut(FIRST), "bytes"),
    "cut between members": (cut(FIRST + BLOCK + JSON_BLOCKS), "bytes"),
    "cut inside a header": (cut(FIRST + BLOCK + JSON_BLOCKS + 100), "bytes"),
    "cut inside data": (cut(MP4 + 100), "bytes"),
    "cut before the end mark": (cut(-len(END)), "bytes"),
    "empty": (cut(0), "bytes"),
    "a byte flipped in a header": (flipped(FIRST + 10), f"sample '{2:024x}'"),
    "a byte flipped in a header's checksum": (flipped(FIRST + 150), f"sample '{2:024x}'"),
    "a byte flipped in a header's size": (flipped(MP4 - BLOCK + 130), f"sample '{2:024x}'"),
    "a byte flipped in the json": (flipped(FIRST + BLOCK + 20), f"sample '{2:024x}'"),
    "a byte flipped in the video": (flipped(MP4 + 100), f"sample '{2:024x}'"),
    "a byte flipped in the text": (flipped(2 * FIRST - BLOCK + 1), f"sample '{2:024x}'"),
    "a byte flipped in the padding": (flipped(2 * FIRST - 1), f"sample '{2:024x}'"),
    "a member twice": (doubled, "bytes"),
    "a member twice, the file as long as before": (doubled_in_place, f"sample '{3:024x}'"),
    "a sample twice in place of another": (keyless, f"sample '{3:024x}'"),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_every_damage_is_told_with_the_shard_the_sample_and_what_is_wrong(out: Storage, damage: str) -> None:
    harm, said = DAMAGE[damage]
    out.write(NAME.tar, harm(out.read(NAME.tar)))
    with pytest.raises(DamagedShard, match=said) as told:
        read_all(out)
    assert "nsp-000007" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_missing_tar_is_told_before_anything_is_read_and_when_it_goes_later(out: Storage) -> None:
    reader = SplitReader(out.uri, "train")
    out.delete(NAME.tar)
    with pytest.raises(DamagedShard, match=f"{NAME}: sample '{1:024x}': the file is missing"):
        reader.group(0)
    with pytest.raises(DamagedShard, match=rf"{NAME.tar} is missing"):
        SplitReader(out.uri, "train")


def test_a_tar_cut_while_it_is_read_is_told(out: Storage) -> None:
    reader = SplitReader(out.uri, "train")
    out.write(NAME.tar, out.read(NAME.tar)[: MP4 + 100])
    assert reader.group(0).key == ALL[0].key
    with pytest.raises(DamagedShard, match=f"{NAME}: sample '{2:024x}': the file ends before"):
        reader.group(1)


@pytest.mark.parametrize(
    "damage", ["cut between members", "cut between samples", "cut inside a header", "a byte flipped in a header"]
)
def test_the_webdataset_library_reads_on_in_silence_where_ours_does_not(out: Storage, damage: str) -> None:
    """Why a reader of our own: this is what the damage looks like to the usual one."""
    data = DAMAGE[damage][0](out.read(NAME.tar))
    out.write(NAME.tar, data)
    found = list(webdataset.WebDataset(str(out.local_path(NAME.tar)), shardshuffle=False))
    complete = [one for one in found if {"json", "mp4", "txt"} <= one.keys()]
    assert 0 < len(complete) < len(SHARDS[NAME])


@pytest.mark.parametrize("at", [FIRST + BLOCK + 20, MP4 + 100, 2 * FIRST - BLOCK + 1])
def test_only_checksums_see_a_flip_inside_the_contents(out: Storage, at: int) -> None:
    out.write(NAME.tar, flipped(at)(out.read(NAME.tar)))
    reader = SplitReader(out.uri, "train", checksums=False)
    assert reader.group(1).key == ALL[1].key
    with pytest.raises(DamagedShard, match="checksum"):
        SplitReader(out.uri, "train").group(1)


# ---- not a dataset -----------------------------------------------------------------------------------------------


def test_a_place_without_a_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match=f"{re.escape(str(tmp_path))} holds no dataset: there is no {MANIFEST}"):
        SplitReader(str(tmp_path), "train")


def test_a_split_that_is_not_there_is_named_with_those_that_are(out: Storage) -> None:
    with pytest.raises(DatasetNotFound, match="no samples in a split 'test', but train; give `split` train, or build "):
        SplitReader(out.uri, "test")


def test_a_manifest_that_leads_out_of_the_dataset_leads_nowhere(out: Storage) -> None:
    out.write(MANIFEST, out.read(MANIFEST).replace(NAME.tar.encode(), b"../" * 3 + b"etc/passwd"))
    with pytest.raises((DamagedRecord, ValueError), match="etc/passwd"):
        SplitReader(out.uri, "train")
