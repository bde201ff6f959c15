"""The supervisor of the process that works on Ray: however that ends, or does not, the run ends with the cause."""

from __future__ import annotations

import logging
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from nextscene.common.errors import RayFailed, RunStopped, UsageError
from nextscene.common.ray_cluster import supervisor
from nextscene.common.ray_cluster.messages import Alive, ClusterAnswered, Connected, Ended, Logged, Moved, Printed
from nextscene.common.ray_cluster.server_processes import DEAD, RayProcesses, servers_of, state_of
from nextscene.common.ray_cluster.supervisor import supervise
from nextscene.curation.progress import Stages
from tests.fakes import scripted_driver

pytestmark = pytest.mark.slow

HANG = ("sleep", 600)


class Script(list[tuple[str, Any]]):
    """A request to the scripted driver."""

    address = None
    workers = None
    training = False

    def __init__(self, steps: Iterable[tuple[str, Any]], stop_seconds: float = 900.0) -> None:
        super().__init__(steps)
        self.stop_seconds = stop_seconds

    def work(self, driver: Any) -> None: ...


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor.driver, "__file__", scripted_driver.__file__)
    monkeypatch.setattr(supervisor, "_POLL_SECONDS", 0.05)
    for name in ("_LEAVE_SECONDS", "_SETTLE_SECONDS"):
        monkeypatch.setattr(supervisor, name, 0.3)


def run(*steps: tuple[str, Any], ticks: list[Any] | None = None) -> Any:
    seen = ticks if ticks is not None else []
    return supervise(Script(steps), lambda *told: seen.append(told), lambda: None)


@pytest.fixture
def raylet(tmp_path: Path) -> Iterator[psutil.Popen]:
    """A process that is called so."""
    program = tmp_path / "raylet"
    shutil.copy(shutil.which("sleep") or "sleep", program)
    with psutil.Popen([f"{tmp_path}/raylet --socket=/session_7/raylet.1", "600"], executable=program) as process:
        yield process
        with suppress(psutil.NoSuchProcess):
            process.kill()


def pause(process: psutil.Popen) -> None:
    process.suspend()
    while process.status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)


def connected(raylet: psutil.Popen) -> tuple[str, Any]:
    return "send", Connected((("raylet", raylet.pid),))


# ---- an orderly end --------------------------------------------------------------------------------------------


def test_what_the_work_came_to_is_returned_and_what_it_told_is_passed_on() -> None:
    ticks: list[Any] = []
    moved = Moved((Stages(1, 2, 3, 4), None))
    assert run(("send", moved), ("send", Ended("done")), ticks=ticks) == "done"
    assert ticks == [moved.progress]


def test_work_that_ended_while_the_supervisor_was_paused_is_done(raylet: psutil.Popen, tmp_path: Path) -> None:
    def pause(*_: Any) -> None:
        while not (tmp_path / "ended").exists():
            time.sleep(0.01)

    steps = Script(
        [
            connected(raylet),
            ("send", Moved((Stages(1, 2, 3, 4), None))),
            ("send", Alive(0)),
            ("send", Ended("done")),
            ("kill", raylet.pid),
            ("note its number", tmp_path / "ended"),
        ]
    )
    assert supervise(steps, pause, lambda: None) == "done"


@pytest.mark.parametrize("error", [RunStopped("a full disk"), UsageError("no such model"), ValueError("a bug")])
def test_what_the_work_raised_is_raised(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)) as raised:
        run(("send", Ended(error=error, traceback="line 7 of the work")))
    assert raised.value.__notes__ == ["line 7 of the work"]


def test_its_log_is_ours(caplog: pytest.LogCaptureFixture) -> None:
    record = logging.LogRecord("nextscene.curation.run.engine", logging.WARNING, "", 0, "a worker died", None, None)
    run(("send", Logged(record)), ("send", Ended()))
    assert [(one.name, one.message) for one in caplog.records] == [("nextscene.curation.run.engine", "a worker died")]


def test_what_it_prints_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    run(("send", Printed("stdout", "a line\n")), ("send", Printed("stderr", "step 1\nstep 2\n")), ("send", Ended()))
    assert capsys.readouterr() == ("a line\n", "step 1\nstep 2\n")


def test_what_stops_the_run_is_told_and_its_end_waited_for() -> None:
    def check() -> None:
        raise RunStopped("the lock was taken")

    steps = Script([("answer", Ended(error=RunStopped("the lock was taken")))])
    with pytest.raises(RunStopped, match="the lock was taken"):
        supervise(steps, lambda *_: None, check)


def test_one_that_does_not_stop_when_told_is_ended() -> None:

    def check() -> None:
        raise RunStopped("the lock was taken")

    with pytest.raises(RunStopped, match=r"the lock was taken; what was under way did not end"):
        supervise(Script([HANG], stop_seconds=0.1), lambda *_: None, check)


def test_at_an_interrupt_it_is_told_to_leave_and_nothing_of_it_stays(tmp_path: Path) -> None:
    def check() -> None:
        if (tmp_path / "pid").exists():
            raise KeyboardInterrupt

    steps = Script([("note its number", tmp_path / "pid"), HANG])
    with pytest.raises(KeyboardInterrupt):
        supervise(steps, lambda *_: None, check)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


# ---- what fails ------------------------------------------------------------------------------------------------


def test_a_death_is_told_with_what_it_said_last() -> None:
    with pytest.raises(RunStopped, match=r"ended with status 1; Failed to connect to GCS"):
        run(("say", "Failed to connect to GCS"), ("exit", 1))


def test_one_that_was_killed_is_the_cause_of_what_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RayProcesses, "cause", lambda _: "Ray's dashboard agent (process 7) died")
    with pytest.raises(RunStopped, match=r"^the process that works on Ray ended by signal 9"):
        run(("kill", 0))


