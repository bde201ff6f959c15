"""Tars listed from their headers: the members that tarfile finds, and all that is whole before damage."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.curation.sources.members import Packing
from tests.curation.sources.members.reading import contents, listed, listed_until_damage

MEMBERS = st.lists(
    st.tuples(st.text("abé/.", min_size=1, max_size=9).map("x{}y".format), st.binary(max_size=1500)),
    max_size=6,
    unique_by=lambda member: member[0],
)


def tarred(some: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in some:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@settings(max_examples=40, deadline=None)
@given(MEMBERS, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.booleans())
def test_members_are_those_that_tarfile_finds(some: list[tuple[str, bytes]], form: int, zipped: bool) -> None:
    data = tarred(some, form)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.tar.gz" if zipped else "a.tar")
        path.write_bytes(gzip.compress(data) if zipped else data)
        found = [member for member in listed(path) if not member.flaw]
        with tarfile.open(fileobj=io.BytesIO(data)) as oracle:
            places = [(info.offset_data, info.size) for info in oracle if ".." not in Path(info.name).parts]
        assert [(one.offset, one.length) for one in found] == places or len({str(Path(n)) for n, _ in some}) < len(some)
        for one in found:
            wanted = data[one.offset : one.offset + one.length]
            assert one.packed == (str(Packing("gzip", zlib.crc32(wanted), one.length)) if zipped else "")
            assert contents(path.parent, one) == wanted


@pytest.mark.parametrize("form", ["gnu", "ustar", "posix", "v7"])
def test_tars_of_the_command_tar_hold_what_was_put_in(form: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a b.mp4").write_bytes(b"1" * 700)
    os.link(tmp_path / "in" / "a b.mp4", tmp_path / "in" / "same.mp4")
    (tmp_path / "in" / "link.mp4").symlink_to("a b.mp4")
    with (tmp_path / "in" / "holes.mp4").open("wb") as file:
        file.truncate(1 << 20)
    command = ["tar", "-cf", "a.tar", "--sort=name", f"--format={form}", *(["-S"] if form == "gnu" else []), "in"]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = {member.name: member for member in listed(tmp_path / "a.tar")}
    assert {name: member.flaw for name, member in found.items()} == {
        "in/a b.mp4": "",
        "in/holes.mp4": "member_is_sparse" if form == "gnu" else "",
        "in/link.mp4": "member_is_link",
        "in/same.mp4": "",
    }
    assert contents(tmp_path, found["in/same.mp4"]) == b"1" * 700


def test_odd_names_have_an_outcome_of_their_own(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name in ("/abs.mp4", "../up.mp4", "é.mp4", "./a.mp4", "a.mp4", "a\\b.mp4"):
            tar.addfile(tarfile.TarInfo(name))
    assert [(one.name, one.flaw) for one in listed(tmp_path / "a.tar")] == [
        ("abs.mp4", ""),
        ("../up.mp4", "bad_member_name"),
        ("\\udce9.mp4", "bad_member_name"),
        ("a.mp4", ""),
        ("a.mp4", "member_repeated"),
        ("a\\b.mp4", ""),
    ]


SOME = [(f"{number}.mp4", bytes([65 + number]) * 3000) for number in range(5)]
BAD = {
    "cut in a member": (lambda data: data[: 2 * 3584 + 1000], "archive_damaged", 2),
    "cut in a header": (lambda data: data[: 2 * 3584 + 100], "archive_damaged", 2),
    "a header overwritten": (lambda data: data[:3584] + b"\xaa" * 512 + data[4096:], "archive_damaged", 1),
    "a header alone": (lambda data: data[:512], "archive_damaged", 0),
    "empty": (lambda data: b"", "archive_damaged", 0),
    "two joined": (lambda data: data + data, "archive_damaged", 5),
    "text": (lambda data: b"version https://git-lfs.github.com/spec/v1\n" * 20, "lfs_pointer", 0),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_whole_before_damage_is_listed(kind: str, tmp_path: Path) -> None:
    change, reason, whole = BAD[kind]
    (tmp_path / "a.tar").write_bytes(change(tarred(SOME, tarfile.USTAR_FORMAT)))
    found, bad = listed_until_damage(tmp_path, "a.tar")
    assert bad is not None and bad.reason == reason and "\n" not in str(bad)
    assert [contents(tmp_path, one) for one in found] == [data for _, data in SOME[:whole]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-2000], "archive_incomplete"),
        (lambda data: data[:4000] + b"\xff" * 99 + data[4099:], "archive_damaged"),
        (lambda data: data[:-8] + b"1234" + data[-4:], "archive_damaged"),
        (lambda data: b"x" * 600, "archive_damaged"),
    ],
)
def test_damage_in_a_gzipped_tar_is_told(change: object, reason: str, tmp_path: Path) -> None:
    packed = gzip.compress(tarred([(name, os.urandom(3000)) for name, _ in SOME]))
    (tmp_path / "a.tgz").write_bytes(change(packed))  # type: ignore[operator]
    found, bad = listed_until_damage(tmp_path, "a.tgz")
    assert bad is not None and bad.reason == reason and len(found) <= len(SOME)
