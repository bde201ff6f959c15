"""Files in pieces: every read gives what the joined file would give."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.joined_storage import join_places, open_local_files
from nextscene.common.storage import BadLocation, Storage


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=2, max_size=6), st.data())
def test_pieces_are_read_as_the_file_that_they_make(pieces: list[bytes], drawn: st.DataObject) -> None:
    whole = b"".join(pieces)
    start = drawn.draw(st.integers(0, len(whole)))
    size = drawn.draw(st.integers(0, len(whole) - start))
    with tempfile.TemporaryDirectory() as folder:
        root = Storage.at(folder)
        for number, data in enumerate(pieces):
            (Path(folder) / f"{number}").write_bytes(data)
        storage, path = join_places([(root, f"{number}") for number in range(len(pieces))])
        assert storage.read(path) == whole and storage.read(path, start, size) == whole[start : start + size]
        storage.copy_to(Path(folder) / "copy", path, start, size)
        assert (Path(folder) / "copy").read_bytes() == whole[start : start + size]
        for file in (storage.open(path), open_local_files(storage.local_files(path))):
            with file:
                file.seek(start)
                assert file.read(size) == whole[start : start + size]
                assert file.read() == whole[start + size :]
        entry = storage.stat(path)
        assert entry is not None and entry.size == len(whole)
        assert storage.local_path(path) is None and storage.has_parent_of(path) and storage == storage


def test_a_missing_piece_is_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    storage, path = join_places([(Storage.at(tmp_path), "a"), (Storage.at(tmp_path), "b")])
    assert storage.stats([path, "a"]) == [None, Storage.at(tmp_path).stat("a")]
    for reading in (storage.open, storage.read):
        with pytest.raises(FileNotFoundError):
            reading(path)


def test_pieces_in_several_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadLocation, match="several folders"):
        join_places([(Storage.at(tmp_path), "a"), (Storage.at(tmp_path / "x"), "b")])
