"""The lock on OUT: one run at a time, and none kept out by the dead."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nextscene.common import run_lock
from nextscene.common.errors import RunStopped
from nextscene.common.fence import LOCK
from nextscene.common.lease import STALE_SECONDS, Holder, next_beat
from nextscene.common.process_identity import ProcessIdentity, ProcessState
from nextscene.common.run_lock import CONFIRM_SECONDS, Heartbeat, hold_lock, holder, is_running
from nextscene.common.storage import Storage, StorageFault
from nextscene.curation.config import BuildConfig, RunLimits
from tests.clocks.fake import HERE, FakeClocks
from tests.clocks.shim import Machine
from tests.holders import ELSEWHERE, elsewhere, here, put
from tests.support import SMALL, assert_conserved, build_inline, captioned_spans


@pytest.fixture
def out(tmp_path: Path) -> Storage:
    return Storage.at(tmp_path / "out")


def as_older(run_id: str, host: str, pid_space: str, pid: int, started: float, beat: float) -> bytes:
    """A lock as it was written before boot ids."""
    return json.dumps(
        {"run_id": run_id, "host": host, "pid_space": pid_space, "pid": pid, "process_started": started, "beat": beat}
    ).encode()


def put_between_heartbeats(out: Storage, other: Holder) -> None:
    """As a run takes a lock over, and never in the middle of a heartbeat."""
    wait_for(lambda: out.take_over(LOCK, out.read(LOCK), other.to_bytes()))


def wait_for(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_taken(out: Storage, host: str = socket.gethostname()) -> None:
    with hold_lock(out, "mine") as heartbeat:
        now = holder(out)
        assert now is not None and (now.run_id, now.pid, now.host) == ("mine", os.getpid(), host)
        assert now.state is ProcessState.ALIVE and is_running(out)
        heartbeat.check()
    assert out.stat(LOCK) is None


def assert_kept_out(out: Storage, *words: str) -> None:
    before = out.read(LOCK)
    with pytest.raises(RunStopped) as error, hold_lock(out, "mine"):
        pytest.fail("two runs at once")
    assert all(word in str(error.value) for word in (out.display_uri, "at work there", *words))
    assert out.read(LOCK) == before


def test_a_free_place_is_taken_and_given_up(out: Storage) -> None:
    assert holder(out) is None
    assert_taken(out)
    assert_taken(out)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_the_lock_is_given_up_whatever_ends_the_run(out: Storage, error: BaseException) -> None:
    with pytest.raises(type(error)), hold_lock(out, "mine"):
        raise error
    assert out.stat(LOCK) is None


def test_a_live_run_on_this_host_refuses_others_even_with_an_old_heartbeat(out: Storage) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        put(out, replace(here(child.pid), beat=0.0, awake=-1e6))
        assert_kept_out(out, str(child.pid), socket.gethostname())
        child.communicate(b"\n")
    assert_taken(out)


def test_a_second_run_of_the_same_process_is_kept_out(out: Storage) -> None:
    with hold_lock(out, "first"):
        assert_kept_out(out, str(os.getpid()))


def test_a_dead_process_of_this_host_is_taken_over_from_at_once(out: Storage, clocks: FakeClocks) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        living = here(child.pid)
        child.kill()
    put(out, living)
    assert_taken(out, HERE.host)
    assert clocks.slept == 0


def test_a_zombie_is_dead(out: Storage) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        living = here(child.pid)
        child.kill()
        wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
        put(out, living)
        assert_taken(out)


def test_another_process_with_the_number_of_the_dead_one_does_not_count(out: Storage) -> None:
    put(out, replace(Holder.me("theirs"), process=replace(ProcessIdentity.me(), start="1")))
    assert_taken(out)


@pytest.mark.parametrize("seconds", [3, -3, 3600, -3600])
def test_a_step_of_the_wall_clock_makes_no_process_another(seconds: float, clocks: FakeClocks) -> None:
    me = Holder.me("mine")
    clocks.wall_now += seconds
    assert me.state is ProcessState.ALIVE and Holder.me("mine").process == me.process


@pytest.mark.parametrize(
    "machine",
    [
        Machine("another", "boot-another", HERE.container),
        Machine(HERE.host, "boot-another", HERE.container),
        Machine(HERE.host, HERE.boot_id, "pid:[2]"),
    ],
)
def test_where_numbers_mean_something_else_nothing_is_known_of_a_process(
    machine: Machine, clocks: FakeClocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have the host's name, and its number may be another's here."""
    me = Holder.me("mine")
    machine.installed(clocks, monkeypatch.setattr)
    assert (
        me.state is ProcessState.UNKNOWN
        and replace(me, process=replace(me.process, start="1")).state is ProcessState.UNKNOWN
    )


