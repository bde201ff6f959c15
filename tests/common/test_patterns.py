"""Patterns name the files that the shell's patterns name, on disk and in an object store."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nextscene.common.patterns import matching_files, nearest_files
from nextscene.common.storage import BadLocation, Storage

FILES = """
a.csv  b.csv  B.CSV  .hidden.csv  c.jsonl  [x].csv  x.csv  draft.csv.unfinished  sub/a.csv  sub/b.tsv  sub/deep/a.csv
sub2/a.csv  sub2/deep/b.csv  .git/a.csv  a_b/é.csv
""".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


PIECES = st.sampled_from(["*", "?", "a", "b", ".csv", "[ab]", "[!a]", "sub", "deep", "**/", "/", "/", ".", "x", "é"])


@settings(max_examples=300)
@given(st.lists(PIECES, min_size=1, max_size=6).map("".join))
def test_a_pattern_names_what_it_names_in_a_shell(folder: Path, pattern: str) -> None:
    parts = pattern.split("/")
    assume(
        parts[0]
        and parts[-1]
        and not {".", ".."} & {*parts}
        and all(part == "**" or "**" not in part for part in parts)
    )
    named = [path for path in glob.glob(pattern, root_dir=folder, recursive=True) if (folder / path).is_file()]
    found = {Path(path).as_posix() for path in named if not path.endswith(".unfinished")}
    assert {*matching_files(Storage.at(folder), pattern)} == found


def test_a_file_of_this_very_name_comes_before_a_pattern(folder: Path) -> None:
    root = Storage.at(folder)
    assert [*matching_files(root, "[x].csv")] == ["[x].csv"]
    assert {*matching_files(root, ".hid*"), *matching_files(root, ".g*/a.csv")} == {".git/a.csv", ".hidden.csv"}
    assert [*matching_files(root, "./sub/a.csv")] == ["sub/a.csv"]
    below = {"sub/a.csv", "sub/b.tsv", "sub/deep/a.csv", "sub2/a.csv", "sub2/deep/b.csv"}
    assert {*matching_files(root, "sub*/**")} == below
    for pattern in ("../*.csv", "/etc/*"):
        with pytest.raises(BadLocation, match="leaves"):
            list(matching_files(root, pattern))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("sub/*.parquet", "sub has a.csv, b.tsv, deep/"),
        ("sub/more/x/*.csv", "sub has a.csv"),
        ("nothing*", "there has .git/, .hidden.csv, B.CSV"),
        ("missing.csv", "there has .git/"),
        ("a.csv/*", "there has .git/"),
    ],
)
def test_a_pattern_without_a_file_is_told_what_is_there(folder: Path, pattern: str, words: str) -> None:
    assert [*matching_files(Storage.at(folder), pattern)] == []
    assert nearest_files(Storage.at(folder), pattern).startswith(words)
