"""Zips listed from their directories: the names, sizes and bytes that other programs find, and hostile directories."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.storage import Storage
from nextscene.curation.sources.members import BadArchive, members_of
from tests.curation.sources.members.reading import contents, listed, listed_until_damage, usable

NAMES = st.lists(st.text("aé中 .-", min_size=1, max_size=6), min_size=1, max_size=3).map("/".join)
SOUND = NAMES.filter(lambda name: not {".", "..", ""} & set(name.split("/")))
MEMBERS = st.dictionaries(SOUND, st.tuples(st.binary(max_size=3000), st.booleans()), max_size=8)


def zipped(path: Path, members: dict[str, bytes], deflate: bool = False, comment: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED) as archive:
        archive.comment = comment
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@settings(max_examples=60, deadline=None)
@given(MEMBERS, st.binary(max_size=40), st.binary(max_size=70_000), st.booleans(), st.booleans())
def test_members_are_those_that_zipfile_finds(
    some: dict[str, tuple[bytes, bool]], before: bytes, comment: bytes, streamed: bool, zip64: bool
) -> None:
    """Also behind other bytes, with a comment, written to a pipe (sizes behind the data), and as ZIP64."""
    comment = comment[:65535].replace(b"PK", b"..")
    out = io.BytesIO()
    with zipfile.ZipFile(_Pipe(out) if streamed else out, "w") as archive:
        archive.comment = comment
        for name, (data, deflate) in some.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
            with archive.open(info, "w", force_zip64=zip64) as file:
                file.write(data)
        archive.mkdir("a folder")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.zip")
        path.write_bytes(before + out.getvalue())
        found = listed(path)
        with zipfile.ZipFile(path) as oracle:
            wanted = [info for info in oracle.infolist() if not info.is_dir()]
            assert [(one.name, one.length, one.flaw) for one in found] == [
                (info.filename, info.compress_size, "") for info in wanted
            ]
            for one, info in zip(found, wanted, strict=True):
                assert contents(path.parent, one) == oracle.read(info)
                assert (one.location, one.size) == ("a.zip", path.stat().st_size)


class _Pipe:
    """An output that cannot seek."""

    def __init__(self, out: io.BytesIO) -> None:
        self.write, self.flush = out.write, out.flush


needs_zip = pytest.mark.skipif(not shutil.which("zip"), reason="no zip")


@needs_zip
def test_zips_of_info_zip_hold_what_was_put_in(tmp_path: Path) -> None:
    files = {"é/中.mp4": os.urandom(5000), "-a b.txt": b"text " * 900, "empty.mp4": b""}
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "in" / "link.mp4").symlink_to("é/中.mp4")
    run = {"cwd": tmp_path / "in", "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["zip", "-r", "-y", "../file.zip", "."], **run)  # type: ignore[call-overload]
    with (tmp_path / "piped.zip").open("wb") as out:
        subprocess.run(["zip", "-r", "-fz", "-", "."], **run | {"stdout": out})  # type: ignore[call-overload]
    found = listed(tmp_path / "file.zip")
    assert {one.name: contents(tmp_path, one) for one in found if not one.flaw} == files
    assert [(one.name, one.flaw) for one in found if one.flaw] == [("link.mp4", "member_is_link")]
    piped = listed(tmp_path / "piped.zip")
    assert {one.name: contents(tmp_path, one) for one in piped} == files | {"link.mp4": files["é/中.mp4"]}


@needs_zip
def test_a_member_with_a_password_is_told_as_encrypted(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"four" * 100)
    subprocess.run(["zip", "-q", "-P", "word", "a.zip", "a.mp4"], cwd=tmp_path, check=True)
    assert [(one.name, one.flaw) for one in listed(tmp_path / "a.zip")] == [("a.mp4", "member_encrypted")]


@needs_zip
def test_the_last_disk_of_several_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(os.urandom(200_000))
    subprocess.run(["zip", "-q", "-s", "64k", "a.zip", "a.mp4"], cwd=tmp_path, check=True)
    with pytest.raises(BadArchive, match=r"several disks.*zip -s 0"):
        listed(tmp_path / "a.zip")


def test_a_zip_of_35_gigabytes_is_listed_by_offsets_of_64_bits(tmp_path: Path) -> None:
    """The file is sparse: only headers and the directory are written."""
    path, far = tmp_path / "large.zip", 35 << 30
    with path.open("w+b") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("first.mp4", b"one")
        begin = archive.start_dir
        large = zipfile.ZipInfo("large.mp4")
        large.CRC, large.header_offset = 0, begin
        large.file_size = large.compress_size = far - begin
        file.seek(begin)
        file.write(large.FileHeader(zip64=True))
        large.compress_size = large.file_size = far - file.tell()
        archive.filelist.append(large)
        file.seek(far)
        archive.start_dir = far
        archive.writestr("last.mp4", b"three")
    found = usable(listed(path))
    with zipfile.ZipFile(path) as oracle:
        assert [(one.name, one.offset, one.length) for one in found.values()] == [
            (info.filename, info.header_offset, info.compress_size) for info in oracle.infolist()
        ]
    assert contents(tmp_path, found["first.mp4"]) == b"one"
    assert contents(tmp_path, found["last.mp4"]) == b"three" and found["last.mp4"].offset == far


def entry(
    name: bytes,
    offset: int = 0,
    data: bytes = b"",
    flags: int = 0,
    method: int = 0,
    system: int = 3,
    mode: int = 0,
    size: int | None = None,
    stored: int | None = None,
    crc: int | None = None,
    extra: bytes = b"",
) -> bytes:
    """Return an entry of a directory, made by hand from the format's description."""
    fixed = struct.pack(
        "<4sBBHHHHHLLLHHHHHLL",
        b"PK\x01\x02",
        20,
        system,
        20,
        flags,
        method,
        0,
        33,
        zlib.crc32(data) if crc is None else crc,
        len(data) if stored is None else stored,
        len(data) if size is None else size,
        len(name),
        len(extra),
        0,
        0,
        0,
        mode << 16,
        offset,
    )
    return fixed + name + extra


