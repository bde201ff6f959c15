"""Scenarios of two drivers with one OUT, on machines whose clocks are stepped, wrong or suspended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.clocks.driver import drive
from tests.clocks.shim import Machine, SharedClocks

RATE = 10.0
"""Simulated seconds per real second: a lease of a minute ends in 6 s, which is long enough for a busy machine."""

STORE_RATE = 5.0
"""The rate with a store written in Python, which needs milliseconds for each request: they must not count much."""

LONGEST_BLOCKED = 120.0
_SUSPENDED = 600.0
_PATIENCE_SECONDS = 60.0

PLACES = {
    "one host": (Machine("a", "boot-a", "1"), Machine("a", "boot-a", "1")),
    "containers": (Machine("pod", "boot-a", "1"), Machine("pod", "boot-a", "2")),
    "two hosts": (Machine("a", "boot-a", "1"), Machine("b", "boot-b", "1")),
    "two of a name": (Machine("a", "boot-a", "1"), Machine("a", "boot-b", "1")),
}


@dataclass
class Driver:
    """A driver in a separate process, and the clocks of its machine."""

    run_id: str
    pid: int
    clocks: SharedClocks
    folder: Path

    def notes(self) -> list[str]:
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{self.run_id} ")]

    @property
    def end(self) -> str:
        last = self.notes()[-1:]
        return last[0] if last and last[0] not in ("starts", "began", "writes") else ""

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"{self.run_id} hangs: {self.notes()[-3:]}"
            time.sleep(0.01)

    def wait_until_begun_or_ended(self) -> None:
        self.wait_for(lambda: "writes" in self.notes() or bool(self.end))

    def wait_for_writes(self, more: int = 5) -> None:
        before = len(self.notes())
        self.wait_for(lambda: len(self.notes()) >= before + more or bool(self.end))

    def pause(self) -> None:
        """Make the driver stop itself between two writes."""
        (self.folder / f"pause-{self.run_id}").touch()
        self.wait_for(lambda: self.is_stopped or bool(self.end))

    def freeze(self) -> None:
        """Stop the driver at any point."""
        os.kill(self.pid, signal.SIGSTOP)
        self.wait_for(lambda: self.is_stopped)

    @property
    def is_stopped(self) -> bool:
        return bool(psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def finish(self) -> str:
        """Ask the driver to end, and return how it ended."""
        (self.folder / f"end-{self.run_id}").touch()
        self.wait_for(lambda: bool(self.end))
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        return self.end


@dataclass
class Stage:
    """OUT and the one or two machines of a scenario. `skews` are the errors of their wall clocks, in seconds."""

    out: str
    folder: Path
    relation: str
    skews: tuple[float, float] = (0.0, 0.0)
    rate: float = RATE
    blocked: float = 0.0
    _clocks: dict[str, SharedClocks] = field(default_factory=dict)

    def start(self, number: int) -> Driver:
        """Start the first driver (0) or the second (1), in a fork of this process."""
        machine = PLACES[self.relation][number]
        if not self._clocks:
            self._begun = time.monotonic()
        if machine.boot_id not in self._clocks:
            file = self.folder / machine.boot_id
            self._clocks[machine.boot_id] = SharedClocks.make(file, self.rate, self._begun, self.skews[number])
        clocks, run_id = self._clocks[machine.boot_id], ("first", "second")[number]
        if (pid := os.fork()) == 0:
            try:
                machine.installed(clocks)
                drive(self.out, run_id, self.folder)
            except BaseException as error:  # noqa: BLE001
                with (self.folder / "log").open("a") as log:
                    log.write(f"{run_id} failed: {error!r}\n")
            finally:
                os._exit(0)
        return Driver(run_id, pid, clocks, self.folder)

    def begun(self) -> Driver:
        """Start the first driver, and return it once it writes."""
        first = self.start(0)
        first.wait_for_writes()
        return first

    def met(self) -> Driver:
        """Start the second driver, and return it once it has begun or was kept out. Note how long it was blocked."""
        second = self.start(1)
        second.wait_for(lambda: bool(second.notes()))
        begun = time.monotonic()
        second.wait_until_begun_or_ended()
        self.blocked = (time.monotonic() - begun) * self.rate
        return second

    def writers(self) -> list[str]:
        """Return the drivers that wrote, in order, without repeats in a row."""
        log = (self.folder / "log").read_text().splitlines()
        wrote = [line.partition(" ")[0] for line in log if line.endswith(" writes")]
        return [name for name, before in zip(wrote, ["", *wrote], strict=False) if name != before]


def suspended(stage: Stage, clocks: SharedClocks, begun: float) -> None:
    """Move the clocks of a machine as a suspend does. Its processes were stopped at `begun`."""
    stood = (time.monotonic() - begun) * stage.rate
    clocks.move(wall=_SUSPENDED - stood, awake=-stood, boottime=_SUSPENDED - stood)


# ---- the scenarios ---------------------------------------------------------------------------------------------


def stepped(stage: Stage, seconds: float) -> None:
    """Check that a living run is never taken for dead, whatever its clock says."""
    first = stage.begun()
    first.clocks.move(wall=seconds)
    first.wait_for_writes(10)
    second = stage.met()
    assert_kept_out(second)
    assert first.finish() == "done", first.end
    assert stage.writers() == ["first"]


def skewed(stage: Stage) -> None:
    stepped(stage, 0.0)


def died(stage: Stage) -> None:
    """Check that the second run takes over from a dead one, however wrong the clock of that was."""
    first = stage.begun()
    first.kill()
    second = stage.met()
    assert second.finish() == "done", second.end
    assert stage.writers() == ["first", "second"]


def stopped_and_overtaken(stage: Stage, suspend: bool) -> None:
    """Check that a run which wakes up after another has taken the lock notices that before it writes."""
    first = stage.begun()
    first.pause()
    since = time.monotonic()
    second = stage.met()
    second.wait_for_writes()
    if suspend:
        suspended(stage, first.clocks, since)
    first.wake()
    first.wait_for(lambda: bool(first.end))
    assert "taken by another run" in first.end and PLACES[stage.relation][1].host in first.end, first.end
    second.wait_for_writes()
    assert second.finish() == "done", second.end
    assert stage.writers() == ["first", "second"]


def stopped_alone(stage: Stage, suspend: bool) -> None:
    first = stage.begun()
    first.pause()
    since = time.monotonic()
    if suspend:
        suspended(stage, first.clocks, since)
    else:
        first.clocks.move(wall=_SUSPENDED, awake=_SUSPENDED, boottime=_SUSPENDED)
    first.wake()
    first.wait_for_writes(20)
    assert first.finish() == "done", first.end


def stopped_and_met(stage: Stage) -> None:
    """Check that a stopped process that can be seen counts as alive."""
    first = stage.begun()
    first.pause()
    assert_kept_out(stage.met())
    first.clocks.move(wall=_SUSPENDED, awake=_SUSPENDED, boottime=_SUSPENDED)
    first.wake()
    assert first.finish() == "done", first.end
    assert stage.writers() == ["first"]


def suspended_together(stage: Stage) -> None:
    """Suspend a machine while its second driver waits for the first, and check that the second is kept out."""
    first = stage.begun()
    second = stage.start(1)
    first.wait_for_writes()
    first.pause()
    second.freeze()
    suspended(stage, first.clocks, time.monotonic())
    first.wake()
    second.wake()
    second.wait_until_begun_or_ended()
    assert_kept_out(second)
    assert first.finish() == "done", first.end
    assert stage.writers() == ["first"]


def suspended_as_it_waits(stage: Stage, holder_dies: bool) -> None:
    first = stage.begun()
    if holder_dies:
        first.kill()
    second = stage.start(1)
    time.sleep(0.3)  # usually enough for it to have read the lock; nothing depends on it
    second.freeze()
    second.clocks.move(wall=_SUSPENDED, boottime=_SUSPENDED)
    second.wake()
    second.wait_until_begun_or_ended()
    if holder_dies:
        assert second.finish() == "done", second.end
        return
    assert_kept_out(second)
    assert first.finish() == "done", first.end
    assert stage.writers() == ["first"]


def assert_kept_out(second: Driver) -> None:
    assert second.end.startswith("stopped: ") and "is at work there" in second.end, second.end or "two runs at once"
    with suppress(ChildProcessError):
        os.waitpid(second.pid, 0)


@dataclass(frozen=True)
class Scenario:
    """A scenario, and the relation of its machines. Those with `sample` are in the test suite."""

    name: str
    relation: str
    play: Callable[[Stage], None]
    skews: tuple[float, float] = (0.0, 0.0)
    sample: bool = False


def _all() -> list[Scenario]:
    found: list[Scenario] = []
    for relation in PLACES:
        for seconds in (3.0, -3.0, 3600.0, -3600.0):
            sample = (relation, seconds) in {("one host", 3.0), ("two hosts", 3600.0)}
            found.append(Scenario(f"step of {seconds:+,.0f} s", relation, _step(seconds), sample=sample))
        found.append(Scenario("first dies", relation, died, sample=relation == "containers"))
        found.append(Scenario("stopped for 10 min, alone", relation, lambda stage: stopped_alone(stage, False)))
    for relation in ("two hosts", "two of a name"):
        far = relation == "two hosts"
        for skew in (120.0, -120.0):
            found.append(Scenario(f"first {skew:+,.0f} s off", relation, skewed, (skew, 0.0), far and skew < 0))
            found.append(Scenario(f"second {skew:+,.0f} s off", relation, skewed, (0.0, skew)))
        found += [
            Scenario("first 1 h ahead, and dies", relation, died, (3600.0, 0.0), far),
            Scenario("suspended, overtaken", relation, lambda stage: stopped_and_overtaken(stage, True), sample=far),
            Scenario("suspended, alone", relation, lambda stage: stopped_alone(stage, True), sample=far),
            Scenario("suspended as it waits, first lives", relation, lambda s: suspended_as_it_waits(s, False)),
            Scenario("suspended as it waits, first died", relation, lambda s: suspended_as_it_waits(s, True)),
        ]
    for relation in ("containers", "two hosts", "two of a name"):
        found.append(Scenario("stopped, overtaken", relation, lambda stage: stopped_and_overtaken(stage, False)))
    found += [
        Scenario("stopped, and met", "one host", stopped_and_met),
        Scenario("suspended together", "containers", suspended_together, sample=True),
    ]
    return found


def _step(seconds: float) -> Callable[[Stage], None]:
    return lambda stage: stepped(stage, seconds)


SCENARIOS = _all()
