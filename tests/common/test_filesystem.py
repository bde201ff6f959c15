"""Places that cannot be reached: told in one line, within half a minute, whatever the scheme."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from pyarrow import ArrowException, ArrowInvalid

from nextscene.common import filesystem
from nextscene.common.filesystem import BadLocation, StorageFault, connect, with_retries
from nextscene.common.storage import Storage


@pytest.mark.parametrize(
    ("location", "instead"),
    [
        ("hf://datasets/someone/films", "fetch it with `hf download`, and give the folder"),
        ("https://host/film.mp4", "fetch it, and give the file or its folder"),
        ("http://host/film.mp4", "fetch it, and give the file or its folder"),
        ("s3a://bucket/films", "write s3://…"),
        ("az://container/films", "write abfs://ACCOUNT.dfs.core.windows.net/CONTAINER/…"),
        ("ftp://host/films", "only a path or file://, s3://, gs://"),
        ("abfss://account.dfs.core.windows.net", "names no container"),
    ],
)
def test_a_scheme_that_is_not_supported_says_what_to_do_instead(location: str, instead: str) -> None:
    with pytest.raises(BadLocation) as raised:
        Storage.at(location)
    assert location in str(raised.value)
    assert instead in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("scheme", ["abfs", "abfss"])
@pytest.mark.parametrize("place", ["account.dfs.core.windows.net/container", "container@account.dfs.core.windows.net"])
def test_both_spellings_of_azure_are_places(scheme: str, place: str) -> None:
    assert Storage.at(f"{scheme}://{place}/a/b").full_path("c.mp4") == "container/a/b/c.mp4"
    with pytest.raises(BadLocation, match="holds a credential"):
        Storage.at(f"{scheme}://container:secret@account.dfs.core.windows.net/a")


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An endpoint that takes connections and never says anything, by a client that has credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
def test_an_endpoint_that_never_answers_is_a_fault(silent: str) -> None:
    """The client of a URI would try 11 times each time, for more than three minutes in all."""
    out = Storage.at(f"s3://bucket/out?endpoint_override={silent}&scheme=http&region=us-east-1")
    with pytest.raises(StorageFault, match="cannot look up x in s3://bucket/out: "):
        out.stat("x")


def test_google_s_client_gives_up_before_we_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries for a quarter of an hour where its options do not say otherwise."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere")
    limits = [
        connect(f"{scheme}://bucket/x{query}")[0].__reduce__()[1][0]["retry_time_limit"].total_seconds()
        for scheme in ("gs", "gcs")
        for query in ("", "?scheme=http", "?retry_limit_seconds=60")
    ]
    assert limits == [3, 3, 60, 3, 3, 60]


def test_what_a_store_said_that_arrow_has_no_class_for_is_a_fault_in_one_line() -> None:
    def refused() -> None:
        raise ArrowException("Unknown error: Failed to get token\nSee the log")

    def strange() -> None:
        raise ArrowInvalid("a location that this store does not know")

    with pytest.raises(StorageFault, match=r"^cannot read a in abfs://x: Unknown error: Failed to get token$"):
        with_retries("read", "a", "abfs://x", refused)
    with pytest.raises(StorageFault, match="does not know"):
        with_retries("read", "a", "abfs://x", strange)


def test_trying_ends_by_time_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def slow() -> None:
        tries.append(1)
        raise OSError("timed out")

    monkeypatch.setattr(filesystem, "_TRYING_SECONDS", 0.0)
    with pytest.raises(StorageFault, match="timed out"):
        with_retries("read", "a", "s3://x", slow)
    assert len(tries) == 1
