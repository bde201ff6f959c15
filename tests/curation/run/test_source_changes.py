"""A run over a finished OUT looks at its source, and says what is new, gone or changed in it."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nextscene.common.storage import Storage
from nextscene.curation.run.prepare import prepare
from nextscene.curation.run.source_changes import compare
from nextscene.curation.sources import Source
from nextscene.pipelines.cli.build_report import source_line
from tests.command import SMALL_FLAGS
from tests.fakes.without_ray import build, command, without_ray
from tests.support import SMALL, build_inline, make_video, write_csv

COUNT = 4
NOTHING = (
    "Nothing to do: every clip of the plan is decided, every shard is sealed, and the source is as it was planned."
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, a table and a tar of the same four videos, in `in`, and a dataset of each beside that."""
    base = tmp_path_factory.mktemp("made")
    video = make_video(base / "a.mp4", 0.25, "832x480")
    for number in range(COUNT):
        for name, data in ((f"{number}.mp4", video.read_bytes() + bytes(number)), (f"{number}.txt", b"words of it")):
            place = base / "in" / "folder" / "deep" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
    rows = [{"video": f"folder/deep/{number}.mp4", "caption": f"words {number}"} for number in range(COUNT)]
    write_csv(base / "in" / "clips.csv", rows)
    (base / "in" / "tars").mkdir()
    with tarfile.open(base / "in" / "tars" / "a.tar", "w") as tar:
        for number in range(COUNT):
            for suffix in ("mp4", "txt"):
                tar.add(base / "in" / "folder" / "deep" / f"{number}.{suffix}", f"{number}.{suffix}")
    for kind, place in (("folder", "folder"), ("table", "clips.csv"), ("tar", "tars")):
        build_inline(base / "in" / place, base / kind, SMALL)
    return base


