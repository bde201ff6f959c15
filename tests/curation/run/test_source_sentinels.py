"""One of a source's folders is gone as a whole: the machine's fault. One of its files is gone: the end of its clip."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nextscene.common.storage import Storage, StorageFault
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sources import Source
from tests.faults.kill_at_step import TINY
from tests.support import build_inline, ledger, make_video

pytestmark = pytest.mark.slow

FOLDERS = ("a", "b/x", "b/y", "c")
"""`b` is where another disk is mounted."""
CHANGED = "failed source_changed"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four videos with captions in each folder, and a plan of them in `out`."""
    video = make_video(tmp_path / "video.mp4", 0.125, "64x48")
    for folder in FOLDERS:
        (tmp_path / "in" / folder).mkdir(parents=True)
        for number in range(4):
            shutil.copy(video, tmp_path / "in" / folder / f"{number}.mp4")
            (tmp_path / "in" / folder / f"{number}.txt").write_text(f"number {number} of {folder}")
    plan(tmp_path / "in", tmp_path / "out")
    return tmp_path / "in"


def plan(source: Path, out: Path) -> None:
    prepare(Storage.at(out), Source.at(str(source)), TINY)


def ends(source: Path, out: Path) -> dict[str, str]:
    """How the clips of each video ended."""
    build_inline(source, out, TINY)
    return {row.source: f"{row.outcome} {row.reason}".strip() for row in ledger(out, TINY)}


def unmounted(disk: Path) -> None:
    """Its mount point is there, and empty."""
    shutil.rmtree(disk)
    disk.mkdir()


def unmounted_over_a_note(disk: Path) -> None:
    unmounted(disk)
    (disk / "not mounted").touch()


def links_that_lead_nowhere(disk: Path) -> None:
    for file in disk.rglob("*.mp4"):
        file.unlink()
        file.symlink_to("/nowhere")


def another_disk(disk: Path) -> None:
    for file in disk.rglob("*.mp4"):
        file.write_bytes(b"another file of that name")


@pytest.mark.parametrize(
    ("happens", "named"),
    [
        (shutil.rmtree, r"the folder \S+/in/b is gone or empty"),
        (unmounted, r"the folder \S+/in/b is gone or empty"),
        (unmounted_over_a_note, r"the folder \S+/in/b/x is gone or empty"),
        (links_that_lead_nowhere, r"the folder \S+/in/b/x is not the one that was planned"),
        (another_disk, r"the folder \S+/in/b/x is not the one that was planned"),
    ],
)
def test_a_folder_that_is_gone_stops_the_run_and_fails_no_clip(
    happens: Callable[[Path], None], named: str, source: Path, tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path / "kept", copy_function=shutil.copy2)
    happens(source / "b")
    with pytest.raises(StorageFault, match=rf"{named}.*[mM]ount .*; if .* on purpose, .* another `out`"):
        build_inline(source, tmp_path / "out", TINY)
    assert {row.outcome for row in ledger(tmp_path / "out", TINY)} == {"kept"}
    shutil.rmtree(source)
    shutil.copytree(tmp_path / "kept", source, copy_function=shutil.copy2)
    assert set(ends(source, tmp_path / "out").values()) == {"kept"}


def test_files_that_were_deleted_while_others_of_their_folder_remain_fail_alone(source: Path, tmp_path: Path) -> None:
    gone = {"a/0.mp4", "a/1.mp4", "b/x/3.mp4"}
    for name in gone:
        (source / name).unlink()
    found = ends(source, tmp_path / "out")
    assert {name for name, end in found.items() if end == CHANGED} == gone
    assert set(found.values()) == {"kept", CHANGED}


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """Every video in a folder of its own, `one/v0` to `two/v4`, and a plan of them in `out`."""
    video = make_video(tmp_path / "video.mp4", 0.125, "64x48")
    for disk in ("one", "two"):
        for number in range(5):
            folder = tmp_path / "in" / disk / f"v{number}"
            folder.mkdir(parents=True)
            shutil.copy(video, folder / "video.mp4")
            (folder / "video.txt").write_text(f"number {number} of {disk}")
    plan(tmp_path / "in", tmp_path / "out")
    return tmp_path / "in"


def test_the_only_video_of_a_folder_that_was_deleted_fails_alone(apart: Path, tmp_path: Path) -> None:
    """With its folder or without: the folders beside it say that the disk is there."""
    shutil.rmtree(apart / "one" / "v1")
    unmounted(apart / "two" / "v2")
    found = ends(apart, tmp_path / "out")
    assert {name for name, end in found.items() if end == CHANGED} == {"one/v1/video.mp4", "two/v2/video.mp4"}


@pytest.mark.parametrize("happens", [shutil.rmtree, unmounted, unmounted_over_a_note])
def test_a_disk_of_folders_with_a_video_each_is_missed_too(
    happens: Callable[[Path], None], apart: Path, tmp_path: Path
) -> None:
    happens(apart / "two")
    with pytest.raises(StorageFault, match=r"the folder \S+/in/two is"):
        build_inline(apart, tmp_path / "out", TINY)
    assert {row.outcome for row in ledger(tmp_path / "out", TINY)} == {"kept"}


def test_an_absolute_location_is_seen_by_the_files_beside_it_too(tmp_path: Path) -> None:
    """A manifest names videos on two disks; the one that is not there is named."""
    video = make_video(tmp_path / "video.mp4", 0.125, "64x48")
    rows = ["video,caption"]
    for disk in ("one", "two"):
        (tmp_path / disk).mkdir()
        for number in range(4):
            rows.append(f"{shutil.copy(video, tmp_path / disk / f'{number}.mp4')},number {number} of {disk}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    plan(tmp_path / "clips.csv", tmp_path / "out")
    for file in (tmp_path / "two").iterdir():
        os.truncate(file, 1)
    with pytest.raises(StorageFault, match=rf"the folder {tmp_path}/two is not the one that was planned"):
        build_inline(tmp_path / "clips.csv", tmp_path / "out", TINY)