def test_a_process_that_is_hidden_from_this_user_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As /proc may be mounted so that each sees his own alone."""
    me = ProcessIdentity.me()
    monkeypatch.setattr("nextscene.common.process_identity._start_of", lambda pid: None)
    assert me.state is ProcessState.UNKNOWN
    assert replace(me, pid=2**22 + 1).state is ProcessState.ENDED


# ---- a lock that is held elsewhere -----------------------------------------------------------------------------


def test_a_run_elsewhere_that_beats_is_waited_for_and_then_keeps_others_out(
    out: Storage, clocks: FakeClocks, caplog: pytest.LogCaptureFixture
) -> None:
    beats = Beating(out, clocks)
    at_work = "another-host, process 7, is at work there; wait for it, or stop it"
    with pytest.raises(RunStopped, match=at_work), hold_lock(out, "mine", 90):
        pytest.fail("two runs at once")
    assert 89 < clocks.slept < 95
    assert holder(out) == beats.last
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "another-host, process 7" in line and "90 s" in line


def test_without_a_wait_it_keeps_others_out_at_once(out: Storage, clocks: FakeClocks) -> None:
    put(out, elsewhere())
    with pytest.raises(RunStopped, match="lock_wait_seconds"), hold_lock(out, "mine", 0):
        pytest.fail("two runs at once")
    assert clocks.slept == 0


@pytest.mark.parametrize("beat", [0.0, 1_700_000_000.0, 1_700_003_600.0, 9e9])
def test_a_remote_run_without_heartbeat_is_taken_over_whatever_its_clock(
    out: Storage, clocks: FakeClocks, beat: float
) -> None:
    put(out, elsewhere(beat=beat))
    assert_taken(out, HERE.host)
    assert STALE_SECONDS <= clocks.slept < STALE_SECONDS + 5


def test_a_run_elsewhere_that_ends_meanwhile_is_followed(out: Storage, clocks: FakeClocks) -> None:
    put(out, elsewhere())
    clocks.meanwhile = lambda slept: out.delete(LOCK) if slept == 7 else None
    assert_taken(out, HERE.host)
    assert clocks.slept == 7


@pytest.mark.parametrize("lives", [True, False])
def test_a_suspend_while_another_is_waited_for_says_nothing_of_that(
    out: Storage, clocks: FakeClocks, lives: bool
) -> None:
    """The machine of the other may have been suspended as well."""
    beats = Beating(out, clocks, until=1e9 if lives else 0)

    def suspended_once(slept: float) -> None:
        if slept == 5:
            clocks.suspend(600)
        if slept == 20:
            clocks.pass_by(600)  # as after SIGSTOP, or of a virtual machine that was stopped
        beats(slept)

    clocks.meanwhile = suspended_once
    if lives:
        with pytest.raises(RunStopped, match="at work there"), hold_lock(out, "mine"):
            pytest.fail("two runs at once")
        assert clocks.slept > 80
    else:
        assert_taken(out, HERE.host)
        assert 50 < clocks.slept < 65


def test_of_a_container_beside_this_one_the_age_of_the_heartbeat_is_known(out: Storage, clocks: FakeClocks) -> None:
    beside = replace(ELSEWHERE, boot_id=HERE.boot_id, pid_space="pid:[2]")
    put(out, elsewhere(process=beside, awake=clocks.awake() - STALE_SECONDS))
    assert_taken(out, HERE.host)
    assert clocks.slept == 0
    put(out, elsewhere(process=beside, awake=clocks.awake() - STALE_SECONDS + 10))
    assert is_running(out)
    assert_taken(out, HERE.host)
    assert 9 < clocks.slept < 12


@pytest.mark.parametrize(("age", "waits"), [(None, True), (0.0, True), (119.0, True), (120.0, False), (-3600.0, True)])
def test_the_clock_of_the_store_tells_at_once_that_a_lock_is_long_stale(
    out: Storage, clocks: FakeClocks, monkeypatch: pytest.MonkeyPatch, age: float | None, waits: bool
) -> None:
    put(out, elsewhere())
    monkeypatch.setattr(Storage, "read_with_age", lambda self, path: (self.read(path), age))
    assert_taken(out, HERE.host)
    assert (clocks.slept > 0) == waits


def test_whether_a_run_elsewhere_is_at_work_is_seen_by_its_next_heartbeat(out: Storage, clocks: FakeClocks) -> None:
    assert not is_running(out)
    Beating(out, clocks)
    assert is_running(out) and clocks.slept <= run_lock.BEAT_SECONDS
    clocks.meanwhile = lambda _: None
    assert not is_running(out)


class Beating:
    """A run elsewhere, which writes its heartbeat while others sleep."""

    def __init__(self, out: Storage, clocks: FakeClocks, until: float = 1e9) -> None:
        self._out, self._until = out, until
        self.last = elsewhere()
        put(out, self.last)
        clocks.meanwhile = self

    def __call__(self, slept: float) -> None:
        if slept % run_lock.BEAT_SECONDS == 0 and slept < self._until:
            self.last = replace(self.last, count=self.last.count + 1)
            put(self._out, self.last)


# ---- locks of older versions, and what they make of ours -------------------------------------------------------


def test_a_living_run_of_an_older_version_keeps_others_out(out: Storage) -> None:
    started, space = psutil.Process().create_time(), os.readlink("/proc/self/ns/pid")
    out.write(LOCK, as_older("theirs", socket.gethostname(), space, os.getpid(), started, 0.0))
    assert_kept_out(out, str(os.getpid()))


def test_an_older_version_that_looks_dead_is_evicted_only_without_heartbeat(out: Storage, clocks: FakeClocks) -> None:
    """Its start moved with the wall clock; and a number that is not here may be one of a host of the same name."""

    def older(beat: float) -> bytes:
        return as_older("theirs", HERE.host, HERE.container, os.getpid(), 1.0, beat)

    out.write(LOCK, older(0.0))
    clocks.meanwhile = lambda slept: out.write(LOCK, older(slept)) if slept % 10 == 0 else None
    with pytest.raises(RunStopped, match="at work there"), hold_lock(out, "mine"):
        pytest.fail("two runs at once")
    clocks.meanwhile = lambda _: None
    assert_taken(out, HERE.host)


def test_an_older_version_reads_our_lock_as_remote_and_a_released_one_as_free() -> None:
    """It makes a Holder of exactly these six, and takes what it cannot make one of for a dead run's."""
    written = json.loads(Holder.me("mine").to_bytes())
    assert set(written) == {"run_id", "host", "pid_space", "pid", "process_started", "beat"}
    assert (written["host"], written["pid_space"]) != (socket.gethostname(), os.readlink("/proc/self/ns/pid"))
    assert 0 <= time.time() - written["beat"] < 60


