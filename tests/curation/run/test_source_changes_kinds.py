"""Each way in which a source can differ from its plan is told, once for each clip; none is taken for "the same"."""

from __future__ import annotations

import os
import shutil
import tarfile
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.plan_writer import write_plan
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.run.prepare import prepare
from nextscene.curation.run.source_changes import SourceComparison, compare
from nextscene.curation.sources import Source
from nextscene.pipelines.cli.build_report import _same, source_line
from tests.support import SMALL, write_csv

FILM = replace(SMALL, judge="film")
NAMES = [f"{number}.mp4" for number in range(4)]
Rows = list[dict[str, str]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A table, a film of three spans in it, a tar, and files of equal size that no one decodes."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (*NAMES, "spare.mp4", "film.mp4"):
        (folder / name).write_bytes(name.ljust(64, ".").encode())
    rows = [{"video": name, "caption": f"words {name}", "id": name[0], "by": "me"} for name in NAMES]
    write_csv(folder / "clips.csv", rows)
    spans = [{"video": "film.mp4", "start": f"{n}", "end": f"{n + 1.5}", "caption": f"part {n}"} for n in range(3)]
    write_csv(folder / "film.csv", [*spans, {"video": "0.mp4", "start": "0", "end": "1", "caption": "alone"}])
    (folder / "3.txt").write_text("words")
    (folder / "tars").mkdir()
    pack(folder, *NAMES)
    return folder


def pack(folder: Path, *names: str, time: int = 1) -> None:
    """A tar of four members of equal size, whose names stay whatever files they are made of."""
    with tarfile.open(folder / "tars" / "a.tar", "w") as tar:
        for name in (*names, "3.txt"):
            member, _, file = name.partition("=")
            tar.add(folder / (file or member), member)
    os.utime(folder / "tars" / "a.tar", (time, time))


def edit(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    """A change of the lines of a table, its first line apart."""

    def edited(folder: Path) -> None:
        first, *lines = (folder / name).read_text().splitlines()
        (folder / name).write_text("\n".join([first, *change(lines)]) + "\n")

    return edited


def word(name: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new)) and None


def replaced(folder: Path) -> None:
    (folder / "2.mp4").write_bytes(b"2" * 64)
    os.utime(folder / "2.mp4", (5, 5))


def lost(folder: Path) -> None:
    (folder / "3.mp4").unlink()


SWAPPED = "2 clips in another order (1.mp4, 2.mp4)"
KINDS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "rows swapped": ("clips.csv", edit("clips.csv", lambda rows: [rows[0], rows[2], rows[1], rows[3]]), SWAPPED),
    "row in front": ("clips.csv", edit("clips.csv", lambda rows: ["spare.mp4,x,s,", *rows]), "1 clip new (spare.mp4)"),
    "first row gone": ("clips.csv", edit("clips.csv", lambda rows: rows[1:]), "1 clip gone (0.mp4)"),
    "other file": ("clips.csv", word("clips.csv", "1.mp4,", "spare.mp4,"), "1 clip of another file (spare.mp4)"),
    "column changed": ("clips.csv", word("clips.csv", "1,me", "1,you"), "1 clip with other columns (1.mp4)"),
    "row twice": (
        "clips.csv",
        edit("clips.csv", lambda rows: [*rows, rows[1]]),
        "1 clip in it twice, which no plan takes (1.mp4)",
    ),
    "file replaced": ("clips.csv", replaced, "1 clip with other contents (2.mp4)"),
    "file of a folder": (".", replaced, "1 clip with other contents (2.mp4)"),
    "caption of a film": (
        "film.csv",
        word("film.csv", "part 0", "other"),
        "1 clip with another caption (film.mp4 0–1.5 s), 1 clip after another caption (film.mp4 1–2.5 s)",
    ),
    "span of a film gone": (
        "film.csv",
        edit("film.csv", lambda rows: [rows[0], *rows[2:]]),
        "1 clip gone (film.mp4 1–2.5 s), 1 clip after another caption (film.mp4 2–3.5 s)",
    ),
    "films swapped": (
        "film.csv",
        edit("film.csv", lambda rows: [rows[3], *rows[:3]]),
        "4 clips in another order (film.mp4 0–1.5 s, film.mp4 1–2.5 s, …)",
    ),
    "member replaced": (
        "tars",
        lambda folder: pack(folder, "0.mp4", "1.mp4=spare.mp4", "2.mp4", "3.mp4", time=2),
        "1 clip with other contents (a.tar/1.mp4)",
    ),
    "members swapped": (
        "tars",
        lambda folder: pack(folder, "0.mp4", "2.mp4", "1.mp4", "3.mp4", time=2),
        "2 clips elsewhere in a tar (a.tar/2.mp4, a.tar/1.mp4)",
    ),
    "several": (
        "clips.csv",
        lambda folder: (word("clips.csv", "words 1", "other")(folder), replaced(folder), lost(folder)),
        "1 clip gone (3.mp4), 1 clip with another caption (1.mp4), 1 clip with other contents (2.mp4)",
    ),
}


def planned(source: Path, place: str, out: Path) -> Storage:
    prepare(Storage.at(out), Source.at(str(source / place)), FILM if place == "film.csv" else SMALL)
    return Storage.at(out)


