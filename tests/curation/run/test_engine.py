"""The engine's decisions, with a stand-in for Ray: what it starts, waits for and leaves when something ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import exceptions

from nextscene.common.errors import RunStopped
from nextscene.common.storage import Storage
from nextscene.curation.plan import PlannedClip, Unit
from nextscene.curation.run import cluster_size, engine, step_tasks, step_timeouts
from nextscene.curation.run.crash_counts import CLIP_CRASHES_ALLOWED
from nextscene.curation.run.engine import Engine
from nextscene.curation.sealing.remaining import ShardWork
from nextscene.curation.stages import clip_steps
from nextscene.curation.stages.describe import AskResult
from nextscene.curation.stages.unit import UnitContext, try_clip
from nextscene.shards.format.layout import ShardName, UnitName
from tests.curation.planning import planned
from tests.fakes.loopback import CLAUDE
from tests.support import make_video, write_csv

NEVER = 10**6
PATIENCE = 1000


def clip(number: int) -> PlannedClip:
    return PlannedClip(
        number,
        f"{number:016x}",
        "train",
        number,
        0,
        "",
        f"{number}.mp4",
        "",
        f"{number}.mp4",
        0,
        -1,
        "a caption",
        "",
        0,
        0,
        0,
        0,
    )


def shard_of(units: int, clips: int = 1) -> ShardWork:
    """Units of so many clips each."""
    name = ShardName("train", 0)
    todo = [Unit(UnitName("train", i), name, tuple(clip(clips * i + j) for j in range(clips))) for i in range(units)]
    return ShardWork(name, todo, [unit.name for unit in todo])


@dataclass(eq=False)
class Reference:
    """What a step comes to, after so many more looks."""

    kind: str
    result: Any
    looks: int


@dataclass
class Cluster:
    """Stands in for Ray and for the judge: every step takes as many looks as `looks` says, one if it says nothing.

    `results` gives each kind its results in order, for as long as there are any; one that is an error is raised.
    """

    looks: dict[str, int] = field(default_factory=dict)
    results: dict[str, list[Any]] = field(default_factory=dict)
    nodes_cpus: tuple[int, ...] = (1,)
    is_stuck: bool = False
    cpus: list[int] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    looked: int = 0
    most_asked: int = 0
    running: list[Reference] = field(default_factory=list)

    def start(self, kind: str) -> Reference:
        self.log.append(kind)
        planned_results = self.results.get(kind, [])
        usual = {"cut": [("kept", "")], "seal": "a receipt", "decide": AskResult()}.get(kind)
        reference = Reference(kind, planned_results.pop(0) if planned_results else usual, self.looks.get(kind, 1))
        self.running.append(reference)
        self.most_asked = max(self.most_asked, sum(each.kind == "decide" for each in self.running))
        return reference

    # ---- as Ray ----

    def remote(self, **_: Any) -> Callable[[Any], Any]:
        names = {"screen_unit": "screen", "cut_unit": "cut", "try_clip": "try", "seal_or_redo": "seal"}

        def task(function: Any, cpus: int = 1) -> Any:
            def start(*_: Any) -> Reference:
                self.cpus.append(cpus)
                return self.start(names[function.__name__])

            return SimpleNamespace(remote=start, options=lambda num_cpus: task(function, num_cpus))

        return task

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(sum(self.nodes_cpus))}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": float(cpus)}} for cpus in self.nodes_cpus]

    def wait(self, references: list[Reference], timeout: float) -> tuple[list[Reference], list[Reference]]:
        self.looked += 1
        assert self.looked < PATIENCE, f"it waits for {[each.kind for each in references]}"
        for reference in references:
            reference.looks -= 1
        done = [reference for reference in references if reference.looks <= 0]
        self.running = [reference for reference in self.running if reference not in done]
        return done, [reference for reference in references if reference not in done]

    def get(self, reference: Reference) -> Any:
        if isinstance(reference.result, Exception):
            raise reference.result
        return reference.result

    def cancel(self, reference: Reference, force: bool) -> None:
        assert force
        self.log.append(f"{reference.kind} ended by force")
        if not self.is_stuck:
            reference.result, reference.looks = exceptions.TaskCancelledError(), 1

    # ---- as the judge ----

    def decide(self, unit: Unit, screened: Any) -> tuple[None, Reference]:
        return None, self.start("decide")

    def report(self) -> tuple[None, dict[Any, int]]:
        return None, {}

    def counter(self, *_: Any) -> None: ...

    def end(self) -> None:
        self.log.append("end of the judge")

    def decided(self, reference: Reference) -> None: ...

    def died(self, reference: Reference) -> None:
        self.log.append("the judge died")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Runs units on a cluster, and returns the number of those that were committed."""
    out = Storage.at(tmp_path / "out")
    job = UnitContext(CLAUDE, out, out, "", "r")

    def go(
        cluster: Cluster, units: int, waiting: int = 4, check: Callable[[], None] = lambda: None, clips: int = 1
    ) -> int:
        monkeypatch.setattr(engine, "ray", cluster)
        monkeypatch.setattr(step_tasks, "ray", cluster)
        monkeypatch.setattr(cluster_size, "ray", cluster)
        monkeypatch.setattr(engine, "JudgeActor", lambda _: cluster)
        done: list[int] = []
        try:
            Engine(job, None, waiting, check).run(
                iter([shard_of(units, clips)]), lambda stages, _: done.append(stages.cut // clips)
            )
        finally:
            cluster.log.append(f"{done[-1]} committed")
        return done[-1]

    return go


# ---- how many cores a unit gets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "units", "clips", "cpus"),
    [
        ((4,), 1, 30, [4, 4, 1]),  # screen, cut, seal
        ((4,), 1, 3, [3, 3, 1]),
        ((4,), 2, 30, [2, 2, 2, 2, 1]),
        ((4,), 4, 30, 8 * [1] + [1]),
        ((2, 3), 1, 30, [2, 2, 1]),  # no task asks for more than a node has
    ],
)
def test_few_units_share_all_cores(
    run: Callable[..., int], nodes: tuple[int, ...], units: int, clips: int, cpus: list[int]
) -> None:
    cluster = Cluster(nodes_cpus=nodes)
    assert run(cluster, units, clips=clips) == units
    assert cluster.cpus == cpus


