"""Patterns name the files that the shell's patterns name, on disk and in an object store."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.sources.tables import table_paths

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


PIECES = st.sampled_from(["*", "?", "a", "b", ".csv", "[ab]", "[!a]", "sub", "deep", "/", "/", ".", "x", "é"])


@settings(max_examples=300)
@given(st.lists(PIECES, min_size=1, max_size=6).map("".join))
def test_a_pattern_names_what_it_names_in_a_shell(folder: Path, pattern: str) -> None:
    parts = pattern.split("/")
    assume(parts[0] and parts[-1] and ".." not in parts and "**" not in parts)
    found = {Path(path).as_posix() for path in glob.glob(pattern, root_dir=folder) if (folder / path).is_file()}
    expected = sorted(path for path in found if not path.endswith(".unfinished"))
    try:
        assert table_paths(Storage.at(folder), [pattern]) == expected
    except UsageError:
        assert expected == []


def test_several_patterns_give_each_file_once_in_order(folder: Path) -> None:
    root = Storage.at(folder)
    assert table_paths(root, ["sub*/*.csv", "b.csv", "./sub/a.csv", "[ab].csv"]) == [
        "a.csv",
        "b.csv",
        "sub/a.csv",
        "sub2/a.csv",
    ]
    assert table_paths(root, ["[x].csv"]) == ["[x].csv"], "a file of this very name, before it is a pattern"
    assert table_paths(root, [".hid*", ".g*/a.csv", "*_b/*"]) == [".git/a.csv", ".hidden.csv", "a_b/é.csv"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("sub/*.parquet", ("sub has a.csv, b.tsv, deep/",)),
        ("sub/more/x/*.csv", ("sub has a.csv",)),
        ("nothing*", ("there has .git/, .hidden.csv, B.CSV", "…")),
        ("missing.csv", ("'missing.csv'",)),
        ("", ("''",)),
        ("sub", ("'sub'",)),
        ("a.csv/*", ("'a.csv/*'",)),
        ("**/a.csv", ("not supported", "one * for each folder")),
        ("../*.csv", ("leaves",)),
        ("/etc/*", ("leaves",)),
    ],
)
def test_a_pattern_without_a_file_is_named_with_what_is_there(
    folder: Path, pattern: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError) as error:
        table_paths(Storage.at(folder), ["a.csv", pattern])
    assert all(word in str(error.value) for word in words), error.value
    assert str(folder) in str(error.value) or "**" in pattern
