"""Storage: a file is published whole or not at all, and whatever the disk does wrong is a StorageFault."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from nextscene.common.atomic import final_name_of_draft
from nextscene.common.filesystem import connect
from nextscene.common.storage import Storage, StorageFault
from nextscene.shards.format.layout import owns


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- publishing ------------------------------------------------------------------------------------------------


def test_a_file_is_published_whole_with_its_folders(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    with out.atomic_writer("a/b/c.bin") as file:
        file.write(b"one, ")
        assert out.stat("a/b/c.bin") is None
        file.write(b"two")
    assert tree(tmp_path) == {"a/b/c.bin": b"one, two"}


def test_what_is_published_can_be_read_back_before_it_is(tmp_path: Path) -> None:
    with Storage.at(tmp_path).atomic_writer("a") as file:
        file.write(b"0123456789")
        file.seek(3)
        assert file.read(4) == b"3456"
    assert tree(tmp_path) == {"a": b"0123456789"}


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_a_block_that_raises_publishes_nothing_and_leaves_no_draft(tmp_path: Path, error: BaseException) -> None:
    out = Storage.at(tmp_path)
    out.write("kept", b"before")
    for path in ("kept", "new", "folder/new"):
        with pytest.raises(type(error)), out.atomic_writer(path) as file:
            file.write(b"x" * 100_000)
            file.flush()
            raise error
    assert tree(tmp_path) == {"kept": b"before"}


def test_a_disk_error_inside_the_block_is_a_fault_naming_path_and_storage(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    with (
        pytest.raises(StorageFault, match=f"cannot write a/b in {tmp_path}: Input/output error"),
        out.atomic_writer("a/b"),
    ):
        raise OSError(5, os.strerror(5))
    assert tree(tmp_path) == {}


def test_publishing_again_replaces_the_file_but_not_for_open_readers(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    out.write("a", b"before")
    with out.open("a") as reader:
        out.write("a", b"after, and longer")
        assert reader.read() == b"before"
    assert out.read("a") == b"after, and longer"


PART = "parts/train-00000000.part"


def test_drafts_are_not_listed_and_a_sweep_removes_those_of_killed_writers(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    out.write("folder/whole", b"x")
    with suppress(KeyboardInterrupt), out.atomic_writer(PART):
        (draft,) = set(tree(tmp_path)) - {"folder/whole"}
        assert [entry.path for entry in out.files(recursive=True)] == ["folder/whole"]
        assert final_name_of_draft(Path(draft).name) == Path(PART).name
        raise KeyboardInterrupt
    (tmp_path / draft).write_bytes(b"half")
    out.remove_drafts(owns)
    assert tree(tmp_path) == {"folder/whole": b"x"}


@pytest.mark.parametrize(
    "draft",
    [
        "parts/.b.unfinished",
        "parts/.mine.0123abcd.unfinished",
        "mine/.plan.parquet.0123abcd.unfinished",
        "parts/.train-00000000.part.unfinished",
        "latents/a/parts/.train-00000000.part.0123abcd.unfinished",
    ],
)
def test_a_sweep_spares_what_others_left_unfinished(tmp_path: Path, draft: str) -> None:
    out = Storage.at(tmp_path)
    (tmp_path / draft).parent.mkdir(parents=True)
    (tmp_path / draft).write_bytes(b"x")
    out.remove_drafts(owns)
    assert tree(tmp_path) == {draft: b"x"}


def test_of_two_creators_one_succeeds(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    assert out.create("folder/lock", b"one") is True
    assert out.create("folder/lock", b"two") is False
    assert tree(tmp_path) == {"folder/lock": b"one"}


def test_deleting_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    out.write("a", b"")
    out.delete("a")
    out.delete("a")
    out.delete("nowhere/a")
    assert tree(tmp_path) == {}


# ---- faults ----------------------------------------------------------------------------------------------------


def assert_faulty(out: Storage, path: str) -> None:
    for write in (lambda: out.write(path, b"x"), lambda: out.create(path, b"x")):
        with pytest.raises(StorageFault, match=path) as fault:
            write()
        assert out.display_uri in str(fault.value) and "\n" not in str(fault.value)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults are tried again after a pause; here the pause is left out."""
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)


@pytest.mark.usefixtures("no_waiting")
def test_a_file_where_a_folder_should_be_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    assert_faulty(Storage.at(tmp_path / "file"), "a")
    assert_faulty(Storage.at(tmp_path), "file/b/a")
    assert tree(tmp_path) == {"file": b"before"}