# ---- ending ----------------------------------------------------------------------------------------------------


def once(cluster: Cluster, started: str) -> Callable[[], None]:
    """The lock is lost as soon as a step of this kind has been started."""

    def check() -> None:
        if started in cluster.log:
            raise RunStopped("the lock was lost")

    return check


def test_what_is_there_is_done(run: Callable[..., int]) -> None:
    cluster = Cluster()
    assert run(cluster, 5) == 5
    assert cluster.log[-2:] == ["end of the judge", "5 committed"]
    assert [cluster.log.count(kind) for kind in ("screen", "decide", "cut", "seal")] == [5, 5, 5, 1]


def test_a_run_that_must_stop_waits_for_no_answer(run: Callable[..., int]) -> None:
    """Each would be paid for, and in batches they may take a day."""
    cluster = Cluster(looks={"decide": NEVER})
    with pytest.raises(RunStopped, match="the lock was lost"):
        run(cluster, 5, check=once(cluster, "decide"))
    assert cluster.log[-2:] == ["end of the judge", "0 committed"]
    assert cluster.running and {each.kind for each in cluster.running} == {"decide"}


def test_a_run_that_must_stop_still_commits_what_is_being_cut(run: Callable[..., int]) -> None:
    cluster = Cluster(looks={"decide": 3, "cut": 20})
    with pytest.raises(RunStopped):
        run(cluster, 5, check=once(cluster, "cut"))
    assert cluster.log[-2:] == ["end of the judge", "1 committed"]


