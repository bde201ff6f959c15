"""Sealing a shard, its offsets, and that nothing that happens to it later goes unseen."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.storage import Storage
from nextscene.shards.format.receipt import Receipt
from nextscene.shards.format.sample import CLIPS, Sample
from nextscene.shards.format.seal import check_sealed, seal
from nextscene.shards.format.tar import BLOCK, END, DamagedShard
from tests.shards.samples import NAME, sample, seal_samples, some_samples

pytestmark = pytest.mark.slow

THREE = [sample(1), sample(2), sample(3)]


@settings(max_examples=25, deadline=None)
@given(some_samples)
def test_a_shard_is_its_parts_in_order_and_its_receipt_vouches_for_every_byte(contents: list[Sample]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out, receipt = seal_samples(Path(folder), contents)
        tar = out.read(NAME.tar)
        assert tar == b"".join(map(Sample.to_bytes, contents)) + END
        assert receipt == Receipt.read(out, NAME)
        assert (receipt.sha256, receipt.bytes) == (hashlib.sha256(tar).hexdigest(), len(tar))
        assert (receipt.count, receipt.clip_ids) == (len(contents), tuple(one.key for one in contents))
        check_sealed(out, receipt, CLIPS)


@settings(max_examples=25, deadline=None)
@given(some_samples, st.data())
def test_any_run_of_samples_sliced_by_the_offsets_is_a_readable_tar(
    contents: list[Sample], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out, _ = seal_samples(Path(folder), contents)
        tar = out.read(NAME.tar)
        offsets = np.frombuffer(out.read(NAME.offsets), "<u8")
    assert len(offsets) == len(contents) + 1
    assert (offsets[0], offsets[-1]) == (0, len(tar) - len(END))
    first = data.draw(st.integers(0, len(contents) - 1))
    last = data.draw(st.integers(first + 1, len(contents)))
    # As Energon reads: from one offset to another, without an end mark.
    with tarfile.open(fileobj=io.BytesIO(tar[offsets[first] : offsets[last]]), mode="r:") as piece:
        names = piece.getnames()
    assert names == [f"{one.key}.{kind}" for one in contents[first:last] for kind in one.members]


def test_sealing_twice_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    one, first = seal_samples(tmp_path / "one", THREE)
    again, second = seal_samples(tmp_path / "again", THREE)
    seal(again, NAME, ["parts/a.part", "parts/b.part"], second.clip_ids, CLIPS)
    assert first == second
    for path in (NAME.tar, NAME.offsets, NAME.receipt):
        assert one.read(path) == again.read(path)


def test_a_shard_without_clips_has_a_receipt_and_no_tar(tmp_path: Path) -> None:
    out, receipt = seal_samples(tmp_path, [])
    assert (receipt.sha256, receipt.bytes, receipt.count, receipt.clip_ids) == ("", 0, 0, ())
    assert out.stat(NAME.tar) is None and out.stat(NAME.offsets) is None
    check_sealed(out, Receipt.read(out, NAME), CLIPS)


@pytest.mark.parametrize(
    "clip_ids", [[2, 1, 3], [1, 2], [1, 2, 3, 4], [1, 2, 4]], ids=["another order", "one less", "one more", "another"]
)
def test_parts_that_hold_other_clips_than_the_ledger_are_not_sealed(tmp_path: Path, clip_ids: list[int]) -> None:
    out = Storage.at(tmp_path)
    out.write("parts/a.part", b"".join(map(Sample.to_bytes, THREE)))
    with pytest.raises(DamagedShard, match=str(NAME)):
        seal(out, NAME, ["parts/a.part"], [f"{number:024x}" for number in clip_ids], CLIPS)
    assert [entry.path for entry in out.files(recursive=True)] == ["parts/a.part"]


def test_a_damaged_part_is_not_sealed(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    whole = b"".join(map(Sample.to_bytes, THREE))
    out.write("parts/a.part", whole[:-BLOCK])
    with pytest.raises(DamagedShard, match=str(NAME)):
        seal(out, NAME, ["parts/a.part"], [one.key for one in THREE], CLIPS)
    video = whole.index(THREE[0].media) + 5
    out.write("parts/a.part", whole[:video] + bytes([whole[video] ^ 1]) + whole[video + 1 :])
    with pytest.raises(DamagedShard, match=f"{NAME}: sample '{THREE[0].key}': the video is not the one"):
        seal(out, NAME, ["parts/a.part"], [one.key for one in THREE], CLIPS)
    assert out.stat(NAME.tar) is None and [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.part"]


# ---- damage ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, Receipt, bytes]:
    out, receipt = seal_samples(tmp_path_factory.mktemp("sealed"), THREE)
    return out, receipt, out.read(NAME.tar)


def assert_seen(sealed: tuple[Storage, Receipt, bytes], tar: bytes, offsets: bytes | None = None) -> None:
    """A copy of the shard with `tar` in its place is found out, and the message names the shard."""
    out, receipt, _ = sealed
    with tempfile.TemporaryDirectory() as folder:
        copy = Storage.at(folder)
        copy.write(NAME.tar, tar)
        copy.write(NAME.offsets, out.read(NAME.offsets) if offsets is None else offsets)
        with pytest.raises(DamagedShard, match=str(NAME)):
            check_sealed(copy, receipt, CLIPS)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_byte_anywhere_is_seen(sealed: tuple[Storage, Receipt, bytes], data: st.DataObject) -> None:
    tar = sealed[2]
    at = data.draw(st.integers(0, len(tar) - 1))
    assert_seen(sealed, tar[:at] + bytes([tar[at] ^ data.draw(st.integers(1, 255))]) + tar[at + 1 :])


FIRST = len(sample(1).to_bytes())


@pytest.mark.parametrize(
    "keep",
    [0, 1, 100, BLOCK, BLOCK + 100, FIRST, FIRST + BLOCK, -len(END), -BLOCK, -1],
    ids="empty|1 byte|in a header|a header|in data|a sample|in a sample|no end|half an end|last byte".split("|"),
)
def test_a_cut_is_seen(sealed: tuple[Storage, Receipt, bytes], keep: int) -> None:
    assert_seen(sealed, sealed[2][:keep])


def test_a_shard_of_other_whole_samples_is_seen(sealed: tuple[Storage, Receipt, bytes]) -> None:
    pieces = [one.to_bytes() for one in THREE]
    twice = [pieces[0], pieces[1], pieces[2], pieces[2]]
    for others in (pieces[:2], pieces[::-1], [*pieces, sample(4).to_bytes()], twice):
        assert_seen(sealed, b"".join(others) + END)
    other_text = replace(THREE[0], text=b"caption 7")
    assert_seen(sealed, other_text.to_bytes() + pieces[1] + pieces[2] + END)


@pytest.mark.parametrize("extra", [b"\0", b"x", bytes(BLOCK), b"x" * 10240])
def test_bytes_behind_the_end_are_seen(sealed: tuple[Storage, Receipt, bytes], extra: bytes) -> None:
    assert_seen(sealed, sealed[2] + extra)


def test_other_offsets_are_seen(sealed: tuple[Storage, Receipt, bytes]) -> None:
    right = sealed[0].read(NAME.offsets)
    for wrong in (b"", right[:-8], right[:-1], right + bytes(8), bytes([1]) + right[1:]):
        assert_seen(sealed, sealed[2], wrong)


@pytest.mark.parametrize("gone", [NAME.tar, NAME.offsets])
def test_a_missing_file_is_named(tmp_path: Path, gone: str) -> None:
    out, receipt = seal_samples(tmp_path, THREE)
    out.delete(gone)
    with pytest.raises(DamagedShard, match=f"{NAME}: .*{gone}( |$).*missing") as damage:
        check_sealed(out, receipt, CLIPS)
    assert "\n" not in str(damage.value)


def test_a_receipt_of_other_contents_is_seen(tmp_path: Path) -> None:
    out, receipt = seal_samples(tmp_path, THREE)
    first, *others = receipt.places
    for other in (
        replace(receipt, sha256="0" * 64),
        replace(receipt, bytes=receipt.bytes + 1),
        replace(receipt, count=4),
        replace(receipt, clip_ids=receipt.clip_ids[::-1]),
        replace(receipt, members=("json", "mp4", "jpg", "text")),
        *(
            replace(receipt, places=(first._replace(**{name: value}), *others))
            for name, value in (("crc32", 0), ("offset", 512), ("frames", 25), ("sizes", (1, 2, 3, 4)))
        ),
    ):
        with pytest.raises(DamagedShard, match=str(NAME)):
            check_sealed(out, other, CLIPS)


@settings(max_examples=25, deadline=None)
@given(some_samples)
def test_the_places_in_a_receipt_are_where_another_tar_reader_finds_the_members(contents: list[Sample]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out, receipt = seal_samples(Path(folder), contents)
        tar = out.read(NAME.tar)
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as file:
        found = iter(file.getmembers())
        for place, one in zip(receipt.places, contents, strict=True):
            members = {name: next(found) for name in one.members}
            assert place.offset == members["json"].offset
            found_here = [(name, member.offset_data, member.size) for name, member in members.items()]
            assert [*place.slices(CLIPS.members)] == found_here
            assert place.sizes == tuple(members[name].size if name in members else -1 for name in CLIPS.members)
            assert place.crc32 == zlib.crc32(tar[place.offset : place.end])
            assert place[3:] == (one.record.frames, one.record.width, one.record.height)
    assert receipt.places[-1].end == len(tar) - len(END)
