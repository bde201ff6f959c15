"""A sample of `python -m tests.faults.object_store`, and tests of single writes to an object store."""

from __future__ import annotations

import io
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from nextscene.common import clocks, filesystem, s3
from nextscene.common.errors import RunStopped
from nextscene.common.fence import LOCK
from nextscene.common.lease import Holder
from nextscene.common.process_identity import ProcessState
from nextscene.common.run_lock import Heartbeat, hold_lock, holder, is_running
from nextscene.common.storage import Storage, StorageFault
from nextscene.shards.format.layout import CONFIG, PLAN, ShardName, owns
from tests.clocks.fake import FakeClocks
from tests.faults.object_store import BUCKET, CREDENTIALS, SIGNALS, Fate, Interrupted, Runs, Store, dead_lock, store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made() -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        with store() as made:
            yield made


@pytest.fixture
def out(made: Store, request: pytest.FixtureRequest) -> Iterator[Storage]:
    """Yield an empty location behind the proxy, and reset the proxy after the test."""
    s3.clear_connections()
    yield Storage.at(made.through_proxy(f"test-{hash(request.node.name):x}"))
    made.proxy.fate = lambda method, path: ""
    made.proxy.conditions = "kept"
    s3.clear_connections()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)


def once(fate: Fate, method: str = "PUT") -> Callable[[str, str], Fate]:
    """Return a function for `Proxy.fate` that gives this fate to the next request of the method only."""
    left: list[Fate] = [fate]
    return lambda requested, path: left.pop() if requested == method and left else ""


# ---- runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    runs = Runs()
    yield runs
    runs.end()


def test_a_run_that_is_interrupted_at_an_upload_leaves_nothing_by_halves(
    made: Store, runs: Runs, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = Interrupted(tmp_path_factory.mktemp("interrupted"), made, runs)
    uploads = run.uploads()
    tar = next(number for number, path in enumerate(uploads, 1) if path.endswith(".tar"))
    for signum, number in zip(SIGNALS, (uploads.index(CONFIG) + 1, tar, tar), strict=True):
        run.check(number, signum, "lands" if signum == signal.SIGKILL else "cut off")


def test_of_runs_that_start_at_once_one_holds_the_lock(made: Store, runs: Runs) -> None:
    for number in range(3):
        for lock in ("none", "given-up", "dead"):
            place = f"starts-{lock}-{number}"
            if lock == "given-up":
                assert runs.start_at_once(1, made.through_proxy(place)) == (1, 1)
            if lock == "dead":
                dead_lock(made.uri(place))
            got_in, at_once = runs.start_at_once(4, made.through_proxy(place))
            assert got_in >= 1 and at_once == 1, place


# ---- one write -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_a_block_that_raises_uploads_nothing(out: Storage, error: BaseException, scratch: Path) -> None:
    out.write("kept", b"before")
    for path in ("kept", "new"):
        with pytest.raises(type(error)), out.atomic_writer(path) as file:
            file.write(b"half")
            raise error
    assert out.read("kept") == b"before" and out.stat("new") is None
    assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("fate", ["cut off", "lands"])
def test_an_upload_that_fails_once_is_sent_again_from_its_beginning(made: Store, out: Storage, fate: Fate) -> None:
    made.proxy.fate = once(fate)
    with out.atomic_writer("a") as file:
        file.write(bytes(range(256)) * 1000)
    assert out.read("a") == bytes(range(256)) * 1000


@pytest.mark.usefixtures("no_waiting")
def test_a_store_that_never_answers_is_a_fault_without_a_secret(made: Store, out: Storage) -> None:
    made.proxy.fate = lambda method, path: "cut off"
    for act in (lambda: out.write("a", b""), lambda: out.delete("a"), lambda: out.compare_and_swap("a", b"", b"")):
        with pytest.raises(StorageFault, match="a in s3://") as fault:
            act()
        assert "\n" not in str(fault.value) and "dummy" not in str(fault.value)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_ONE_REQUEST_BYTES", 100)
    monkeypatch.setattr(s3, "_PART_BYTES", 1000)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1000)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), SystemExit(3), OSError(5, "Input/output error")])
