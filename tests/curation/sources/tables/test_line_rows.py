"""Text files side by side give the rows that reading each of them by itself gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.common.text import MAX_TEXT_BYTES
from nextscene.curation.sources.tables import line_rows

CELLS = st.text("ab ü,\"'", max_size=4)


@given(pairs=st.lists(st.tuples(CELLS, CELLS), max_size=6), end=st.sampled_from(["\n", "\r\n"]), ended=st.booleans())
@settings(max_examples=50)
def test_lines_of_equal_number_are_one_row(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], end: str, ended: bool
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    for name, cells in (("videos.txt", [pair[0] for pair in pairs]), ("prompts.txt", [pair[1] for pair in pairs])):
        text = end.join(cells) + (end if ended or not cells[-1:] or not cells[-1] else "")
        (folder / name).write_bytes(text.encode())
    expected = [
        (f"line {number}", {"videos": video.strip(), "prompts": prompt.strip()})
        for number, (video, prompt) in enumerate(pairs, 1)
        if video.strip() or prompt.strip()
    ]
    assert list(line_rows(Storage.at(folder), ["videos.txt", "prompts.txt"])) == expected


def test_a_file_that_ends_early_ends_the_table_and_empty_lines_do_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"1\n2\n\n\n")
    (tmp_path / "b.txt").write_bytes(b"x\ny")
    assert [row for _, row in line_rows(Storage.at(tmp_path), ["a.txt", "b.txt"])] == [
        {"a": "1", "b": "x"},
        {"a": "2", "b": "y"},
    ]
    (tmp_path / "a.txt").write_bytes(b"1\n2\n3\n")
    with pytest.raises(UsageError, match=r"b\.txt has 2 lines, and a\.txt more"):
        list(line_rows(Storage.at(tmp_path), ["a.txt", "b.txt"]))


def test_a_long_line_is_cut_and_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * (3 * MAX_TEXT_BYTES) + b"\n2\n")
    (tmp_path / "b.txt").write_bytes(b"1\n2\n")
    rows = [row for _, row in line_rows(Storage.at(tmp_path), ["a.txt", "b.txt"])]
    assert len(rows[0]["a"]) == MAX_TEXT_BYTES + 1 and rows[1] == {"a": "2", "b": "2"}
