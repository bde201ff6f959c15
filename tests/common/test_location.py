"""Which place lies in which, whatever they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextscene.common.location import is_inside
from nextscene.common.storage import Storage

HERE, THERE = "?endpoint_override=127.0.0.1:1&scheme=http", "?endpoint_override=127.0.0.1:2&scheme=http"


@pytest.fixture
def places(tmp_path: Path) -> Path:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "ab" / "deep").symlink_to(tmp_path / "a" / "b")
    return tmp_path


@pytest.mark.parametrize(
    ("inner", "outer", "wanted"),
    [
        ("a", "a", True),
        ("a/", "a", True),
        ("a/b", "a", True),
        ("a/new/deep", "a", True),
        ("a", "a/b", False),
        ("ab", "a", False),
        ("link", "a", True),
        ("a", "link", True),
        ("link/new", "a", True),
        ("ab/deep", "a", True),
        ("ab/deep/../new", "a", True),
        ("ab/../a/b", "a", True),
        ("a/../ab", "a", False),
        ("new/../a", "a", True),
        ("new", "new", True),
        ("new/x", "new", True),
        ("file://{}/a/b", "a", True),
    ],
)
def test_folders_are_compared_by_where_they_are(places: Path, inner: str, outer: str, wanted: bool) -> None:
    one, other = (Storage.at(name.format(places) if "://" in name else f"{places}/{name}") for name in (inner, outer))
    assert is_inside(one, other) is wanted


def test_a_file_is_looked_for_where_it_lies(places: Path) -> None:
    (places / "a" / "clips.csv").touch()
    (places / "clips.csv").symlink_to(places / "a" / "clips.csv")
    assert is_inside(Storage.at(places), Storage.at(places / "a"), "clips.csv")
    assert not is_inside(Storage.at(places), Storage.at(places / "ab"), "clips.csv")


@pytest.mark.parametrize(
    ("inner", "outer", "wanted"),
    [
        (f"s3://b/x{HERE}", f"s3://b/x{HERE}", True),
        (f"s3://b/x/{HERE}", f"s3://b/x{HERE}", True),
        (f"s3://b/x/y{HERE}", f"s3://b/x{HERE}", True),
        (f"s3://b/xy{HERE}", f"s3://b/x{HERE}", False),
        (f"s3://b/x{HERE}", f"s3://b{HERE}", True),
        (f"s3://c/x{HERE}", f"s3://b/x{HERE}", False),
        (f"s3://b/x{HERE}", f"s3://b/x{THERE}", False),
        (f"s3://b/x{HERE}&region=eu-west-1", f"s3://b/x{HERE}", True),
        (f"s3://b/x{HERE}", "/b/x", False),
        ("/b/x", f"s3://b/x{HERE}", False),
    ],
)
def test_prefixes_are_compared_by_endpoint_bucket_and_name(
    monkeypatch: pytest.MonkeyPatch, inner: str, outer: str, wanted: bool
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert is_inside(Storage.at(inner), Storage.at(outer)) is wanted
