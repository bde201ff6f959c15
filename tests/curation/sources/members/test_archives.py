"""Patterns for archives: what they match, on a disk, compared with glob."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest

from nextscene.common.storage import Storage
from nextscene.curation.sources.members import archives

FILES = [
    "OpenVid_part0.zip",
    "OpenVid_part73_partaa",
    "OpenVid_part73_partab",
    "OpenVidHD/OpenVidHD_part_1.zip",
    "Videos/total_part1/total_part1.tar.split.000",
    "Videos/total_part1/total_part1.tar.split.001",
    "Videos/total_part10/total_part10.tar.split.000",
    "Videos/a.tar",
    "Videos/[x]/b.tar",
    ".hidden/c.zip",
    ".d.zip",
    "readme.md",
]
PATTERNS = ["*", "*.zip", "**/*.zip", "Videos/total_part*/*.tar.split.*", "Videos/*", "**", "Videos/[[]x]/*", "x/*"]
PATTERNS += ["Videos/a.tar", "Video?/**/*.tar", "nowhere.zip", "readme.md", ".hidden/*", "OpenVid_part*_part*"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_matches_what_glob_matches(pattern: str, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = archives(Storage.at(tmp_path), [pattern, pattern])
    wanted = glob.glob(pattern, root_dir=tmp_path, recursive=True)
    files = [name for name in wanted if (tmp_path / name).is_file() and not name.endswith(".md")]
    assert sorted(piece for location in found for piece in location.split("\0")) == sorted(files)
    assert found == sorted(found)


def test_pieces_in_two_folders_are_two_archives(tmp_path: Path) -> None:
    for name in ("a/x_partaa", "a/x_partab", "b/x_partaa"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert archives(Storage.at(tmp_path), ["*/*"]) == ["a/x_partaa\0a/x_partab", "b/x_partaa"]
