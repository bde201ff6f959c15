"""A judge asks for as long as its run lives and holds OUT; then it says what has become of that."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common.fence import LOCK
from nextscene.common.lease import STALE_SECONDS, Holder
from nextscene.common.process_identity import ProcessIdentity
from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage, StorageFault
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.run_ownership import RunOwnershipCheck
from tests.clocks.fake import FakeClocks
from tests.holders import elsewhere, here, put


@pytest.fixture
def out(tmp_path: Path) -> Storage:
    return Storage.at(tmp_path / "out")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """The driver's process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child


def test_while_the_run_holds_the_lock_its_judge_may_ask(out: Storage, clocks: FakeClocks) -> None:
    with hold_lock(out, "mine"):
        ownership = RunOwnershipCheck(out, "mine")
        for _ in range(3):
            ownership.check()
            clocks.pass_by(5)


def test_without_a_lock_or_under_anothers_nobody_may_ask(out: Storage) -> None:
    with pytest.raises(JudgeStopped, match=r"run mine into .*: its lock is gone: is the disk mounted\?"):
        RunOwnershipCheck(out, "mine").check()
    taken = f"its lock was taken by another run, on .*, process {os.getpid()}"
    with hold_lock(out, "other"), pytest.raises(JudgeStopped, match=taken):
        RunOwnershipCheck(out, "mine").check()


@pytest.mark.parametrize("seconds", [0.2, 60.0])
def test_once_the_process_of_the_run_has_ended_nobody_may_ask(
    out: Storage, clocks: FakeClocks, child: subprocess.Popen[bytes], seconds: float
) -> None:
    """Though its lock still lies there, and whether or not that is read again."""
    put(out, here(child.pid, "mine"))
    ownership = RunOwnershipCheck(out, "mine")
    ownership.check()
    child.kill()
    child.wait()
    clocks.pass_by(seconds)
    with pytest.raises(JudgeStopped, match=f"its process, {child.pid} on here, has ended"):
        ownership.check()
    assert out.stat(LOCK)


def test_that_a_run_ended_is_said_and_not_that_it_gave_its_lock_up(
    out: Storage, clocks: FakeClocks, child: subprocess.Popen[bytes]
) -> None:
    put(out, here(child.pid, "mine"))
    ownership = RunOwnershipCheck(out, "mine")
    ownership.check()
    child.kill()
    child.wait()
    out.delete(LOCK)
    clocks.pass_by(5)
    with pytest.raises(JudgeStopped, match="has ended"):
        ownership.check()


@pytest.mark.parametrize("how", ["pass_by", "suspend"])
def test_a_run_that_lost_its_lock_may_not_ask_though_its_process_lives(
    out: Storage, clocks: FakeClocks, how: str
) -> None:
    """Also right after a suspend, in which the other came."""
    with hold_lock(out, "mine"):
        ownership = RunOwnershipCheck(out, "mine")
        ownership.check()
        put(out, elsewhere())
        getattr(clocks, how)(600)
        with pytest.raises(JudgeStopped, match=r"taken by another run, on another-host, process 7"):
            ownership.check()


def test_between_two_readings_of_the_lock_only_the_process_is_looked_for(out: Storage, clocks: FakeClocks) -> None:
    with hold_lock(out, "mine"):
        ownership = RunOwnershipCheck(out, "mine")
        ownership.check()
        out.delete(LOCK)
        clocks.pass_by(1.9)
        ownership.check()
        clocks.pass_by(0.2)
        with pytest.raises(JudgeStopped, match="is gone"):
            ownership.check()


@pytest.mark.parametrize("seconds", [3, -3, 3600, -3600])
def test_a_step_of_the_wall_clock_ends_no_asking(out: Storage, clocks: FakeClocks, seconds: float) -> None:
    with hold_lock(out, "mine"):
        ownership = RunOwnershipCheck(out, "mine")
        ownership.check()
        clocks.wall_now += seconds
        clocks.pass_by(5)
        ownership.check()


def test_a_lock_that_cannot_be_read_is_the_cause(
    out: Storage, clocks: FakeClocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Storage, path: str) -> bytes:
        raise StorageFault("cannot read run.lock in out: Input/output error")

    with hold_lock(out, "mine"), monkeypatch.context() as patch:
        patch.setattr(Storage, "read_with_age", refuse)
        with pytest.raises(JudgeStopped, match=r"its lock cannot be read: .* Input/output error"):
            RunOwnershipCheck(out, "mine").check()


def test_a_run_on_another_host_is_followed_by_its_heartbeat(out: Storage, clocks: FakeClocks) -> None:
    """Whatever its wall clock says; for as long as the machine was suspended nothing is counted."""
    put(out, elsewhere(run_id="mine", beat=0.0))
    ownership = RunOwnershipCheck(out, "mine")
    ownership.check()
    clocks.pass_by(STALE_SECONDS - 1)
    clocks.suspend(600)
    ownership.check()
    put(out, elsewhere(run_id="mine", beat=0.0, count=4))
    clocks.pass_by(STALE_SECONDS - 1)
    ownership.check()
    clocks.pass_by(STALE_SECONDS - 1)
    ownership.check()
    clocks.pass_by(2)
    with pytest.raises(JudgeStopped, match=r"heartbeat has not been written for a minute, on another-host"):
        ownership.check()


def test_a_process_that_took_the_number_of_the_dead_one_does_not_count(out: Storage) -> None:
    put(out, replace(Holder.me("mine"), process=replace(ProcessIdentity.me(), start="1")))
    with pytest.raises(JudgeStopped, match="has ended"):
        RunOwnershipCheck(out, "mine").check()