def test_a_death_by_a_server_of_ray_is_told_by_its_name(raylet: psutil.Popen) -> None:
    with pytest.raises(RunStopped, match=rf"^Ray's raylet \(process {raylet.pid}\) died"):
        run(connected(raylet), ("kill", raylet.pid), ("exit", 1))


@pytest.mark.parametrize("after", [HANG, ("send", Ended(error=RayFailed("the local raylet died")))])
def test_a_server_that_dies_ends_the_run_whatever_the_work_notices(raylet: psutil.Popen, after: Any) -> None:
    with pytest.raises(RunStopped, match=rf"^Ray's raylet \(process {raylet.pid}\) died"):
        run(connected(raylet), ("kill", raylet.pid), after)


def test_work_that_has_ended_has_ended_whatever_dies_as_ray_is_shut_down(raylet: psutil.Popen, tmp_path: Path) -> None:
    """The end is told before Ray is shut down; here the run looks only when all of it has happened."""
    number = tmp_path / "pid"

    def check() -> None:
        while number.exists() and number.read_text() and state_of(int(number.read_text())) != DEAD:
            time.sleep(0.01)

    ended = Ended(error=UsageError("the key is no good"))
    work = [connected(raylet), ("sleep", 0.2), ("note its number", number), ("sleep", 0.5), ("send", ended)]
    steps = Script([*work, ("kill", raylet.pid), ("exit", 0)])
    with pytest.raises(UsageError, match="the key is no good"):
        supervise(steps, lambda *_: None, check)


def test_a_failure_of_ray_without_a_cause_to_be_seen_is_told_as_it_is(raylet: psutil.Popen) -> None:
    with pytest.raises(RunStopped, match=r"^no such object$"):
        run(connected(raylet), ("send", Ended(error=RayFailed("no such object"))))


def test_a_start_that_does_not_end_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_START_SECONDS", 0.1)
    with pytest.raises(RunStopped, match="Ray does not start"):
        run(HANG)


def test_a_node_given_up_by_its_cluster_ends_the_run_naming_the_paused_server(raylet: psutil.Popen) -> None:
    pause(raylet)
    with pytest.raises(
        RunStopped, match=rf"given up the node of this machine; Ray's raylet \(process {raylet.pid}\) was"
    ):
        run(connected(raylet), ("send", ClusterAnswered(node_is_alive=False)), HANG)


def test_a_cluster_that_does_not_answer_ends_the_run(raylet: psutil.Popen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_CLUSTER_SILENT_SECONDS", 0.2)
    with pytest.raises(RunStopped, match="GCS server does not answer"):
        run(connected(raylet), ("send", ClusterAnswered(node_is_alive=True)), ("sleep", 0.3), ("send", Alive(0)), HANG)


def test_where_the_driver_process_is_silent_nothing_is_said_of_the_cluster(
    raylet: psutil.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("_CLUSTER_SILENT_SECONDS", "_DRIVER_SILENT_SECONDS"):
        monkeypatch.setattr(supervisor, bound, 1.0)
    with pytest.raises(RunStopped, match=r"^the process that works on Ray \(\d+\)"):
        run(connected(raylet), ("send", ClusterAnswered(node_is_alive=True)), ("sleep", 0.5), ("send", Alive(0)), HANG)


def test_a_call_of_ray_that_does_not_return_ends_the_run(raylet: psutil.Popen) -> None:
    with pytest.raises(RunStopped, match="Ray does not answer on this machine"):
        run(connected(raylet), ("send", Alive(61)), HANG)


def test_a_driver_process_that_does_not_run_ends_the_run(raylet: psutil.Popen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_DRIVER_SILENT_SECONDS", 0.2)
    with pytest.raises(RunStopped, match=r"the process that works on Ray \(\d+\) does not answer"):
        run(connected(raylet), HANG)


# ---- Ray's servers ---------------------------------------------------------------------------------------------


def test_the_raylet_of_another_node_on_this_machine_is_not_depended_on(raylet: psutil.Popen) -> None:
    assert servers_of("session_7", "/session_7/raylet.1") == (("raylet", raylet.pid),)
    assert servers_of("session_7", "/session_7/raylet") == ()


def test_one_that_goes_on_after_a_pause_is_still_named_as_the_cause(raylet: psutil.Popen) -> None:
    servers = RayProcesses([("raylet", raylet.pid)])
    assert servers.cause() == ""
    pause(raylet)
    servers.poll()
    raylet.send_signal(signal.SIGCONT)
    assert servers.cause() == f"Ray's raylet (process {raylet.pid}) was paused"
    assert not servers.server_died


def test_who_died_first_is_the_cause(raylet: psutil.Popen, tmp_path: Path) -> None:
    with psutil.Popen([f"{tmp_path}/gcs_server", "600"], executable=tmp_path / "raylet") as gcs:
        servers = RayProcesses([("raylet", raylet.pid), ("GCS server", gcs.pid)])
        gcs.kill()
        gcs.wait()
        servers.poll()
        raylet.kill()
        raylet.wait()
        assert servers.cause() == f"Ray's GCS server (process {gcs.pid}) died"


def test_those_who_died_between_two_looks_are_all_named(raylet: psutil.Popen, tmp_path: Path) -> None:
    with psutil.Popen([f"{tmp_path}/gcs_server", "600"], executable=tmp_path / "raylet") as gcs:
        servers = RayProcesses([("raylet", raylet.pid), ("GCS server", gcs.pid)])
        for process in (gcs, raylet):
            process.kill()
            process.wait()
        assert servers.cause() == f"Ray's raylet (process {raylet.pid}) and GCS server (process {gcs.pid}) died"