def test_a_large_file_is_uploaded_in_parts_that_count_together_or_not_at_all(
    made: Store, out: Storage, error: BaseException | None
) -> None:
    class Source(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if error and self.tell() >= 2000:
                raise error
            return super().read(size)

    data = bytes(range(256)) * 10
    bucket = s3.open_bucket(out.uri)
    if error is None:
        bucket.upload("large", Source(data))
        assert made.client.get_object(Bucket=BUCKET, Key="large")["Body"].read() == data
    else:
        with pytest.raises(type(error)):
            bucket.upload("torn", Source(data))
        assert "Contents" not in made.client.list_objects_v2(Bucket=BUCKET, Prefix="torn")
    assert made.unfinished() == []


def test_unfinished_uploads_of_this_folder_are_aborted_and_no_others(made: Store, out: Storage) -> None:
    root = out.full_path("").partition("/")[2]
    tar = ShardName("train", 3).tar
    for key in (f"{root}/{PLAN}", f"{root}/{tar}", f"{root}/latents/x/{tar}", f"{root}-other/{PLAN}", f"{root}/mine"):
        made.client.create_multipart_upload(Bucket=BUCKET, Key=key)
    out.abort_uploads(owns)
    assert made.unfinished() == [f"{root}/latents/x/{tar}", f"{root}-other/{PLAN}", f"{root}/mine"]
    out.subfolder("latents/x").abort_uploads(owns)
    Storage.at(made.uri(f"{root}-other")).abort_uploads(owns)
    out.abort_uploads(lambda path: path == "mine")
    assert made.unfinished() == []


def test_who_may_not_list_uploads_is_told_and_works_on(
    out: Storage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str) -> None:
        from botocore.exceptions import ClientError

        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "not you"}}, "ListMultipartUploads")

    monkeypatch.setattr(s3.open_bucket(out.uri)._client, "get_paginator", refused)
    out.abort_uploads(owns)
    assert "AccessDenied" in caplog.text and "lifecycle rule" in caplog.text


# ---- one writer at a time --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("fate", ["", "cut off", "lands"])
def test_a_conditional_write_with_a_lost_response_is_recognized_as_ours(made: Store, out: Storage, fate: Fate) -> None:
    made.proxy.fate = once(fate)
    assert out.create("a", b"mine")
    assert not out.create("a", b"yours")
    made.proxy.fate = once(fate)
    assert out.compare_and_swap("a", b"mine", b"next")
    assert not out.compare_and_swap("a", b"mine", b"yours")
    assert not out.compare_and_swap("nowhere", b"mine", b"yours")
    assert out.read("a") == b"next"


@pytest.mark.parametrize("conditions", ["ignored", "refused"])
def test_a_store_without_conditional_writes_is_read_back_and_told_of_once(
    made: Store, out: Storage, caplog: pytest.LogCaptureFixture, conditions: str
) -> None:
    s3._warn_once.cache_clear()
    made.proxy.conditions = conditions  # type: ignore[assignment]
    with hold_lock(out, "one"):
        now = holder(out)
        assert now is not None and now.run_id == "one"
        assert not out.create(LOCK, b"another")
        assert out.compare_and_swap(LOCK, out.read(LOCK), b"next")
        assert not out.compare_and_swap(LOCK, b"other", b"not")
    assert out.read(LOCK) == b"next"
    assert [r.levelno for r in caplog.records if "no conditional writes" in r.message] == [logging.WARNING]


def test_a_lock_is_never_taken_or_given_up_over_anothers(out: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run takes the lock between reading and writing: the conditional write detects that."""
    other = Holder.me("theirs").to_bytes()
    get = s3.S3Bucket._get

    def overtaken(self: s3.S3Bucket, key: str) -> tuple[bytes, str]:
        found = get(self, key)
        self._put(key, other, {})
        return found

    out.write(LOCK, b"dead")
    with monkeypatch.context() as patch:
        patch.setattr(s3.S3Bucket, "_get", overtaken)
        assert not out.take_over(LOCK, b"dead", b"mine")
    assert out.read(LOCK) == other
    out.write(LOCK, b"mine")
    with monkeypatch.context() as patch:
        patch.setattr(s3.S3Bucket, "_get", overtaken)
        out.delete_if_equal(LOCK, b"mine")
    assert out.read(LOCK) == other


def test_a_heartbeat_gives_way_if_the_lock_was_taken_just_before_its_write(
    out: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nextscene.common.run_lock.BEAT_SECONDS", 0.01)
    me, other = Holder.me("mine"), Holder.me("theirs").to_bytes()
    out.write(LOCK, me.to_bytes())
    swap = Storage.compare_and_swap

    def overtaken(self: Storage, path: str, before: bytes, after: bytes) -> bool:
        self.write(path, other)
        return swap(self, path, before, after)

    monkeypatch.setattr(Storage, "compare_and_swap", overtaken)
    heartbeat = Heartbeat(out, me, clocks.elapsed())
    heartbeat._thread.join(10)
    with pytest.raises(RunStopped, match="was taken by another run"):
        heartbeat.check()
    heartbeat.end()
    assert out.read(LOCK) == other


def test_a_lock_that_was_given_up_is_nobodys_for_old_and_new_readers(out: Storage) -> None:
    with hold_lock(out, "mine"):
        pass
    assert holder(out) is None
    assert (
        Holder.of(out.read(LOCK)).state is ProcessState.ENDED
    )  # as read by an older version, which does not know locks that are given up
    with hold_lock(out, "next"):
        now = holder(out)
        assert now is not None and now.run_id == "next"


def test_the_age_of_an_object_is_measured_by_the_store_s_clock_alone(
    out: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both times are in the store's response. The clock of this host is not used."""
    out.write("a", b"1")
    content, age = out.read_with_age("a")
    assert content == b"1" and age is not None and 0 <= age < 3600
    bucket = out._bucket
    assert bucket is not None
    get, at = bucket._client.get_object, datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)

    def written_then(**request: Any) -> dict[str, Any]:
        headers = {"date": format_datetime(at + timedelta(seconds=150), usegmt=True)} if told else {}
        return {**get(**request), "LastModified": at, "ResponseMetadata": {"HTTPHeaders": headers}}

    monkeypatch.setattr(bucket._client, "get_object", written_then)
    told = True
    assert out.read_with_age("a") == (b"1", 150.0)
    told = False
    assert out.read_with_age("a") == (b"1", None)
    with pytest.raises(FileNotFoundError):
        out.read_with_age("none")


