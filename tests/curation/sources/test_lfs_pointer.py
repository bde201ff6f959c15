"""Pointers of git-lfs in the place of files are named as what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.sources import Source
from nextscene.curation.sources.members import BadArchive, members_of
from nextscene.curation.sources.tables import rows_of
from tests.support import SMALL, build_inline, ledger

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 132735\n"


@pytest.mark.parametrize("name", ["a.mp4", "b.jpg", "c.mkv", "d.avi", "e.webp"])
def test_a_video_or_an_image_fails_by_that_reason(name: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_bytes(POINTER)
    (tmp_path / "set" / name).with_suffix(".txt").write_bytes(b"one")
    build_inline(tmp_path / "set", tmp_path / "out", SMALL)
    assert [(row.outcome, row.reason) for row in ledger(tmp_path / "out", SMALL)] == [("failed", "lfs_pointer")]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_an_archive_is_refused_with_the_remedy(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(BadArchive, match="git lfs pull") as error:
        list(members_of(Storage.at(tmp_path), name))
    assert error.value.reason == "lfs_pointer"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.csv.gz"])
def test_a_table_is_refused_with_the_remedy(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(UsageError, match="git lfs pull"):
        list(rows_of(Storage.at(tmp_path), name))


def test_a_caption_is_no_text_of_its_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes(POINTER)
    [clip] = Source.at(str(tmp_path)).clips()
    assert clip.flaw == "bad_caption" and "git lfs pull" in clip.flaw_detail


def test_a_tar_as_a_source_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(POINTER)
    with pytest.raises(UsageError, match="git lfs pull"):
        list(Source.at(str(tmp_path / "a.tar")).clips())
