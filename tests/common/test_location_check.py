"""Locations: a local path or a URI is accepted, or refused in one line that repeats no credential."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextscene.common.storage import BadLocation, Storage

SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("path", ["..", "../a", "a/../../b", "a/..", "/etc/passwd", "/"])
def test_a_path_that_leaves_the_root_is_refused(tmp_path: Path, path: str) -> None:
    out = Storage.at(tmp_path / "out")
    using = (
        out.full_path,
        out.stat,
        out.read,
        out.open,
        out.delete,
        lambda p: out.write(p, b""),
        lambda p: out.create(p, b""),
    )
    for use in using:
        with pytest.raises(BadLocation, match=r"leaves"):
            use(path)
    assert tree(tmp_path) == {}


def test_a_local_path_becomes_absolute_and_a_file_uri_is_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Storage.at("folder").write("a", b"x")
    for same in (
        "folder",
        "./folder",
        "~/folder",
        f"{tmp_path}/folder/",
        f"file://{tmp_path}/folder",
        tmp_path / "folder",
    ):
        assert Storage.at(same).read("a") == b"x"
        assert Storage.at(same).is_local
        assert Storage.at(same).local_path("a") == tmp_path / "folder" / "a"


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://AKIAEXAMPLE:{SECRET}@bucket/prefix",
        f"s3://AKIAEXAMPLE:{SECRET}/slash@bucket/prefix",
        f"s3://{SECRET}@bucket",
        f"gs://user:{SECRET}@bucket/prefix",
        f"ftp://user:{SECRET}@host/x",
        f"s3://bucket/prefix?secret_key={SECRET}",
        f"nonsense://bucket/prefix?secret_key={SECRET}",
    ],
)
def test_a_credential_in_a_uri_is_refused_and_never_repeated(uri: str) -> None:
    with pytest.raises(BadLocation) as error:
        Storage.at(uri)
    assert SECRET not in str(error.value) and "/slash" not in str(error.value)
    assert "\n" not in str(error.value)


def test_an_at_sign_in_a_path_is_no_credential() -> None:
    assert Storage.at("s3://bucket/a@b?region=us-east-1").display_uri == "s3://bucket/a@b"


@pytest.mark.parametrize("location", ["nonsense://bucket/x", "http://host/x", "s3:///", "://", "s3://"])
def test_a_location_that_cannot_work_is_refused_in_one_line(location: str) -> None:
    with pytest.raises(BadLocation) as error:
        Storage.at(location)
    assert "\n" not in str(error.value)


def test_the_home_of_a_user_who_does_not_exist_is_refused() -> None:
    with pytest.raises(BadLocation, match="no-such-user"):
        Storage.at("~no-such-user/x")


@pytest.mark.parametrize("name", ["what?", "a#b", "100%", "a b", "ü", "[x]", "*"])
def test_any_name_can_be_a_folder_and_is_shown_as_it_is(tmp_path: Path, name: str) -> None:
    out = Storage.at(tmp_path / name)
    out.write(f"{name}/{name}", b"x")
    assert tree(tmp_path) == {f"{name}/{name}/{name}": b"x"}
    assert [entry.path for entry in out.files(recursive=True)] == [f"{name}/{name}"]
    assert out.display_uri == f"{tmp_path}/{name}"


@pytest.mark.parametrize("scheme", ["s3", "gs", "hf", "https"])
def test_an_address_with_one_slash_is_no_folder(scheme: str) -> None:
    with pytest.raises(BadLocation, match=f"write {scheme}://bucket/x"):
        Storage.at(f"{scheme}:/bucket/x")


@pytest.mark.parametrize("by_link", [False, True])
def test_a_root_with_dots_is_where_the_system_says(tmp_path: Path, by_link: bool) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    root = tmp_path / ("link" if by_link else "here") / ".." / "out"
    root.mkdir()
    out = Storage.at(root)
    out.write("mark", b"")
    out.with_anchor("mark").write("a/b/c", b"x")
    out.with_anchor("mark").subfolder("sub").write("d/e", b"y")
    assert (root / "a/b/c").read_bytes() == b"x" and (root / "sub/d/e").read_bytes() == b"y"
