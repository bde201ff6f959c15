"""How a run gets its Ray: within bounds, with its own signals, and without anything left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from nextscene.common import scratch
from nextscene.common.call_timeout import call_with_timeout
from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.ray_cluster import cluster, local_ray
from nextscene.common.ray_cluster.cluster import connected
from nextscene.common.ray_cluster.local_ray import NotReady, check_cluster, own_ray
from nextscene.common.ray_cluster.start_errors import StartFault
from nextscene.curation import shared_out

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """RAY_TMPDIR: sockets want a short path."""
    folder = Path("/tmp") / f"r{os.getpid()}"
    folder.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield folder
    shutil.rmtree(folder)


class Starts:
    """Stands in for the process that starts Ray: each start ends as `ends` says, in order."""

    def __init__(self, *ends: StartFault | None) -> None:
        self.ends = list(ends)
        self.ended: list[bool] = []

    def __call__(self, *_: Any) -> Starts:
        return self

    def address(self, seconds: float) -> str:
        if fault := self.ends.pop(0):
            raise NotReady(fault)
        return "127.0.0.1:1"

    def children(self) -> list[Any]:
        return []

    def end(self, keep: bool = False) -> None:
        self.ended.append(keep)


TOO_LATE = StartFault("Exception", "The current node timed out\nduring startup")


def test_a_start_that_fails_is_tried_once_more_in_a_new_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(TOO_LATE, None)
    monkeypatch.setattr(local_ray, "RayProcess", starts)
    with own_ray(1) as address:
        assert address == "127.0.0.1:1"
        assert len(list(place.iterdir())) == 1
    assert starts.ended == [False, False]
    assert list(place.iterdir()) == []


def test_a_second_start_that_fails_stops_the_run_and_keeps_the_logs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts(TOO_LATE, TOO_LATE)
    monkeypatch.setattr(local_ray, "RayProcess", starts)
    with pytest.raises(RunStopped, match="timed out during startup; its logs are in") as raised, own_ray(1):
        pytest.fail("it did not start")
    assert starts.ended == [False, True]
    (logs,) = place.iterdir()
    assert f"its logs are in {logs}." in str(raised.value)
    monkeypatch.setattr(scratch, "_YOUNG_SECONDS", -1.0)
    monkeypatch.setattr(local_ray, "RayProcess", Starts(None))
    with own_ray(1):
        assert logs.exists()  # no sweep takes it


def test_a_dead_run_s_folder_is_swept_and_no_other(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_YOUNG_SECONDS", -1.0)
    dead, lock = scratch.claim_temporary_folder(place, "ns-ray-")
    lock.close()
    alive, held = scratch.claim_temporary_folder(place, "ns-ray-")  # it sweeps the dead one
    assert not dead.exists()
    (place / "ns-ray-of-a-stranger").mkdir()
    (place / "ray" / "session_2026").mkdir(parents=True)
    monkeypatch.setattr(local_ray, "RayProcess", Starts(None))
    with own_ray(1):
        pass
    assert {path.name for path in place.iterdir()} == {alive.name, "ns-ray-of-a-stranger", "ray"}
    held.close()


@pytest.mark.parametrize("spoil", ["file", "long", "full"])
def test_a_folder_that_ray_cannot_have_is_told_with_its_remedy(
    place: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    if spoil == "file":
        (place / "f").touch()
        monkeypatch.setenv("RAY_TMPDIR", f"{place}/f")
    elif spoil == "long":
        monkeypatch.setenv("RAY_TMPDIR", f"{place}/{'x' * 60}")
    else:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 << 20))
    with pytest.raises((RunStopped, UsageError)) as raised, own_ray(1):
        pytest.fail("it started")
    assert type(raised.value) is (UsageError if spoil == "long" else RunStopped)
    assert str(place) in str(raised.value)
    assert "RAY_TMPDIR" in str(raised.value)
    assert spoil != "full" or "5 MB are left" in str(raised.value)
    assert list(place.glob("ns-ray-*")) == []


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Ray's init is what it is given, and a cluster answers at each address."""
    monkeypatch.setattr(cluster, "check_cluster", lambda _: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return lambda init: monkeypatch.setattr(ray, "init", init)


def test_signals_are_answered_as_before_while_ray_starts_and_after(stub: Callable[..., None]) -> None:
    def answers(number: int, _: Any) -> None:
        raise InterruptedError(number)

    before = {number: signal.signal(number, answers) for number in SIGNALS}
    during: dict[int, Any] = {}

    def init(**_: Any) -> None:
        """As Ray does where it is called in the main thread."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        during.update({number: signal.getsignal(number) for number in SIGNALS})

    try:
        stub(init)
        with connected(None, "head:6379"):
            assert {number: signal.getsignal(number) for number in SIGNALS} == dict.fromkeys(SIGNALS, answers)
        assert during == dict.fromkeys(SIGNALS, answers)
    finally:
        for number, answer in before.items():
            signal.signal(number, answer)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_ray_starts_is_raised_and_not_swallowed(stub: Callable[..., None], number: int) -> None:
    class Asked(KeyboardInterrupt):
        pass

    def answers(*_: Any) -> None:
        raise Asked

    before = signal.signal(number, answers)
    try:
        stub(lambda **_: os.kill(os.getpid(), number))
        with pytest.raises(Asked), connected(None, "head:6379"):
            for _ in range(1000):  # the signal may come a moment after it was sent
                time.sleep(0.001)
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionError("Failed to connect to Ray cluster at head:6379"), UsageError),
        (RuntimeError("Version mismatch: \n Ray: 2.5\n Python: 3.1\n Ray: 2.6\n Python: 3.2\n"), UsageError),
        (Exception("The current node timed out during startup."), RunStopped),
        (ray.exceptions.RaySystemError("System error: Broken pipe"), RunStopped),
        (SystemExit(15), RunStopped),
        (OSError(28, "No space left on device"), RunStopped),
    ],
)
def test_whatever_ray_raises_ends_the_run_in_one_line(
    stub: Callable[..., None], error: BaseException, kind: type[Exception]
) -> None:
    def init(**_: Any) -> None:
        raise error

    stub(init)
    with pytest.raises(kind) as raised, connected(None, "head:6379"):
        pytest.fail("it is not connected")
    assert "head:6379" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_call_that_hangs_is_left() -> None:
    hangs = threading.Event()
    with pytest.raises(TimeoutError):
        call_with_timeout(hangs.wait, 0.05)
    hangs.set()
    assert call_with_timeout(lambda: 7, 60) == 7


def test_a_wait_ends_on_a_signal_that_another_thread_raises() -> None:
    """As the driver process does. The call that is waited for may end first."""
    ended: list[str] = []

    def call() -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)
        ended.append("the call")

    with pytest.raises(KeyboardInterrupt):
        call_with_timeout(call, 10**6)
    assert ended == ["the call"]


def test_a_start_ends_on_a_signal_that_another_thread_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(local_ray, "_ANSWER_SECONDS", 10.0**6)
        poll = Connection.poll

        def signaled(self: Connection, seconds: float) -> bool:
            threading.Thread(target=signal.raise_signal, args=(signal.SIGINT,)).start()
            return poll(self, seconds)

        monkeypatch.setattr(Connection, "poll", signaled)
        with pytest.raises(KeyboardInterrupt):
            check_cluster(f"127.0.0.1:{silent.getsockname()[1]}")


def test_what_answers_and_is_no_ray_is_left_within_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself tries for minutes, and prints what it tries."""
    monkeypatch.setattr(local_ray, "_ANSWER_SECONDS", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RunStopped, match=f"no Ray cluster answers at {address}: nothing within 3 s"):
            check_cluster(address)
    with pytest.raises(UsageError, match=f"no Ray cluster answers at {address}.*refused"):
        check_cluster(address)


# ---- nodes that go away ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_alive", [True, False])
def test_a_node_that_cannot_look_into_out_is_named_unless_it_has_gone_meanwhile(
    monkeypatch: pytest.MonkeyPatch, is_alive: bool
) -> None:
    node = {"NodeID": "b", "NodeManagerAddress": "10.0.0.2", "Alive": True}

    def fail(_: object) -> None:
        raise ray.exceptions.RaySystemError("no such node")

    monkeypatch.setattr(ray, "get", fail)
    monkeypatch.setattr(ray, "nodes", lambda: [node | {"Alive": is_alive}])
    if is_alive:
        with pytest.raises(RunStopped, match=r"node 10\.0\.0\.2 cannot look into `out`"):
            shared_out._result(None, node)
    else:
        assert shared_out._result(None, node)
