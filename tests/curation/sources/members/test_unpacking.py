"""Packed members on their way back: damage, bombs and wrong claims end in one outcome, in bounded space."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.storage import Storage
from nextscene.curation.sources.members import DamagedMember, Member, Packing, members_of, unpack
from nextscene.curation.sources.reader import SourceReader
from tests.curation.sources.members.reading import clip_of, contents, listed

DATA = os.urandom(3000) + b"again " * 500


@given(st.sampled_from(["stored", "deflate", "gzip"]), st.integers(0, 2**32 - 1), st.integers(0, 2**63))
def test_a_packing_is_read_as_it_was_written(method: str, crc: int, size: int) -> None:
    packing = Packing(method, crc, size)  # type: ignore[arg-type]
    assert Packing.parse(str(packing)) == packing


@pytest.mark.parametrize("text", ["", "stored", "lzma:1:2", "stored:xyz:1", "stored:1:x", "stored:1:2:3"])
def test_what_is_not_a_packing_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        Packing.parse(text)


def one_member(folder: Path, method: int) -> Member:
    with zipfile.ZipFile(folder / "a.zip", "w", method) as archive:
        archive.writestr("a.mp4", DATA)
    return listed(folder / "a.zip")[0]


CHANGES: dict[str, Callable[[Member, bytearray], Member]] = {
    "a byte": lambda member, data: data.__setitem__(500, data[500] ^ 1) or member,  # type: ignore[func-returns-value]
    "the header": lambda member, data: data.__setitem__(0, 0) or member,  # type: ignore[func-returns-value]
    "the length of the name": lambda member, data: data.__setitem__(26, 9) or member,  # type: ignore[func-returns-value]
    "the CRC-32": lambda member, data: repacked(member, crc=1),
    "a size too small": lambda member, data: repacked(member, size=100),
    "a size too large": lambda member, data: repacked(member, size=10**9),
    "too short": lambda member, data: replace(member, length=member.length - 9),
    "outside": lambda member, data: replace(member, offset=10**9),
}


def repacked(member: Member, **values: int) -> Member:
    return replace(member, packed=str(replace(Packing.parse(member.packed), **values)))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("change", CHANGES)
def test_damage_is_told_and_a_member_never_passes_its_size(change: str, method: int, tmp_path: Path) -> None:
    member = one_member(tmp_path, method)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    changed = CHANGES[change](member, data)
    (tmp_path / "a.zip").write_bytes(data)
    reader = SourceReader(Storage.at(tmp_path), tmp_path)
    with pytest.raises(DamagedMember) as error:
        reader.fetch(replace(clip_of(changed), mtime_ns=0))
    assert "\n" not in str(error.value)


@settings(max_examples=100, deadline=None)
@given(packed=st.binary(max_size=200), size=st.integers(0, 300))
def test_any_bytes_inflate_to_what_zlib_gives_or_are_damage(
    packed: bytes, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.getbasetemp() / "target"
    archive = io.BytesIO(b"PK\x03\x04" + bytes(26) + packed)
    try:
        wanted = zlib.decompress(packed, -15)
    except zlib.error:
        wanted = None
    packing = Packing("deflate", zlib.crc32(wanted or b""), size)
    try:
        unpack(archive, 0, len(packed), packing, target)
    except DamagedMember:
        assert wanted is None or len(wanted) != size
    else:
        assert target.read_bytes() == wanted or zlib.decompressobj(-15).decompress(packed) == target.read_bytes()


def test_a_bomb_ends_at_the_size_that_it_claims(tmp_path: Path) -> None:
    """1 GB of zeros in 1 MB, which claims 10 kB."""
    deflater, packed = zlib.compressobj(1, zlib.DEFLATED, -15), bytearray()
    for _ in range(100):
        packed += deflater.compress(bytes(10_000_000))
    packed += deflater.flush()
    archive = io.BytesIO(b"PK\x03\x04" + bytes(26) + packed)
    tracemalloc.start()
    with pytest.raises(DamagedMember, match="more than the 10000 bytes"):
        unpack(archive, 0, len(packed), Packing("deflate", 0, 10_000), tmp_path / "target")
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert (tmp_path / "target").stat().st_size <= 10_000


def test_members_of_a_gzipped_tar_are_read_in_any_order(tmp_path: Path) -> None:
    some = {f"{number}.mp4": os.urandom(2000 + number) for number in range(9)}
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name, data in some.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    found = {member.name: member for member in listed(tmp_path / "a.tar.gz")}
    reader = SourceReader(Storage.at(tmp_path), tmp_path)
    for name in (*some, *reversed(some), "5.mp4", "2.mp4"):
        assert reader.fetch(clip_of(found[name])).read_bytes() == some[name]
    assert contents(tmp_path, found["3.mp4"]) == some["3.mp4"]


def test_damage_in_a_gzipped_tar_is_that_of_the_clips_behind_it(tmp_path: Path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name in ("a.mp4", "b.mp4"):
            info = tarfile.TarInfo(name)
            info.size = 200_000
            tar.addfile(info, io.BytesIO(os.urandom(info.size)))
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(plain.getvalue()))
    before = [clip_of(member) for member in members_of(Storage.at(tmp_path), "a.tgz")]
    data = bytearray(path.read_bytes())
    data[300_000] ^= 1
    path.write_bytes(data)
    reader = SourceReader(Storage.at(tmp_path), tmp_path)
    assert len(reader.fetch(replace(before[0], mtime_ns=0)).read_bytes()) == 200_000
    with pytest.raises(DamagedMember):
        reader.fetch(replace(before[1], mtime_ns=0))
    assert len(reader.fetch(replace(before[0], mtime_ns=0)).read_bytes()) == 200_000
