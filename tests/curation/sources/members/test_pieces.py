"""Split archives: which files are pieces of one, in which order, and which piece is missing."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from nextscene.common.storage import Storage
from nextscene.curation.sources import Source
from nextscene.curation.sources.members import archives
from nextscene.curation.sources.members.pieces import grouped, missing_piece, neighbors
from nextscene.curation.sources.reader import SourceReader
from tests.curation.sources.members.reading import clip_of, contents, listed_until_damage, usable

MEMBERS = {f"part_1/{number}.mp4": os.urandom(4000) for number in range(12)}


def packed(path: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in MEMBERS.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
            for name, data in MEMBERS.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


FORMS = {
    "X.zip": ("X_part", ["-b", "7000"]),
    "Y.tar": ("Y.tar.split.", ["-n", "3", "-d", "-a", "3"]),
    "Z.zip": ("Z.zip.", ["-b", "9999", "--numeric-suffixes=1", "-a", "3"]),
    "W.tar.gz": ("W.tar.gz.part", ["-b", "8000"]),
    "V.tar": ("V_part", ["-b", "50", "-a", "3"]),
    "U.zip": ("U.zip.", ["-b", "60"]),
}


def split(folder: Path, name: str) -> list[str]:
    """Write an archive in pieces, by the command split, and return their names in order."""
    stem, how = FORMS[name]
    path = packed(folder / name)
    subprocess.run(["split", *how, path.name, stem], cwd=folder, check=True)
    path.unlink()
    return sorted(file.name for file in folder.iterdir() if file.name.startswith(stem))


@pytest.mark.parametrize("name", FORMS)
def test_pieces_of_split_are_read_as_the_archive(name: str, tmp_path: Path) -> None:
    pieces = split(tmp_path, name)
    (location,) = archives(Storage.at(tmp_path), ["*"])
    assert location.split("\0") == pieces
    found, bad = listed_until_damage(tmp_path, location)
    assert bad is None
    chosen = list(MEMBERS)[:: 4 if len(pieces) > 100 else 1]
    assert {one: contents(tmp_path, usable(found)[one]) for one in chosen} == {one: MEMBERS[one] for one in chosen}
    files = [(tmp_path / piece).stat() for piece in pieces]
    assert found[0].size == sum(file.st_size for file in files)
    assert found[0].mtime_ns == max(file.st_mtime_ns for file in files)


@pytest.mark.parametrize("name", ["X.zip", "Y.tar", "Z.zip", "W.tar.gz"])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_missing_piece_is_named(name: str, place: int, tmp_path: Path) -> None:
    pieces = split(tmp_path, name)
    gone = pieces.pop(place)
    found, bad = listed_until_damage(tmp_path, "\0".join(pieces))
    if (name, place) == ("Z.zip", 0):
        gone = "Z.zip.000"  # it begins at 0 or at 1
    assert bad is not None and gone in str(bad) and "\0" not in str(bad)
    assert bool(found) == (place == -1 and not name.endswith("zip"))


@pytest.mark.parametrize("name", ["X.zip", "Y.tar"])
def test_an_incomplete_last_piece_is_told(name: str, tmp_path: Path) -> None:
    pieces = split(tmp_path, name)
    last = tmp_path / pieces[-2]
    (tmp_path / pieces[-1]).unlink()
    last.write_bytes(last.read_bytes()[:-30])
    _, bad = listed_until_damage(tmp_path, "\0".join(pieces[:-1]))
    assert bad is not None and pieces[-1] in str(bad)


def test_pieces_of_an_unknown_archive_are_told(tmp_path: Path) -> None:
    for mark in ("aa", "ab"):
        (tmp_path / f"X_part{mark}").write_bytes(b"x" * 999)
    _, bad = listed_until_damage(tmp_path, "X_partaa\0X_partab")
    assert bad is not None and bad.reason == "archive_unknown"


@pytest.mark.parametrize("how", [["-a", "3"], ["-d"], ["-d", "-a", "4"], []])
def test_names_follow_each_other_as_split_makes_them(how: list[str], tmp_path: Path) -> None:
    """Without `-a`, the names get longer after 650 or 90 pieces."""
    (tmp_path / "file").write_bytes(b"x" * 760)
    subprocess.run(["split", "-b", "1", *how, "file", "a.tar.part-"], cwd=tmp_path, check=True)
    names = sorted(path.name for path in tmp_path.iterdir() if path.name != "file")
    shuffled = random.Random(3).sample(names, len(names))
    assert grouped(shuffled) == [names]
    assert missing_piece(names) == ""
    assert missing_piece(names[:300] + names[301:]) == names[300]
    assert neighbors(names[:10])[-1] == names[10]


def test_other_names_are_not_archives() -> None:
    names = """a.zip b.tar c.TAR.GZ d.tgz a.zip.md5 a.zip.json b.tar.idx b.tar.bak x_part1 c.mp4 zip notes_particular
        e.tar.ab f_partaa f_partab g.zip.002 g.zip.001 h.tar.aa h.tar.ab i.7z.001""".split()
    assert grouped(names) == [
        ["a.zip"],
        ["b.tar"],
        ["c.TAR.GZ"],
        ["d.tgz"],
        ["f_partaa", "f_partab"],
        ["g.zip.001", "g.zip.002"],
        ["h.tar.aa", "h.tar.ab"],
    ]


def test_a_clip_in_pieces_is_checked_as_one_in_a_file_is(tmp_path: Path) -> None:
    """Its digest is that of its bytes; another size, other bytes and a lost disk are told apart."""
    (tmp_path / "in").mkdir()
    pieces = split(tmp_path / "in", "X.zip")
    location = "\0".join(f"in/{piece}" for piece in pieces)
    found, _ = listed_until_damage(tmp_path, location)
    clip = clip_of(usable(found)["part_1/1.mp4"])
    whole = b"".join((tmp_path / "in" / piece).read_bytes() for piece in pieces)
    region = Source(Storage.at(tmp_path), "").region_of(clip)
    assert region is not None and region[0] == tuple(tmp_path / "in" / piece for piece in pieces)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    reader = SourceReader(Storage.at(tmp_path), scratch)
    assert reader.fetch(clip).read_bytes() == MEMBERS["part_1/1.mp4"]
    assert whole[clip.offset :].startswith(b"PK\3\4")
    reader.read_through(clip)
    shutil.rmtree(tmp_path / "in")
    with pytest.raises(Exception, match="folder is gone"):
        reader.fetch(clip)