def test_without_a_reason_to_stop_every_answer_is_waited_for(run: Callable[..., int]) -> None:
    assert run(Cluster(looks={"decide": PATIENCE // 10}), 5) == 5


# ---- how many are asked about at once --------------------------------------------------------------------------


def test_however_many_may_wait_the_judge_keeps_room_for_other_calls(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "UNITS_AT_ONCE", 7)
    cluster = Cluster(looks={"decide": 60})
    assert run(cluster, 30, waiting=100_000) == 30
    assert cluster.most_asked == 7


# ---- who kills a worker ----------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands in for the end of the process."""


def _kill(*_: Any) -> None:
    raise Killed


@pytest.mark.parametrize("killer", ["screen", "extract_keyframes", "cut"])
def test_a_clip_kills_its_worker_alone_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killer: str
) -> None:
    make_video(tmp_path / "a.mp4", 0.25)
    source = write_csv(tmp_path / "clips.csv", [{"video": "a.mp4", "caption": ""}])
    (alone,) = planned(source, tmp_path / "out", CLAUDE)
    job = UnitContext(CLAUDE, Storage.at(tmp_path), Storage.at(tmp_path / "out"), "", "r")
    try_clip(job, alone)
    monkeypatch.setattr(clip_steps, killer, _kill)
    with pytest.raises(Killed):
        try_clip(job, alone)


def test_a_clip_with_a_caption_is_not_looked_at_when_it_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "a.mp4", 0.25)
    source = write_csv(tmp_path / "clips.csv", [{"video": "a.mp4", "caption": "a caption"}])
    (alone,) = planned(source, tmp_path / "out", CLAUDE)
    monkeypatch.setattr(clip_steps, "extract_keyframes", _kill)
    try_clip(UnitContext(CLAUDE, Storage.at(tmp_path), Storage.at(tmp_path / "out"), "", "r"), alone)


def test_a_unit_that_kills_workers_is_split_and_continues_without_the_clip(run: Callable[..., int]) -> None:
    """The unit's worker dies, then twice that of its one clip alone."""
    death = exceptions.WorkerCrashedError()
    cluster = Cluster(results={"screen": [death], "try": [death] * (CLIP_CRASHES_ALLOWED + 1)})
    assert run(cluster, 1) == 1
    assert cluster.log[:5] == ["screen", "try", "try", "screen", "decide"]


class StridingClock:
    """A minute passes between two readings."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def seconds(self) -> float:
        self._seconds += 60
        return self._seconds


@pytest.mark.parametrize("hung", ["screen", "cut", "seal"])
def test_a_worker_that_hangs_is_ended_as_if_it_had_died(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, hung: str
) -> None:
    monkeypatch.setattr(step_timeouts, "AwakeClock", StridingClock)
    cluster = Cluster(looks={"try": 1})
    start, begun = cluster.start, []

    def hang_once(kind: str) -> Reference:
        reference = start(kind)
        if kind == hung and not begun:
            begun.append(kind)
            reference.looks = NEVER
        return reference

    cluster.start = hang_once  # type: ignore[method-assign]
    assert run(cluster, 1) == 1
    assert cluster.log.count(f"{hung} ended by force") == 1
    assert cluster.log.count("seal") == (2 if hung == "seal" else 1)


def test_a_worker_that_cannot_be_ended_stops_the_run(run: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_timeouts, "AwakeClock", StridingClock)
    cluster = Cluster(looks={"cut": NEVER}, is_stuck=True)
    with pytest.raises(RunStopped, match=r"cut of train-000000\S* hangs, and could not be ended within 120 s"):
        run(cluster, 1)


def test_a_step_that_goes_on_is_left_alone_however_long_it_takes(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_timeouts, "AwakeClock", StridingClock)
    cluster = Cluster(looks={"cut": 100})
    monkeypatch.setattr(cluster, "report", lambda: (None, {("cut", UnitName("train", 0)): 1}))
    assert run(cluster, 1) == 1
    assert not any("by force" in line for line in cluster.log)


# ---- nodes that join and leave ---------------------------------------------------------------------------------


def test_a_cluster_without_a_cpu_is_waited_for_with_a_word_and_a_bound(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster_size, "AwakeClock", StridingClock)
    with pytest.raises(RunStopped, match="has had a CPU for 30 minutes"):
        run(Cluster(nodes_cpus=(), looks={"screen": NEVER}), 1)
    assert "waiting for one to join" in caplog.text


# ---- clips that are left undecided -----------------------------------------------------------------------------

BUDGET = RunStopped("the budget is used up")


@pytest.mark.parametrize(
    ("asked", "cuts"),
    [
        (AskResult(BUDGET, is_partial=True, has_scenes=True), 1),
        (AskResult(BUDGET, is_partial=True, has_scenes=False), 0),
        (AskResult(None, is_partial=True, has_scenes=False), 1),  # the clips that were to be begun were all rejected
    ],
)
def test_what_a_unit_has_decided_is_cut_and_its_shard_is_not_sealed_as_whole(
    run: Callable[..., int], asked: AskResult, cuts: int
) -> None:
    cluster = Cluster(results={"decide": [asked]})
    run(cluster, 1)
    assert (cluster.log.count("cut"), cluster.log.count("seal")) == (cuts, 0)


def test_once_the_asking_has_ended_nothing_new_is_begun(run: Callable[..., int]) -> None:
    cluster = Cluster(results={"decide": [AskResult(BUDGET, is_partial=True, has_scenes=True)]})
    run(cluster, 100)
    assert cluster.log.count("screen") < 10
    assert cluster.log.count("decide") == cluster.log.count("cut") < 10