def test_the_time_of_a_heartbeat_is_shown_whatever_it_is() -> None:
    assert elsewhere(beat=1_700_000_000.0).beat_text == "2023-11-14 22:13:20 UTC"
    assert elsewhere(beat=1e300).beat_text == elsewhere(beat=float("nan")).beat_text == "unknown"


def test_what_is_written_is_read_again() -> None:
    me = next_beat(Holder.me("mine"))
    assert Holder.of(me.to_bytes()) == me and me.count == 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b'{"run_id": "x"}', b"\xff"])
def test_a_lock_that_a_crash_cut_short_holds_nothing(out: Storage, data: bytes) -> None:
    out.write(LOCK, data)
    assert_taken(out)


# ---- the heartbeat ---------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "BEAT_SECONDS", 0.02)


def stopped(heartbeat: Heartbeat) -> bool:
    try:
        heartbeat.check()
    except RunStopped:
        return True
    return False


@pytest.mark.usefixtures("quick")
def test_the_heartbeat_goes_on(out: Storage) -> None:
    with hold_lock(out, "mine") as heartbeat:
        first = holder(out)
        assert first is not None
        wait_for(lambda: (now := holder(out)) is not None and now.count > first.count + 1)
        heartbeat.check()


def test_each_heartbeat_changes_the_lock_though_the_clocks_stand_still(out: Storage, clocks: FakeClocks) -> None:
    with hold_lock(out, "mine") as heartbeat:
        seen = {out.read(LOCK)}
        for _ in range(3):
            heartbeat._beat()
            seen.add(out.read(LOCK))
    assert len(seen) == 4


