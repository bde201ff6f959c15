"""The lock on OUT: one run at a time, and none kept out by the dead."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from curation import lock
from curation.errors import RunStopped, UsageMistake
from curation.lock import STALE_SECONDS, Heartbeat, Holder, held, holder
from shards.layout import LOCK
from shards.storage import Storage, StorageFault
from tests.support import SMALL, assert_conserved, build_inline, captioned_spans


@pytest.fixture
def out(tmp_path: Path) -> Storage:
    return Storage.at(tmp_path / "out")


def elsewhere(seconds_ago: float) -> Holder:
    return Holder("theirs", "another-host", "", os.getpid(), 0.0, time.time() - seconds_ago)


def here(pid: int, started: float) -> Holder:
    return replace(Holder.me("theirs"), pid=pid, process_started=started)


def put(out: Storage, other: Holder) -> None:
    out.write(LOCK, other.to_bytes())


def wait_for(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_taken(out: Storage) -> None:
    with held(out, "mine") as heartbeat:
        now = holder(out)
        assert now is not None and (now.run_id, now.pid, now.host) == ("mine", os.getpid(), socket.gethostname())
        assert now.alive
        heartbeat.check()
    assert out.stat(LOCK) is None


def assert_kept_out(out: Storage, *words: str) -> None:
    before = out.read(LOCK)
    with pytest.raises(UsageMistake) as error, held(out, "mine"):
        pytest.fail("two runs at once")
    assert all(word in str(error.value) for word in (out.shown, "at work there", *words))
    assert out.read(LOCK) == before


def test_a_free_place_is_taken_and_given_up(out: Storage) -> None:
    assert holder(out) is None
    assert_taken(out)
    assert_taken(out)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_the_lock_is_given_up_whatever_ends_the_run(out: Storage, error: BaseException) -> None:
    with pytest.raises(type(error)), held(out, "mine"):
        raise error
    assert out.stat(LOCK) is None


def test_a_living_run_of_this_host_keeps_others_out_however_old_its_heartbeat(out: Storage) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        living = here(child.pid, psutil.Process(child.pid).create_time())
        put(out, Holder(**{**json.loads(living.to_bytes()), "beat": 0.0}))
        assert_kept_out(out, str(child.pid), socket.gethostname())
        child.communicate(b"\n")
    assert_taken(out)


def test_a_second_run_of_the_same_process_is_kept_out(out: Storage) -> None:
    with held(out, "first"):
        assert_kept_out(out, str(os.getpid()))


def test_a_dead_process_of_this_host_is_taken_over_from_at_once(out: Storage) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    started = psutil.Process(child.pid).create_time()
    child.wait()
    put(out, here(child.pid, started))
    assert_taken(out)


def test_another_process_with_the_number_of_the_dead_one_does_not_count(out: Storage) -> None:
    put(out, here(os.getpid(), psutil.Process().create_time() - 100))
    assert_taken(out)


def test_a_fresh_heartbeat_of_another_host_keeps_others_out(out: Storage) -> None:
    put(out, elsewhere(seconds_ago=STALE_SECONDS / 2))
    assert_kept_out(out, "another-host")


def test_a_stale_heartbeat_of_another_host_is_taken_over_from(out: Storage) -> None:
    put(out, elsewhere(seconds_ago=STALE_SECONDS + 1))
    assert_taken(out)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b'{"run_id": "x"}', b"\xff"])
def test_a_lock_that_a_crash_cut_short_holds_nothing(out: Storage, data: bytes) -> None:
    out.write(LOCK, data)
    assert_taken(out)


# ---- the heartbeat ---------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)


def stopped(heartbeat: Heartbeat) -> bool:
    try:
        heartbeat.check()
    except RunStopped:
        return True
    return False


@pytest.mark.usefixtures("quick")
def test_the_heartbeat_goes_on(out: Storage) -> None:
    with held(out, "mine") as heartbeat:
        first = holder(out)
        assert first is not None
        wait_for(lambda: (now := holder(out)) is not None and now.beat > first.beat)
        heartbeat.check()


@pytest.mark.usefixtures("quick")
def test_a_run_whose_lock_was_taken_steps_back_and_leaves_the_lock_to_the_other(out: Storage) -> None:
    with held(out, "mine") as heartbeat:
        put(out, elsewhere(0))
        wait_for(lambda: stopped(heartbeat))
        with pytest.raises(RunStopped, match="taken by another run"):
            heartbeat.check()
    left = holder(out)
    assert left is not None and left.run_id == "theirs"


@pytest.mark.usefixtures("quick")
def test_a_run_whose_lock_is_gone_steps_back(out: Storage) -> None:
    with held(out, "mine") as heartbeat:
        out.delete(LOCK)
        wait_for(lambda: stopped(heartbeat))
    assert out.stat(LOCK) is None


@pytest.mark.usefixtures("quick")
def test_a_heartbeat_that_cannot_be_written_for_long_stops_the_run(
    out: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Storage, path: str, data: bytes) -> None:
        raise StorageFault("no")

    monkeypatch.setattr(lock, "STALE_SECONDS", 0.1)
    with held(out, "mine") as heartbeat:
        monkeypatch.setattr(Storage, "write", refuse)
        wait_for(lambda: stopped(heartbeat))
        with pytest.raises(RunStopped, match="heartbeat could not be written"):
            heartbeat.check()
        monkeypatch.undo()


@pytest.mark.usefixtures("quick")
def test_a_short_fault_does_not_stop_the_run(out: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    write, times = Storage.write, []

    def refuse_twice(self: Storage, path: str, data: bytes) -> None:
        times.append(path)
        if len(times) < 3:
            raise StorageFault("no")
        write(self, path, data)

    with held(out, "mine") as heartbeat:
        monkeypatch.setattr(Storage, "write", refuse_twice)
        wait_for(lambda: len(times) > 4)
        heartbeat.check()


def test_a_second_run_over_one_place_does_nothing_while_the_first_is_alive(tmp_path: Path) -> None:
    source = captioned_spans(tmp_path, 2)
    out = Storage.at(tmp_path / "out")
    put(out, elsewhere(0))
    with pytest.raises(UsageMistake, match="another-host"):
        build_inline(source, tmp_path / "out", SMALL)
    assert [entry.path for entry in out.files(recursive=True)] == [LOCK]
    put(out, elsewhere(STALE_SECONDS + 1))
    build_inline(source, tmp_path / "out", SMALL)
    assert_conserved(tmp_path / "out")