@pytest.mark.usefixtures("no_waiting")
def test_a_folder_that_may_not_be_written_to_is_a_fault(tmp_path: Path) -> None:
    """Root may write anywhere, so it is the file system that forbids it here."""
    folder = tmp_path / "fixed"
    folder.mkdir()
    (folder / "a").write_bytes(b"before")
    if os.geteuid() != 0:
        folder.chmod(0o500)
    elif subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("running as root on a file system without immutable folders")
    try:
        assert_faulty(Storage.at(folder), "b")
        with pytest.raises(StorageFault, match="a"):
            Storage.at(folder).delete("a")
    finally:
        if os.geteuid() == 0:
            subprocess.run(["chattr", "-i", str(folder)], check=True)
        folder.chmod(0o700)
    assert tree(folder) == {"a": b"before"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.usefixtures("no_waiting")
def test_a_full_disk_is_a_fault_that_leaves_what_was_published_and_no_draft(small_disk: Path) -> None:
    out = Storage.at(small_disk)
    out.write("a", b"before" * 1000)
    for path in ("a", "b"):
        with pytest.raises(StorageFault, match=f"cannot write {path} in {small_disk}: No space left on device"):
            out.write(path, bytes(1 << 20))
    with pytest.raises(StorageFault, match="No space left"):
        out.create("c", bytes(1 << 20))
    assert tree(small_disk) == {"a": b"before" * 1000}
    out.write("b", b"fits")
    assert out.read("b") == b"fits"


@pytest.mark.usefixtures("no_waiting")
def test_a_fault_that_passes_is_outwaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Storage.at(tmp_path)
    link, times = os.link, []

    def link_at_the_third_time(source: str, target: str) -> None:
        times.append(target)
        if len(times) < 3:
            raise OSError(5, os.strerror(5))
        link(source, target)

    monkeypatch.setattr(os, "link", link_at_the_third_time)
    assert out.create("lock", b"x") is True
    assert len(times) == 3
    assert tree(tmp_path) == {"lock": b"x"}


def test_a_child_process_connects_anew(tmp_path: Path) -> None:
    """On a connection of its parent it would read the answers to its sister's questions."""
    out = Storage.at(tmp_path)
    out.write("a", b"")
    assert connect.cache_info().currsize > 0
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_connections) == 0


def _connections() -> int:
    return connect.cache_info().currsize


# ---- a disk that goes away -------------------------------------------------------------------------------------


def _publish(out: Storage) -> None:
    with out.atomic_writer("a/b/c") as file:
        file.write(b"x")


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("leaves", ["nothing", "an empty folder"])
def test_where_the_anchor_is_gone_nothing_is_written_or_made(tmp_path: Path, leaves: str) -> None:
    root, away = tmp_path / "out", tmp_path / "away"
    free = Storage.at(root)
    free.write("mark", b"")
    free.write("a/file", b"before")
    out = free.with_anchor("mark")
    _publish(out)
    with pytest.raises(StorageFault, match=r"is the disk mounted\?"), out.atomic_writer("a/new") as file:
        file.write(b"x")
        root.rename(away)
        if leaves == "an empty folder":
            root.mkdir()
    for act in (
        _publish,
        lambda out: out.write("x", b"x"),
        lambda out: out.write_if_changed("x/y", b"x"),
        lambda out: out.create("a/x", b"x"),
        lambda out: out.compare_and_swap("a/file", b"before", b"after"),
        lambda out: out.take_over("a/file", b"before", b"after"),
        lambda out: out.delete_if_equal("a/file", b"before"),
        lambda out: out.delete("a/file"),
    ):
        with pytest.raises(StorageFault, match=r"mark is gone; is the disk mounted\?"):
            act(out)
    assert [*tmp_path.rglob("*")] == [p for p in tmp_path.rglob("*") if p == root or p.is_relative_to(away)]
    if root.exists():
        root.rmdir()
    away.rename(root)
    out.remove_drafts(lambda path: True)
    assert tree(root) == {"mark": b"", "a/file": b"before", "a/b/c": b"x"}


def test_a_root_that_goes_between_the_look_and_the_write_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Storage.at(tmp_path / "out").with_anchor("mark")
    monkeypatch.setattr(Storage, "check_anchor", lambda self: None)
    for act in (_publish, lambda out: out.create("a", b"x"), lambda out: out.write("a", b"x")):
        with pytest.raises(StorageFault, match="is the disk mounted"):
            act(out)
    assert list(tmp_path.iterdir()) == []


def test_a_swap_and_a_take_need_what_was_seen(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    out.write("lock", b"dead")
    assert not out.compare_and_swap("lock", b"other", b"mine") and not out.take_over("lock", b"other", b"mine")
    assert not out.compare_and_swap("nowhere", b"dead", b"mine") and not out.take_over("nowhere", b"dead", b"mine")
    assert out.take_over("lock", b"dead", b"one") and not out.take_over("lock", b"dead", b"two")
    assert out.compare_and_swap("lock", b"one", b"next")
    out.delete_if_equal("lock", b"one")
    assert tree(tmp_path) == {"lock": b"next"}
    out.delete_if_equal("lock", b"next")
    assert tree(tmp_path) == {}


def test_of_many_that_take_at_once_one_succeeds(tmp_path: Path) -> None:
    """A lock that was left, taken over by several, again and again."""
    out = Storage.at(tmp_path)
    with ThreadPoolExecutor(4) as together:
        for turn in range(50):
            out.write("lock", b"dead")
            mine = [f"{turn} {number}".encode() for number in range(4)]
            took = list(
                together.map(lambda data: out.take_over("lock", b"dead", data) or out.create("lock", data), mine)
            )
            assert [data for data, did in zip(mine, took, strict=True) if did] == [out.read("lock")]
