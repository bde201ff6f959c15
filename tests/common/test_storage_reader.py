"""Reading from a storage: look up, ranged reads, and lists of files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.storage import Entry, Storage


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300), st.data())
def test_a_ranged_read_and_a_copy_are_the_bytes_of_the_range(data: bytes, drawn: st.DataObject) -> None:
    start = drawn.draw(st.integers(0, len(data)))
    size = drawn.draw(st.one_of(st.none(), st.integers(0, len(data) - start)))
    with tempfile.TemporaryDirectory() as folder:
        out = Storage.at(folder)
        out.write("a", data)
        wanted = data[start:] if size is None else data[start : start + size]
        assert out.read("a", start, size) == wanted
        out.copy_to(Path(folder) / "copy", "a", start, size)
        assert (Path(folder) / "copy").read_bytes() == wanted


def test_a_missing_file_is_none_to_stat_and_not_found_to_readers(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    (tmp_path / "folder").mkdir()
    assert out.stat("a") is None and out.stat("folder") is None and out.stat("a/b/c") is None
    assert out.is_folder() and out.is_folder("folder") and not out.is_folder("a")
    for reading in (out.open, out.read, lambda path: out.copy_to(tmp_path / "copy", path)):
        with pytest.raises(FileNotFoundError):
            reading("a")


def test_files_are_listed_by_path_with_size_and_time_relative_to_the_root(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    for path, size in (("b", 1), ("a/c", 2), ("a-b", 3)):
        out.write(path, bytes(size))
    found = out.files(recursive=True)
    assert [(entry.path, entry.size) for entry in found] == [("a-b", 3), ("a/c", 2), ("b", 1)]
    assert found[2] == Entry("b", 1, (tmp_path / "b").stat().st_mtime_ns) == out.stat("b")
    assert [entry.path for entry in out.files()] == ["a-b", "b"]
    assert out.files("nowhere") == []
    assert out.stats(["b", "nowhere", "a"]) == [out.stat("b"), None, None]
    assert sorted(out.names("")) == ["a-b", "a/", "b"]
