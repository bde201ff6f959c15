"""The tar of samples: what others read of it, and that no damage passes."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.shards.format.sample import CLIPS, Sample, read_samples
from nextscene.shards.format.tar import BLOCK, END, DamagedShard, read_groups
from tests.shards.samples import sample, samples, some_samples

Members = list[tuple[str, dict[str, bytes]]]


def tar_of(contents: list[Sample]) -> bytes:
    return b"".join(map(Sample.to_bytes, contents)) + END


def as_members(contents: list[Sample]) -> Members:
    return [(one.key, one.members) for one in contents]


def read(data: bytes) -> list[Sample]:
    return list(read_samples(io.BytesIO(data), "train/nsp-000007"))


def by_tarfile(data: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        files = [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    groups = [files[i : i + 3] for i in range(0, len(files), 3)]
    keys = [group[0][0].removesuffix(".json") for group in groups]
    return [
        (key, {name.removeprefix(f"{key}."): content for name, content in group})
        for key, group in zip(keys, groups, strict=True)
    ]


def by_webdataset(data: bytes) -> Members:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.tar"
        path.write_bytes(data)
        found = list(webdataset.WebDataset(str(path), shardshuffle=False))
    return [(one["__key__"], {name: one[name] for name in one if not name.startswith("__")}) for one in found]


@settings(max_examples=40, deadline=None)
@given(some_samples)
def test_tarfile_webdataset_and_our_reader_find_the_same_keys_and_bytes(contents: list[Sample]) -> None:
    data = tar_of(contents)
    assert by_tarfile(data) == by_webdataset(data) == as_members(read(data)) == as_members(contents)


@given(samples)
def test_the_same_sample_gives_the_same_bytes(one: Sample) -> None:
    assert one.to_bytes() == Sample(one.key, bytes(one.json), bytes(one.media), bytes(one.text), one.suffix).to_bytes()


@given(some_samples)
def test_every_header_is_one_block_without_time_owner_or_surprise(contents: list[Sample]) -> None:
    at = 0
    with tarfile.open(fileobj=io.BytesIO(tar_of(contents)), mode="r:") as tar:
        for info in tar:
            assert (info.offset, info.offset_data) == (at, at + BLOCK)
            assert (info.mtime, info.uid, info.gid, info.mode, info.type) == (0, 0, 0, 0o644, tarfile.REGTYPE)
            assert (info.uname, info.gname, info.linkname, info.pax_headers) == ("", "", "", {})
            at += BLOCK + -(-info.size // BLOCK) * BLOCK
    assert at + len(END) == len(tar_of(contents))


@given(some_samples)
def test_each_sample_is_said_to_begin_where_its_bytes_are(contents: list[Sample]) -> None:
    data = tar_of(contents)
    for group, one in zip(read_groups(io.BytesIO(data), "shard", CLIPS.members, CLIPS.optional), contents, strict=True):
        whole = one.to_bytes()
        assert data[group.offset : group.offset + len(whole)] == whole


# ---- damage ----------------------------------------------------------------------------------------------------

WHOLE = tar_of([sample(1), sample(2), sample(3)])
FIRST = len(sample(1).to_bytes())
MP4_HEADER = BLOCK + -(-len(sample(1).json) // BLOCK) * BLOCK
TXT_HEADER = MP4_HEADER + 3 * BLOCK  # 700 bytes of video need two blocks


def flipped(data: bytes, at: int, mask: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def renamed(name: str, size: int = 0) -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    return header.tobuf(tarfile.USTAR_FORMAT)


def directory() -> bytes:
    header = tarfile.TarInfo("0" * 24 + ".json")
    header.type = tarfile.DIRTYPE
    return header.tobuf(tarfile.USTAR_FORMAT)


DAMAGED = {
    "an empty file": b"",
    "the end mark alone cut in half": END[:BLOCK],
    "cut between samples": WHOLE[:FIRST],
    "cut between members": WHOLE[: FIRST + MP4_HEADER],
    "cut inside a header": WHOLE[: FIRST + MP4_HEADER + 100],
    "cut behind a header": WHOLE[: FIRST + MP4_HEADER + BLOCK],
    "cut inside data": WHOLE[: FIRST + MP4_HEADER + BLOCK + 100],
    "cut inside padding": WHOLE[: FIRST + MP4_HEADER + BLOCK + 701],
    "cut before the end mark": WHOLE[: -len(END)],
    "cut inside the end mark": WHOLE[: -BLOCK - 1],
    "cut in the last block": WHOLE[:-1],
    "a byte behind the end": WHOLE + b"\0",
    "a block behind the end": WHOLE + bytes(BLOCK),
    "a sample behind the end": WHOLE + sample(4).to_bytes(),
    "an end mark between samples": tar_of([sample(1)]) + tar_of([sample(2)]),
    "a header blanked out": WHOLE[:FIRST] + bytes(BLOCK) + WHOLE[FIRST + BLOCK :],
    "one block of the end mark not blank": flipped(WHOLE, len(WHOLE) - 5),
    "a sample twice in a row": tar_of([sample(1), sample(1)]),
    "a sample twice, apart": tar_of([sample(1), sample(2), sample(1)]),
    "the json missing": WHOLE[:FIRST] + WHOLE[FIRST + MP4_HEADER :],
    "the mp4 missing": WHOLE[: FIRST + MP4_HEADER] + WHOLE[FIRST + TXT_HEADER :],
    "the txt missing": WHOLE[: FIRST + TXT_HEADER] + WHOLE[2 * FIRST :],
    "a member of another sample": WHOLE[: FIRST + MP4_HEADER] + WHOLE[MP4_HEADER:FIRST] + WHOLE[2 * FIRST :],
    "a member of an unknown kind": WHOLE[:-1024] + renamed(f"{4:024x}.wav") + END,
    "a key that is not one": renamed("film.json") + renamed("film.mp4") + renamed("film.txt") + END,
    "a folder among the members": directory() + END,
    "a record that is not one": b"".join(renamed(f"{4:024x}.{kind}") for kind in ("json", "mp4", "txt")) + END,
    "bytes in front": bytes(1) + WHOLE,
    "a gzip": b"\x1f\x8b" + WHOLE,
}


@pytest.mark.parametrize("damage", sorted(DAMAGED))
def test_damage_to_the_form_is_told_with_the_name_of_the_shard(damage: str) -> None:
    with pytest.raises(DamagedShard, match="train/nsp-000007"):
        read(DAMAGED[damage])


def test_the_undamaged_tar_of_the_cases_above_is_read() -> None:
    assert as_members(read(WHOLE)) == as_members([sample(1), sample(2), sample(3)])


@given(st.integers(0, len(WHOLE) - 1))
def test_a_tar_cut_anywhere_is_refused(at: int) -> None:
    with pytest.raises(DamagedShard, match="train/nsp-000007"):
        read(WHOLE[:at])


@settings(max_examples=300)
@given(st.sampled_from([0, MP4_HEADER, TXT_HEADER]), st.integers(0, 2), st.integers(0, BLOCK - 1), st.integers(1, 255))
def test_a_header_that_differs_in_one_byte_is_refused(member: int, nth: int, at: int, mask: int) -> None:
    with pytest.raises(DamagedShard, match="train/nsp-000007"):
        read(flipped(WHOLE, nth * FIRST + member + at, mask))


@pytest.mark.parametrize("at", range(148, 156))
def test_a_changed_byte_of_a_header_s_checksum_is_refused(at: int) -> None:
    for mask in range(1, 256):
        with pytest.raises(DamagedShard, match="train/nsp-000007"):
            read(flipped(WHOLE, FIRST + at, mask))


@given(st.integers(700, 2 * BLOCK - 1), st.integers(1, 255))
def test_the_padding_is_blank(at: int, mask: int) -> None:
    with pytest.raises(DamagedShard, match="train/nsp-000007"):
        read(flipped(WHOLE, FIRST + MP4_HEADER + BLOCK + at, mask))


def test_the_message_names_the_sample_and_what_is_wrong_with_it() -> None:
    key = f"{2:024x}"
    with pytest.raises(DamagedShard, match=f"sample '{key}'.*cut short"):
        read(DAMAGED["cut inside data"])
    with pytest.raises(DamagedShard, match=f"sample '{key}' has json, txt; a clip has json, mp4 or jpg, txt"):
        read(DAMAGED["the mp4 missing"])
    with pytest.raises(DamagedShard, match="bytes follow the end mark"):
        read(DAMAGED["a byte behind the end"])
