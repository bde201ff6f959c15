"""Atomic changes of local files: replaced whole, created once, deleted only with the expected content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nextscene.common import atomic


def test_a_file_is_replaced_whole_and_the_draft_of_a_killed_writer_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    (tmp_path / f".summary.json{atomic.UNFINISHED}").write_bytes(b"half of a longer file")
    for data in (b"one", b"two"):
        atomic.write_file(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["summary.json"]


def test_where_the_rename_fails_the_file_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    atomic.write_file(path, b"before")

    def fail(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no"):
        atomic.write_file(path, b"after")
    assert path.read_bytes() == b"before"


def test_a_file_is_created_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert atomic.create_file(path, atomic.draft_of(path), b"one")
    assert not atomic.create_file(path, atomic.draft_of(path), b"two")
    assert path.read_bytes() == b"one"


def test_only_the_expected_content_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"one")
    assert not atomic.unlink_if_equal(path, b"two") and path.read_bytes() == b"one"
    assert atomic.unlink_if_equal(path, b"one") and not path.exists()
    assert not atomic.unlink_if_equal(path, b"one")


@pytest.mark.parametrize("name", ["a.tar", ".hidden", "a b"])
def test_a_draft_names_the_file_that_it_becomes(name: str) -> None:
    assert atomic.final_name_of_draft(atomic.draft_of(Path(name)).name) == name
    assert atomic.final_name_of_draft(name) is None
