"""The SHA-256 of a file is that of its bytes, however it is reached."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from nextscene.common.hashing import file_sha256, path_sha256, sha256_of
from nextscene.common.storage import Storage


@pytest.mark.parametrize("data", [b"", b"abc", bytes(range(256)) * 5000])
def test_it_is_that_of_the_bytes(tmp_path: Path, data: bytes) -> None:
    wanted = hashlib.sha256(data).hexdigest()
    file = io.BytesIO(data)
    file.seek(0, io.SEEK_END)
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(file) == path_sha256(tmp_path / "file") == file_sha256(Storage.at(tmp_path), "file") == wanted


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_sha256(Storage.at(tmp_path), "file")
    with pytest.raises(FileNotFoundError):
        path_sha256(tmp_path / "file")