def test_an_old_lock_is_taken_over_at_once_and_a_recent_one_after_a_wait(
    out: Storage, clocks: FakeClocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replace(Holder.me("theirs"), process=replace(Holder.me("theirs").process, boot_id="another"))
    bucket = out._bucket
    assert bucket is not None
    get = bucket._client.get_object

    def a_day_later(**request: Any) -> dict[str, Any]:
        found = get(**request)
        headers = {"date": format_datetime(found["LastModified"].astimezone(UTC) + timedelta(days=1), usegmt=True)}
        return {**found, "ResponseMetadata": {"HTTPHeaders": headers}}

    out.write(LOCK, elsewhere.to_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(bucket._client, "get_object", a_day_later)
        assert not is_running(out)
        with hold_lock(out, "mine"):
            assert clocks.slept == 0
    out.write(LOCK, elsewhere.to_bytes())
    assert is_running(out)
    with hold_lock(out, "mine"):
        assert clocks.slept > 50


def test_nothing_is_uploaded_for_a_run_that_has_lost_its_lock(out: Storage) -> None:
    with hold_lock(out, "mine") as heartbeat:
        heartbeat.out.write("a", b"1")
        lost = pytest.raises(StorageFault, match="taken by another run")
        with lost, heartbeat.out.atomic_writer("a") as file:
            file.write(b"2")
            out.write(LOCK, Holder.me("theirs").to_bytes())
    assert out.read("a") == b"1"


def test_the_draft_of_a_killed_upload_is_swept_from_tmpdir_by_the_next(out: Storage, scratch: Path) -> None:
    with out.atomic_writer("a") as file:
        (mine,) = scratch.iterdir()
        left = scratch / f"{mine.name}-left"
        shutil.copytree(mine, left)
        os.utime(left, (0, 0))
        with out.atomic_writer("b"):
            assert not left.exists() and mine.exists()
        file.write(b"x")
    assert out.read("a") == b"x" and list(scratch.iterdir()) == []


# ---- other object stores ---------------------------------------------------------------------------------------


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Return a storage in memory, of Arrow, that is neither a disk nor S3."""
    monkeypatch.setattr(filesystem, "SCHEMES", ("mock",))
    return Storage.at("mock:///out")


def test_another_store_is_written_to_under_a_name_that_does_not_count(
    other: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    filesystem = other._place[0]

    class Interrupting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            names.extend(info.base_name for info in listed())
            raise KeyboardInterrupt

    def listed() -> list[object]:
        from pyarrow import fs

        found = filesystem.get_file_info(fs.FileSelector("out", recursive=True, allow_not_found=True))
        return [info for info in found if info.type == fs.FileType.File]

    filesystem.create_dir("out/folder")
    other.write("folder/whole", b"x")
    assert other.read("folder/whole") == b"x"
    with pytest.raises(KeyboardInterrupt):
        other._upload("folder/whole", Interrupting(b"half"))
    assert [info.base_name for info in listed()] == ["whole"]  # type: ignore[attr-defined]
    assert other.read("folder/whole") == b"x"
    with filesystem.open_output_stream("out/folder/.whole.0123abcd.unfinished") as left:
        left.write(b"half")
    assert [entry.path for entry in other.files(recursive=True)] == ["folder/whole"]
    other.abort_uploads(owns)
    assert len(listed()) == 2
    other.abort_uploads(lambda path: path == "folder/whole")
    assert len(listed()) == 1