@pytest.mark.usefixtures("quick")
def test_a_run_whose_lock_was_taken_steps_back_and_leaves_the_lock_to_the_other(out: Storage) -> None:
    with hold_lock(out, "mine") as heartbeat:
        put_between_heartbeats(out, elsewhere())
        wait_for(lambda: stopped(heartbeat))
        with pytest.raises(RunStopped, match="taken by another run, on another-host, process 7"):
            heartbeat.check()
    left = holder(out)
    assert left is not None and left.run_id == "theirs"


@pytest.mark.usefixtures("quick")
def test_a_run_whose_lock_is_gone_steps_back(out: Storage) -> None:
    with hold_lock(out, "mine") as heartbeat:
        while out.stat(LOCK):
            out.delete_if_equal(LOCK, out.read(LOCK))
        wait_for(lambda: stopped(heartbeat))
        with pytest.raises(RunStopped, match="is gone: is the disk mounted"):
            heartbeat.check()
    assert out.stat(LOCK) is None


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("garbage", [b"\x00\xff garbage", b"{}", b"[1]", b'{"run_id": 3'])
def test_a_run_whose_lock_is_overwritten_by_garbage_says_that_it_is_damaged(out: Storage, garbage: bytes) -> None:
    """It names no other run, since there is none; the next run takes the lock over at once."""
    with hold_lock(out, "mine") as heartbeat:
        wait_for(lambda: out.take_over(LOCK, out.read(LOCK), garbage))
        wait_for(lambda: stopped(heartbeat))
        with pytest.raises(RunStopped, match="is damaged: something that is not a run wrote to it; keep"):
            heartbeat.check()
        with pytest.raises(StorageFault, match=r"its run\.lock is damaged"):
            heartbeat.out.write("a", b"1")
    with hold_lock(out, "next", wait_seconds=0):
        pass


def refuse(self: Storage, path: str, data: bytes) -> None:
    raise StorageFault("no")


