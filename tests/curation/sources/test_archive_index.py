"""Planning that was stopped continues after the archives that it has listed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nextscene.common.joined_storage import SEPARATOR
from nextscene.common.storage import Storage
from nextscene.curation.plan import Plan
from nextscene.curation.plan_writer import write_plan
from nextscene.curation.sources import Source
from nextscene.curation.sources.archive_index import FOLDER, ArchiveIndex
from tests.support import REPOSITORY, SMALL

ZIPS = 300


def listed(index: ArchiveIndex, root: Path, names: list[str], asked: list[str]) -> dict[str, list[object]]:
    def read(location: str) -> Iterator[object]:
        asked.append(location)
        yield [location, "\udcff", 1]
        if (root / location).read_bytes() == b"bad":
            raise ValueError(location)
        yield {"end": location}

    return {name: list(values) for name, values in index.listings(Storage.at(root), names, "test", read)}


def test_an_archive_is_read_once_until_it_changes(tmp_path: Path) -> None:
    names = [f"{number}.zip" for number in range(30)]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    index, asked = ArchiveIndex(Storage.at(tmp_path / "out")), list[str]()
    expected = {name: [[name, "\udcff", 1], {"end": name}] for name in names}
    assert listed(index, tmp_path, names, asked) == expected and sorted(asked) == sorted(names)
    assert listed(index, tmp_path, names, asked) == expected and len(asked) == len(names)
    (tmp_path / "7.zip").write_bytes(b"xy")
    assert listed(index, tmp_path, names, asked) == expected and asked[len(names) :] == ["7.zip"]
    index.clear()
    assert not (tmp_path / "out" / FOLDER).exists()


def test_an_error_leaves_what_was_listed_and_nothing_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"x")
    (tmp_path / "b.zip").write_bytes(b"bad")
    index, asked = ArchiveIndex(Storage.at(tmp_path / "out")), list[str]()
    with pytest.raises(ValueError, match=r"b\.zip"):
        listed(index, tmp_path, ["a.zip", "b.zip"], asked)
    (tmp_path / "b.zip").write_bytes(b"good")
    asked.clear()
    assert [*listed(index, tmp_path, ["a.zip", "b.zip"], asked)] == ["a.zip", "b.zip"] and asked == ["b.zip"]


def write_set(folder: Path) -> Path:
    """A VidGen of many zips, the last with one wrong byte in its directory."""
    folder.mkdir()
    for number in range(ZIPS):
        with zipfile.ZipFile(folder / f"VidGen_video_{number}.zip", "w") as archive:
            archive.writestr(f"VidGen_video_{number}/{number}-Scene-1.mp4", b"x")
    last = folder / f"VidGen_video_{ZIPS - 1}.zip"
    data = bytearray(last.read_bytes())
    data[data.rindex(b"PK\x01\x02")] ^= 1
    last.write_bytes(data)
    rows = [{"vid": f"{number}-Scene-1", "caption": "words"} for number in range(ZIPS)]
    (folder / "VidGen_1M_video_caption.json").write_text(json.dumps(rows))
    return folder


PLAN = """
import sys
from nextscene.common.joined_storage import SEPARATOR
from nextscene.common.storage import Storage
from nextscene.curation.plan_writer import write_plan
from nextscene.curation.sources import Source
from tests.support import SMALL
write_plan(Storage.at(sys.argv[2]), Source.at(sys.argv[1]), SMALL)
"""


def test_a_killed_planning_continues_and_a_bad_archive_is_one_item(tmp_path: Path) -> None:
    source, out = f"vidgen:{write_set(tmp_path / 'set')}", tmp_path / "out"
    out.mkdir()
    process = subprocess.Popen([sys.executable, "-c", PLAN, source, str(out)], cwd=REPOSITORY)
    saved: set[str] = set()
    while len(saved) < ZIPS // 4 and process.poll() is None:
        time.sleep(0.005)
        saved = {path.name for path in (out / FOLDER).glob("*.gz")}
    process.send_signal(signal.SIGKILL)
    process.wait()
    times = {path.name: path.stat().st_mtime_ns for path in (out / FOLDER).glob("*.gz")}
    assert process.returncode == -signal.SIGKILL and ZIPS // 4 <= len(times) < ZIPS
    kept: dict[str, int] = {}
    clear = ArchiveIndex.clear

    def note(index: ArchiveIndex) -> None:
        kept.update({path.name: path.stat().st_mtime_ns for path in (out / FOLDER).glob("*.gz")})
        clear(index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArchiveIndex, "clear", note)
        write_plan(Storage.at(out), Source.at(source), SMALL)
    assert len(kept) == ZIPS and times.items() <= kept.items()
    assert not (out / FOLDER).exists()
    flaws = [row["flaw"] for row in Plan(Storage.at(out), SMALL).rows()]
    assert sorted(flaws) == ["", *[""] * (ZIPS - 2), "absent", "archive_damaged"]


def test_a_bad_byte_in_the_last_tar_leaves_the_others(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / "x.jpg").write_bytes(b"image")
        (tmp_path / "x.txt").write_text("words")
        with tarfile.open(tmp_path / f"sa_{number:06}.tar", "w") as tar:
            for suffix in ("jpg", "txt"):
                tar.add(tmp_path / f"x.{suffix}", f"{number}.{suffix}")
    last = tmp_path / "sa_000099.tar"
    data = bytearray(last.read_bytes())
    data[148] ^= 1  # in the checksum of the first header
    last.write_bytes(data)
    os.unlink(tmp_path / "x.jpg")
    os.unlink(tmp_path / "x.txt")
    clips = list(Source.at(f"blip3o:{tmp_path}").clips())
    assert [clip.flaw for clip in clips] == [""] * 99 + ["archive_damaged"]
    assert clips[0].name == "sa_000000.tar/0.jpg" and clips[0].caption == "words"


def test_pieces_that_change_places_are_listed_anew(tmp_path: Path) -> None:
    """Sum of sizes and latest time stay as they were."""
    pieces = [tmp_path / f"w.tar.00{number}" for number in range(3)]
    for number, piece in enumerate(pieces):
        piece.write_bytes(bytes([number]) * 100)
        os.utime(piece, (number, number))
    index, asked = ArchiveIndex(Storage.at(tmp_path / "out")), list[str]()
    location = SEPARATOR.join(piece.name for piece in pieces)

    def read(name: str) -> Iterator[object]:
        asked.append(name)
        yield [1]

    def listings() -> None:
        assert [[*values] for _, values in index.listings(Storage.at(tmp_path), [location], "x", read)] == [[[1]]]

    listings()
    listings()
    assert asked == [location]
    pieces[0].rename(tmp_path / "aside")
    pieces[1].rename(pieces[0])
    (tmp_path / "aside").rename(pieces[1])
    listings()
    assert asked == [location] * 2