@pytest.fixture
def copy(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, to be changed, and known to its datasets as their source."""
    without_ray(monkeypatch)
    shutil.copytree(made, tmp_path / "made", copy_function=shutil.copy2)
    return tmp_path / "made"


def moved(copy: Path, kind: str, place: str) -> None:
    build("--source", copy / "in" / place, "--out", copy / kind)


def add_files(copy: Path) -> None:
    for name in ("new", "other", "third"):
        shutil.copy(copy / "a.mp4", copy / "in" / "folder" / f"{name}.mp4")


def change_a_caption(copy: Path) -> None:
    (copy / "in" / "folder" / "deep" / "2.txt").write_text("other words")


def add_rows(copy: Path) -> None:
    with (copy / "in" / "clips.csv").open("a") as file:
        file.write("folder/deep/9.mp4,more\n")


def change_a_row(copy: Path) -> None:
    file = copy / "in" / "clips.csv"
    file.write_text(file.read_text().replace("words 1", "other words"))


def drop_a_row(copy: Path) -> None:
    file = copy / "in" / "clips.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def lose_a_file(copy: Path) -> None:
    (copy / "in" / "folder" / "deep" / "3.mp4").unlink()


def change_a_file(copy: Path) -> None:
    with (copy / "in" / "folder" / "deep" / "0.mp4").open("ab") as file:
        file.write(b"more")


def add_a_member(copy: Path) -> None:
    with tarfile.open(copy / "in" / "tars" / "a.tar", "a") as tar:
        tar.add(copy / "a.mp4", "new.mp4")


def add_a_tar(copy: Path) -> None:
    shutil.copy2(copy / "in" / "tars" / "a.tar", copy / "in" / "tars" / "b.tar")


def lose_the_tar(copy: Path) -> None:
    add_a_tar(copy)
    (copy / "in" / "tars" / "a.tar").unlink()


CHANGES: dict[str, tuple[str, str, Callable[[Path], None], str]] = {
    "files": ("folder", "folder", add_files, "3 clips new (new.mp4, other.mp4, …)"),
    "sidecar": ("folder", "folder", change_a_caption, "1 clip with another caption (deep/2.mp4)"),
    "file gone": ("folder", "folder", lose_a_file, "1 clip gone (deep/3.mp4)"),
    "file changed": ("folder", "folder", change_a_file, "1 clip of another size (deep/0.mp4)"),
    "rows": ("table", "clips.csv", add_rows, "1 clip new (folder/deep/9.mp4)"),
    "row changed": ("table", "clips.csv", change_a_row, "1 clip with another caption (folder/deep/1.mp4)"),
    "row gone": ("table", "clips.csv", drop_a_row, "1 clip gone (folder/deep/3.mp4)"),
    "file of a row gone": ("table", "clips.csv", lose_a_file, "1 clip gone (folder/deep/3.mp4)"),
    "file of a row changed": ("table", "clips.csv", change_a_file, "1 clip of another size (folder/deep/0.mp4)"),
    "tar": ("tar", "tars", add_a_tar, "4 clips new (b.tar/0.mp4, b.tar/1.mp4, …)"),
    "tar gone": (
        "tar",
        "tars",
        lose_the_tar,
        "4 clips new (b.tar/0.mp4, b.tar/1.mp4, …), 4 clips gone (a.tar/0.mp4, a.tar/1.mp4, …)",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_has_changed_in_the_source_is_found(what: str, copy: Path) -> None:
    kind, place, change, words = CHANGES[what]
    assert compare(Storage.at(copy / kind), Source.at(str(copy / "in" / place)), "none").is_same
    change(copy)
    found = compare(Storage.at(copy / kind), Source.at(str(copy / "in" / place)), "none")
    assert not found.is_same and source_line(found) == f"The source has changed since it was planned: {words}"


def test_what_has_changed_is_told_and_the_dataset_stays(copy: Path) -> None:
    moved(copy, "folder", "folder")
    assert build("--out", copy / "folder").splitlines()[0] == NOTHING
    before = {path: path.read_bytes() for path in (copy / "folder").rglob("*") if path.is_file()}
    add_files(copy)
    said = build("--out", copy / "folder")
    assert said.splitlines()[0] == (
        "The dataset is whole: every clip of its plan is decided."
        " The source has changed since it was planned: 3 clips new (new.mp4, other.mp4, …)."
    )
    assert "build the source into another --out" in said
    assert {path: path.read_bytes() for path in (copy / "folder").rglob("*") if path.is_file()} == before


def test_a_source_that_is_gone_or_cannot_be_read_was_not_compared(copy: Path) -> None:
    moved(copy, "folder", "folder")
    moved(copy, "table", "clips.csv")
    (copy / "in" / "clips.csv").write_text("vidoe\nx\n")
    (copy / "in" / "folder").rename(copy / "in" / "away")
    for kind, words in (("folder", "is not there"), ("table", "no column `video`")):
        line = build("--out", copy / kind).splitlines()[0]
        assert line.startswith("The dataset is whole") and "was not compared with the plan" in line and words in line
    # What is to be done anew needs it.
    ended = command("--out", copy / "folder", "--retry", "kept")
    assert ended.exit_code == 2
    (copy / "folder" / "SHA256SUMS").unlink()
    assert "was not compared" in build("--out", copy / "folder")
    assert (copy / "folder" / "SHA256SUMS").exists()


def test_changes_are_reported_after_a_resumed_run_and_not_after_planning(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    compared = []
    monkeypatch.setattr(
        "nextscene.curation.run.source_changes.compare", lambda *given: compared.append(given) or compare(*given)
    )
    said = build("--source", copy / "in" / "folder", "--out", out, *SMALL_FLAGS, "--stop-after", "2")
    assert compared == [] and "\nsource " not in said
    add_files(copy)
    said = build("--out", out)
    assert "\nsource    The source has changed since it was planned: 3 clips new (new.mp4, other.mp4, …)\n" in said
    assert len(compared) == 1 and not said.startswith("Nothing to do")


def test_a_source_that_has_moved_and_changed_is_not_told_to_be_as_planned(copy: Path) -> None:
    change_a_caption(copy)
    (line, *_) = build("--source", copy / "in" / "folder", "--out", copy / "folder").splitlines()
    assert line.startswith("The dataset is whole") and "1 clip with another caption" in line
    assert build("--out", copy / "folder").splitlines()[0] == line


def test_neither_videos_nor_tars_as_planned_are_opened(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Storage.at(copy / "new")
    prepare(out, Source.at(str(copy / "in" / "tars")), SMALL)
    monkeypatch.setattr("nextscene.curation.sources.digests", None)
    monkeypatch.setattr("nextscene.curation.sources.folder.clips_of_tar", None)
    assert compare(out, Source.at(str(copy / "in" / "tars")), "none").is_same
    monkeypatch.undo()
    os.utime(copy / "in" / "tars" / "a.tar", (1, 1))
    assert compare(out, Source.at(str(copy / "in" / "tars")), "none").is_same
    add_a_member(copy)
    found = compare(out, Source.at(str(copy / "in" / "tars")), "none")
    assert found.told() == "1 clip new (a.tar/new.mp4), 4 clips of another size (a.tar/0.mp4, a.tar/1.mp4, …)"
