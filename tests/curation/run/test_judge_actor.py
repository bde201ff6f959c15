"""The driver's hold on the judge: an actor that died or does not run is replaced, and nobody waits for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from nextscene.common.errors import RunStopped
from nextscene.common.storage import Storage
from nextscene.curation.run import judge_actor
from nextscene.curation.run.judge_actor import UNITS_AT_ONCE, JudgeActor
from nextscene.curation.stages.unit import UnitContext
from tests.fakes.loopback import CLAUDE


@dataclass(eq=False)
class Reply:
    """A reference: of which actor, and what it comes to; None while there is none."""

    actor: int
    value: Any = None


@dataclass
class Actors:
    """Stands in for Ray's actors. A report is answered once `pids` has a process for its actor."""

    pids: dict[int, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    made: int = 0
    killed: list[int] = field(default_factory=list)

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "0" * 56)

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        self.options = options
        return lambda _: SimpleNamespace(remote=self._make)

    def _make(self, _: Any) -> Any:
        number, self.made = self.made, self.made + 1
        decide = SimpleNamespace(remote=lambda *_: (Reply(number), Reply(number)))
        return SimpleNamespace(
            number=number,
            decide=SimpleNamespace(options=lambda **_: decide),
            report=SimpleNamespace(remote=lambda: Reply(number)),
        )

    def wait(self, references: list[Reply], timeout: float) -> tuple[list[Reply], list[Reply]]:
        assert timeout == 0, "nobody waits for the judge"
        done = [reply for reply in references if reply.actor in self.pids]
        return done, [reply for reply in references if reply not in done]

    def get(self, reply: Reply) -> Any:
        return self.pids[reply.actor], None, {}

    def kill(self, actor: Any) -> None:
        self.killed.append(actor.number)


@dataclass
class Clock:
    now: float = 0.0

    def seconds(self) -> float:
        return self.now


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> Actors:
    actors = Actors()
    monkeypatch.setattr(judge_actor, "ray", actors)
    return actors


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(judge_actor, "AwakeClock", lambda: clock)
    return clock


@pytest.fixture
def judge(actors: Actors, clock: Clock, tmp_path: Path) -> JudgeActor:
    out = Storage.at(tmp_path / "out")
    return JudgeActor(UnitContext(CLAUDE, out, out, "", "r"))


@pytest.fixture
def process() -> Iterator[psutil.Popen]:
    """One that is called as the actor's, and works whenever it gets a line."""
    work = "import sys, time\nfor _ in sys.stdin:\n    while time.process_time() < 1.2: pass\n    print(flush=True)"
    child = psutil.Popen(
        [sys.executable, "-c", work, "ray::_JudgeActor"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    yield child
    with suppress(psutil.NoSuchProcess):
        child.kill()
    child.communicate()


def test_one_that_died_is_replaced_once_though_many_replies_are_missing(actors: Actors, judge: JudgeActor) -> None:
    asked = [judge.decide(None, None)[1] for _ in range(5)]  # type: ignore[arg-type]
    for reply in asked:
        judge.died(reply)
    assert (actors.made, actors.killed) == (2, [0])
    judge.died(judge.decide(None, None)[1])  # type: ignore[arg-type]
    assert (actors.made, actors.killed) == (3, [0, 1])


def test_one_that_dies_again_and_again_ends_the_run(judge: JudgeActor) -> None:
    for _ in range(3):
        judge.died(judge.decide(None, None)[1])  # type: ignore[arg-type]
    with pytest.raises(RunStopped, match="lost 4 times"):
        judge.died(judge.decide(None, None)[1])  # type: ignore[arg-type]


def test_one_that_is_paused_is_ended_and_replaced(
    actors: Actors, judge: JudgeActor, clock: Clock, process: psutil.Popen
) -> None:
    actors.pids[0] = process.pid
    judge.report()
    judge.report()
    process.suspend()
    del actors.pids[0]
    judge.report()
    clock.now = 59
    judge.report()
    assert actors.killed == []
    clock.now = 61
    judge.report()
    assert (actors.made, actors.killed) == (2, [0])
    assert process.wait(10) == -9


def test_one_that_works_is_left_alone_however_long_it_is_silent(
    actors: Actors, judge: JudgeActor, clock: Clock, process: psutil.Popen
) -> None:
    actors.pids[0] = process.pid
    judge.report()
    judge.report()
    del actors.pids[0]
    process.stdin.write(b"work\n")
    process.stdin.flush()
    process.stdout.readline()
    clock.now = 61
    judge.report()
    assert actors.killed == []
    clock.now = 122  # in which it did nothing
    judge.report()
    assert actors.killed == [0]


def test_one_that_never_starts_ends_the_run(judge: JudgeActor, clock: Clock) -> None:
    judge.report()
    clock.now = 179
    judge.report()
    clock.now = 181
    with pytest.raises(RunStopped, match="did not start within 180 s"):
        judge.report()


def test_a_process_that_has_taken_its_number_is_not_ended(actors: Actors, judge: JudgeActor, clock: Clock) -> None:
    with psutil.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        actors.pids[0] = other.pid
        judge.report()
        judge.report()
        judge.died(judge.decide(None, None)[1])  # type: ignore[arg-type]
        assert actors.killed == [0] and other.poll() is None
        other.communicate(b"\n")


def test_the_judge_actor_takes_two_calls_of_every_unit_and_a_stop_at_once(actors: Actors, judge: JudgeActor) -> None:
    assert actors.options["max_concurrency"] > 2 * UNITS_AT_ONCE + 2