def test_a_heartbeat_that_cannot_be_written_for_long_stops_the_run(
    out: Storage, clocks: FakeClocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold_lock(out, "mine") as heartbeat, monkeypatch.context() as patch:
        patch.setattr(Storage, "write", refuse)
        clocks.pass_by(CONFIRM_SECONDS)
        heartbeat.check()
        clocks.pass_by(1)
        with pytest.raises(RunStopped, match="heartbeat could not be written for 60 s"):
            heartbeat.check()
        assert STALE_SECONDS < clocks.slept < STALE_SECONDS + 5


# ---- a run that was stopped for long ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["suspend", "pass_by"])
def test_a_run_that_was_stopped_finds_out_that_another_has_taken_over(
    out: Storage, clocks: FakeClocks, how: str
) -> None:
    """Before it writes anything, and before its next heartbeat."""
    with hold_lock(out, "mine") as heartbeat:
        heartbeat.check()
        put(out, elsewhere())
        getattr(clocks, how)(600)
        with pytest.raises(RunStopped, match="taken by another run, on another-host, process 7; this run stops"):
            heartbeat.check()
    assert holder(out) == elsewhere()


@pytest.mark.parametrize("how", ["suspend", "pass_by"])
def test_a_run_that_was_stopped_and_still_holds_its_lock_goes_on(out: Storage, clocks: FakeClocks, how: str) -> None:
    with hold_lock(out, "mine") as heartbeat:
        before = holder(out)
        getattr(clocks, how)(600)
        heartbeat.check()
        now = holder(out)
        assert before and now and now.count > before.count  # others see that it lives


def test_a_network_that_is_late_after_a_suspend_is_waited_for(
    out: Storage, clocks: FakeClocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold_lock(out, "mine") as heartbeat, monkeypatch.context() as patch:
        patch.setattr(Storage, "write", refuse)
        clocks.suspend(600)
        clocks.meanwhile = lambda slept: patch.undo() if slept == 20 else None
        heartbeat.check()
        assert clocks.slept == 20


def test_a_heartbeat_that_hangs_is_not_waited_for_without_an_end(out: Storage, clocks: FakeClocks) -> None:
    with hold_lock(out, "mine") as heartbeat:
        with heartbeat._beating:  # as its thread does while the storage does not answer
            clocks.pass_by(CONFIRM_SECONDS + 1)
            with pytest.raises(RunStopped, match=r"could not be written for 60 s: .* does not answer"):
                heartbeat.check()
        assert STALE_SECONDS < clocks.slept < STALE_SECONDS + 5
        heartbeat.check()


def test_between_heartbeats_the_lock_is_not_read(
    out: Storage, clocks: FakeClocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold_lock(out, "mine") as heartbeat, monkeypatch.context() as patch:
        patch.setattr(Storage, "read", refuse)
        clocks.pass_by(CONFIRM_SECONDS)
        heartbeat.check()


def test_a_run_that_was_stopped_in_the_middle_of_a_heartbeat_steps_back(
    out: Storage, clocks: FakeClocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk it may have replaced what another wrote meanwhile."""
    swap = Storage.compare_and_swap

    def stopped_in_it(self: Storage, path: str, before: bytes, after: bytes) -> bool:
        clocks.suspend(600)
        return swap(self, path, before, after)

    monkeypatch.setattr(Storage, "compare_and_swap", stopped_in_it)
    with hold_lock(out, "mine") as heartbeat:
        heartbeat._beat()
        with pytest.raises(RunStopped, match="was stopped while it wrote its heartbeat"):
            heartbeat.check()


WRITES: dict[str, Callable[[Storage], object]] = {
    "write": lambda out: out.write("a", b"2"),
    "keep": lambda out: out.write_if_changed("a", b"2"),
    "create": lambda out: out.create("b", b"2"),
    "swap": lambda out: out.compare_and_swap("a", b"1", b"2"),
    "delete": lambda out: out.delete("a"),
    "below": lambda out: out.subfolder("folder").write("a", b"2"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_nothing_is_written_for_a_run_that_has_lost_its_lock(out: Storage, write: Callable[[Storage], object]) -> None:
    """Not by a worker either, which does not hear the heartbeat."""
    with hold_lock(out, "mine") as heartbeat:
        for path in ("a", "folder/a"):
            heartbeat.out.write(path, b"1")
        put(out, elsewhere())
        with pytest.raises(StorageFault, match=r"its run\.lock was taken by another run"):
            write(heartbeat.out)
        out.delete(LOCK)
        with pytest.raises(StorageFault, match=r"its run\.lock is gone"):
            write(heartbeat.out)
        assert {entry.path: out.read(entry.path) for entry in out.files(recursive=True)} == {
            "a": b"1",
            "folder/a": b"1",
        }


def test_what_was_begun_before_the_lock_was_lost_is_not_published(out: Storage) -> None:
    lost = pytest.raises(StorageFault, match="taken by another run")
    with hold_lock(out, "mine") as heartbeat, lost, heartbeat.out.atomic_writer("a") as file:
        file.write(b"1")
        put(out, elsewhere())
    assert [entry.path for entry in out.files()] == [LOCK]


@pytest.mark.usefixtures("quick")
def test_a_short_fault_does_not_stop_the_run(out: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    write, times = Storage.write, []

    def refuse_twice(self: Storage, path: str, data: bytes) -> None:
        times.append(path)
        if len(times) < 3:
            raise StorageFault("no")
        write(self, path, data)

    with hold_lock(out, "mine") as heartbeat:
        monkeypatch.setattr(Storage, "write", refuse_twice)
        wait_for(lambda: len(times) > 4)
        heartbeat.check()


def test_a_second_run_over_one_place_does_nothing_while_the_first_is_alive(tmp_path: Path, clocks: FakeClocks) -> None:
    source = captioned_spans(tmp_path, 2)
    out = Storage.at(tmp_path / "out")
    Beating(out, clocks)
    with pytest.raises(RunStopped, match="another-host"):
        build_inline(source, tmp_path / "out", SMALL)
    assert [entry.path for entry in out.files(recursive=True)] == [LOCK]
    clocks.meanwhile = lambda _: None
    build_inline(source, tmp_path / "out", SMALL)
    assert_conserved(tmp_path / "out")


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_wait_must_have_a_length(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"limits\.lock_wait_seconds must"):
        BuildConfig(limits=RunLimits(lock_wait_seconds=seconds))
    assert BuildConfig(limits=RunLimits(lock_wait_seconds=0)).limits.lock_wait_seconds == 0