def found(out: Storage, source: Path, place: str) -> SourceComparison:
    return compare(out, Source.at(str(source / place)), "film" if place == "film.csv" else "none")


@pytest.mark.parametrize("what", KINDS)
def test_each_kind_of_difference_is_told(what: str, source: Path, tmp_path: Path) -> None:
    place, change, words = KINDS[what]
    out = planned(source, place, tmp_path / "out")
    assert found(out, source, place).is_same
    change(source)
    assert source_line(found(out, source, place)) == f"The source has changed since it was planned: {words}"


def test_a_column_that_was_added_is_told(source: Path, tmp_path: Path) -> None:
    out = planned(source, "clips.csv", tmp_path / "out")
    lines = (source / "clips.csv").read_text().splitlines()
    (source / "clips.csv").write_text("\n".join(f"{line},{'more' if not n else 'x'}" for n, line in enumerate(lines)))
    assert found(out, source, "clips.csv").told() == "4 clips with other columns (0.mp4, 1.mp4, …)"


def test_rows_of_a_film_in_an_order_that_planning_refuses_are_not_the_same(source: Path, tmp_path: Path) -> None:
    out = planned(source, "film.csv", tmp_path / "out")
    edit("film.csv", lambda rows: [rows[1], rows[0], *rows[2:]])(source)
    now = found(out, source, "film.csv")
    assert not now.is_same and "out of order" in source_line(now)


def test_a_file_that_was_missing_and_is_there_is_told(source: Path, tmp_path: Path) -> None:
    kept = (source / "3.mp4").read_bytes()
    lost(source)
    out = planned(source, "clips.csv", tmp_path / "out")
    assert found(out, source, "clips.csv").is_same
    (source / "3.mp4").write_bytes(kept)
    assert found(out, source, "clips.csv").told() == "1 clip there now, missing when planned (3.mp4)"


def test_another_unicode_form_of_a_name_is_told_as_that(source: Path, tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "é.mp4") for form in ("NFC", "NFD")]
    shutil.copy(source / "spare.mp4", source / names[0])
    out = planned(source, ".", tmp_path / "out")
    (source / names[0]).rename(source / names[1])
    assert found(out, source, ".").told() == f"1 clip named in another Unicode form ({names[1]} is NFD now)"
    shutil.copy(source / "spare.mp4", source / names[0])
    assert found(out, source, ".").told() == f"1 clip new ({names[1]})"


# ---- what is not compared --------------------------------------------------------------------------------------


def test_files_with_another_time_and_the_same_contents_are_the_same(source: Path, tmp_path: Path) -> None:
    out = planned(source, "clips.csv", tmp_path / "out")
    for name in NAMES:
        os.utime(source / name, (7, 7))
    now = found(out, source, "clips.csv")
    assert now.is_same and _same(now) == "the source is as it was planned"


@pytest.mark.parametrize("digests", [True, False])
def test_contents_that_were_not_compared_are_told(
    digests: bool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many files with another time, or a plan of an older version that knows no contents."""
    out = Storage.at(tmp_path / "out")
    write_plan(out, Source.at(str(source / "clips.csv")), SMALL, columns=frozenset({"digest"} if digests else ()))
    monkeypatch.setattr("nextscene.curation.run.source_changes._MOST_READ", 2)
    for name in NAMES:
        os.utime(source / name, (7, 7))
    now, count = found(out, source, "clips.csv"), 2 if digests else 4
    assert now.is_same and _same(now) == (
        "the source's names, order, sizes and captions are as planned;"
        f" not compared: contents of {count} clips, whose files have another time"
    )


def test_of_an_object_store_is_said_what_was_compared(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs = {place: planned(source, place, tmp_path / place) for place in (".", "clips.csv")}
    monkeypatch.setattr(Storage, "is_local", property(lambda _: False))
    assert _same(found(outs["clips.csv"], source, "clips.csv")) == (
        "the source's names, order and captions are as planned; not compared: sizes and times of 4 clips"
    )
    assert _same(found(outs["."], source, ".")) == (
        "the source's names are as planned; not compared: sizes and times of 6 clips; captions of 6 clips"
    )


# ---- a source that has moved -----------------------------------------------------------------------------------

REFUSED = ("row in front", "first row gone", "other file", "row twice", "members swapped")


@pytest.mark.parametrize("what", KINDS)
def test_of_a_source_that_has_moved_the_same_is_said(
    what: str, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place, change, words = KINDS[what]
    out, moved = tmp_path / "out", tmp_path / "moved"
    planned(source, place, out)
    change(source)
    source.rename(moved)
    (different, *_) = words.partition(", 1 clip with another" if what == "several" else ", 1 clip after")
    if what in REFUSED or "gone" in words:
        with pytest.raises(UsageError) as told:
            planned(moved, place, out)
        assert f"is another source: {different}. Give the same source" in str(told.value)
        return
    planned(moved, place, out)
    recorded = RecordedConfig.read(Storage.at(out))
    assert recorded and recorded.source == str(Source.at(str(moved / place)).display_uri)
    stay = f"; as they were planned stay {words}" if "contents" not in words else ""
    assert caplog.messages[-1].endswith(f"its clips are the same{stay}")
