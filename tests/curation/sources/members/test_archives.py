"""Archives found by patterns; the patterns themselves are tested in tests/common/test_patterns.py."""

from __future__ import annotations

from pathlib import Path

from nextscene.common.storage import Storage
from nextscene.curation.sources.members import archives


def test_pieces_in_two_folders_are_two_archives(tmp_path: Path) -> None:
    for name in ("a/x_partaa", "a/x_partab", "b/x_partaa"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert archives(Storage.at(tmp_path), ["*/*"]) == ["a/x_partaa\0a/x_partab", "b/x_partaa"]
