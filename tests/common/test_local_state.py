"""The folder on a local disk that belongs to a storage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nextscene.common.local_state import local_state
from nextscene.common.storage import Storage, StorageFault

BUCKET = "s3://bucket/out?scheme=http&region=us-east-1&endpoint_override=127.0.0.1"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)


def _of(uri: str, path: str = "calls") -> Path:
    return local_state(Storage.at(uri), path)


def test_a_local_storage_has_it_inside(tmp_path: Path) -> None:
    assert _of(str(tmp_path / "out")) == tmp_path / "out" / "calls"


def test_of_a_bucket_by_its_name_and_path_and_endpoint() -> None:
    places = [_of(f"{BUCKET}:{port}", path) for port in (9000, 9001) for path in ("calls", "others")]
    assert len(set(places)) == 4
    assert _of(f"{BUCKET}:9000") == _of(f"{BUCKET}:9000&allow_bucket_creation=true") == places[0]
    assert places[0].parent.stat().st_mode & 0o777 == 0o700


def test_an_endpoint_of_the_environment_is_the_same_as_in_the_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/")
    assert _of("s3://bucket/out?scheme=http&region=us-east-1") == _of(f"{BUCKET}:9000")


def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"nextscene-state-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageFault, match="belongs to another user; remove it, or set TMPDIR"):
        _of(f"{BUCKET}:9000")