def local(name: bytes, data: bytes, method: int = 0, extra: bytes = b"") -> bytes:
    head = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, method, 0, 33, 0, 0, 0, len(name), len(extra))
    return head + name + extra + data


def by_hand(path: Path, body: bytes, *entries: bytes, count: int | None = None, comment: bytes = b"") -> Path:
    directory = b"".join(entries)
    number = len(entries) if count is None else count
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, number, number, len(directory), len(body), len(comment))
    path.write_bytes(body + directory + end + comment)
    return path


FLAWS: dict[str, tuple[bytes, str, str]] = {
    "leads out": (entry(b"../a.mp4"), "../a.mp4", "bad_member_name"),
    "leads out later": (entry(b"a/../../b.mp4"), "a/../../b.mp4", "bad_member_name"),
    "a zero byte": (entry(b"a\0.mp4"), "a\\x00.mp4", "bad_member_name"),
    "an empty name": (entry(b""), ".", "bad_member_name"),
    "says UTF-8 and is not": (entry(b"\xe9.mp4", flags=1 << 11), "\\xe9.mp4", "bad_member_name"),
    "absolute": (entry(b"/etc/a.mp4"), "etc/a.mp4", ""),
    "a code page": (entry(b"\x82.mp4"), "é.mp4", ""),
    "UTF-8 that says nothing": (entry("é.mp4".encode()), "é.mp4", ""),
    "UTF-8 beside": (
        entry(b"#.mp4", extra=struct.pack("<HHBL", 0x7075, 11, 1, zlib.crc32(b"#.mp4")) + "é.mp4".encode()),
        "é.mp4",
        "",
    ),
    "UTF-8 beside, of another name": (
        entry(b"#.mp4", extra=struct.pack("<HHBL", 0x7075, 11, 1, 7) + "é.mp4".encode()),
        "#.mp4",
        "",
    ),
    "backslashes of Windows": (entry(rb"a\b.mp4", system=0), "a/b.mp4", ""),
    "a backslash elsewhere": (entry(rb"a\b.mp4"), r"a\b.mp4", ""),
    "a dot": (entry(b"./a//b.mp4"), "a/b.mp4", ""),
    "bzip2": (entry(b"a.mp4", method=12), "a.mp4", "member_method_unknown"),
    "strong encryption": (entry(b"a.mp4", flags=1 | 1 << 13), "a.mp4", "member_encrypted"),
    "a device": (entry(b"a.mp4", mode=0o020644), "a.mp4", "member_is_link"),
    "a file with a mode": (entry(b"a.mp4", mode=0o100644), "a.mp4", ""),
    "far outside": (entry(b"a.mp4", offset=10**9), "a.mp4", "member_outside_archive"),
    "longer than the file": (entry(b"a.mp4", stored=10**9, size=10**9), "a.mp4", "member_outside_archive"),
    "into the directory": (entry(b"a.mp4", offset=40), "a.mp4", "member_outside_archive"),
    "without 64-bit values": (entry(b"a.mp4", offset=0xFFFFFFFF), "a.mp4", "member_outside_archive"),
    "with values of 2^64 bytes": (
        entry(b"a.mp4", offset=0xFFFFFFFF, stored=0xFFFFFFFF, extra=struct.pack("<HH2Q", 1, 16, 2**64 - 1, 2**64 - 1)),
        "a.mp4",
        "member_outside_archive",
    ),
    "a huge claim": (entry(b"a.mp4", method=8, size=1 << 31, stored=2), "a.mp4", "member_size_implausible"),
}


@pytest.mark.parametrize("kind", FLAWS)
def test_each_odd_entry_has_its_outcome(kind: str, tmp_path: Path) -> None:
    made, name, flaw = FLAWS[kind]
    (found,) = listed(by_hand(tmp_path / "a.zip", local(b"a.mp4", b"12" * 10), made))
    assert (found.name, found.flaw, bool(found.flaw_detail)) == (name, flaw, bool(flaw))


def test_folders_are_left_out_and_of_one_name_twice_the_first_counts(tmp_path: Path) -> None:
    body = local(b"a.mp4", b"one") + local(b"./a.mp4", b"two")
    second = len(local(b"a.mp4", b"one"))
    folders = entry(b"a/", second), entry(b"b\\", second, system=0)
    path = by_hand(tmp_path / "a.zip", body, entry(b"a.mp4", data=b"one"), *folders, entry(b"./a.mp4", second, b"two"))
    found = listed(path)
    assert [(one.name, one.flaw) for one in found] == [("a.mp4", ""), ("a.mp4", "member_repeated")]
    assert contents(tmp_path, found[0]) == b"one"


def test_members_that_share_bytes_are_told_and_the_others_are_read(tmp_path: Path) -> None:
    """As in the zips that unpack to millions of times their size: many entries, and one body."""
    one, two = local(b"a", b"1" * 50), local(b"b", b"2" * 50)
    path = by_hand(
        tmp_path / "a.zip",
        one + two,
        entry(b"b", len(one), b"2" * 50),
        entry(b"a", 0, b"1" * 50),
        entry(b"c", 0, b"1" * 50),
        entry(b"d", 20, b"1" * 10),
    )
    flaws = {found.name: found.flaw for found in listed(path)}
    assert flaws == {"b": "", "a": "member_overlaps", "c": "member_overlaps", "d": "member_overlaps"}


def corrupted(change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = zipped(folder / "a.zip", {f"{number}.mp4": bytes([number]) * 100 for number in range(9)})
        path.write_bytes(change(path.read_bytes()))
        return path

    return make


BAD: dict[str, tuple[Callable[[Path], Path], str, int]] = {
    "empty": (corrupted(lambda data: b""), "archive_incomplete", 0),
    "text": (corrupted(lambda data: b"version https://git-lfs.github.com/spec/v1\n"), "lfs_pointer", 0),
    "cut": (corrupted(lambda data: data[:-100]), "archive_incomplete", 0),
    "without its beginning": (corrupted(lambda data: data[300:]), "archive_incomplete", 0),
    "an entry overwritten": (corrupted(lambda data: b"PK\1\3".join(data.rsplit(b"PK\1\2", 1))), "archive_damaged", 8),
    "a long name": (
        lambda folder: by_hand(folder / "a.zip", b"", entry(b"a"), entry(b"b" * 9)[:-1]),
        "archive_damaged",
        1,
    ),
    "fewer entries": (lambda folder: by_hand(folder / "a.zip", b"", entry(b"a"), count=2), "archive_damaged", 1),
    "something in it": (lambda folder: by_hand(folder / "a.zip", b"", entry(b"a"), b"PK\5\5??"), "archive_damaged", 1),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_zip_is_told_after_what_is_sound(kind: str, tmp_path: Path) -> None:
    make, reason, sound = BAD[kind]
    path = make(tmp_path)
    found, bad = listed_until_damage(tmp_path, path.name)
    assert bad is not None and bad.reason == reason and len(found) == sound
    assert str(bad).startswith(f"{path}: ") and "\n" not in str(bad)


def test_a_count_above_65535_may_be_written_without_zip64(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "a.zip", b"", *(entry(b"%d" % n, offset=9) for n in range(65536 + 3)), count=3)
    assert len(listed(path)) == 65536 + 3


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_change_of_a_directory_gives_members_or_one_error(drawn: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = zipped(Path(folder, "a.zip"), {"a.mp4": b"1" * 40, "b.mp4": b"2" * 40}, comment=b"said")
        data = bytearray(path.read_bytes())
        for _ in range(drawn.draw(st.integers(1, 4))):
            data[drawn.draw(st.integers(0, len(data) - 1))] = drawn.draw(st.sampled_from([0, 1, 8, 80, 255]))
        path.write_bytes(data)
        found, _ = listed_until_damage(path.parent, path.name)
        assert all(0 <= one.offset <= len(data) and one.length <= len(data) for one in found if not one.flaw)


def test_the_zip_of_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="no such file") as error:
        list(members_of(Storage.at(tmp_path), "a.zip"))
    assert error.value.reason == "archive_missing"
