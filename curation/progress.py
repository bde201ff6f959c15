"""Progress of a run or of a verification, counted as it happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from nextscene.curation.plan import Unit
from nextscene.shards.format.layout import UnitName

if TYPE_CHECKING:
    from nextscene.judge.call_progress import CallProgress

ClipStage = Literal["screened", "asked", "cut", "decided"]


@dataclass(frozen=True)
class Stages:
    """Numbers of clips screened, asked about and cut, of shards sealed, and of clips decided: those of whole units."""

    screened: int = 0
    asked: int = 0
    cut: int = 0
    sealed: int = 0
    decided: int = 0

    def __add__(self, other: Stages) -> Stages:
        return Stages(
            self.screened + other.screened,
            self.asked + other.asked,
            self.cut + other.cut,
            self.sealed + other.sealed,
            self.decided + other.decided,
        )


class ProofProgress(Protocol):
    """A receiver of the progress of a verification, in clips."""

    def begin(self, planned: int, decided: int) -> None:
        """Begin, once the plan has been read; `decided` of its `planned` clips are decided already."""

    def advance(self, clips: int) -> None:
        """Receive that `clips` more clips are done."""

    def tick(self) -> None:
        """Show the progress; called again and again during the work."""


class StageProgress(Protocol):
    """A receiver of the progress of a run."""

    def begin(self, planned: Stages, done: Stages) -> None:
        """Begin with what is done already, once the plan is there; called again if some of that must be redone."""

    def tick(self, done: Stages, asking: CallProgress | None) -> None:
        """Receive what is done so far and the progress of paid calls; called again and again during the run."""


Tick = Callable[[Stages, "CallProgress | None"], None]
"""Called again and again with what a run has done so far and the progress of its calls."""


@dataclass
class _UnitInProgress:
    clips: int
    reached: Counter[ClipStage]


class StageCounts:
    """Counts of what a run has done.

    A repeated step counts once. A unit counts at most as many clips as the run decides.
    """

    def __init__(self) -> None:
        self._clips: Counter[ClipStage] = Counter()
        self._under_way: dict[UnitName, _UnitInProgress] = {}
        self.sealed = 0

    def begin(self, unit: Unit) -> None:
        self._under_way[unit.name] = _UnitInProgress(sum(map(unit.decides, unit.clips)), Counter())

    def reach(self, stage: ClipStage, name: UnitName, clips: int) -> None:
        """Record that `clips` clips of the unit have reached the stage. Reports about a finished unit are ignored."""
        unit = self._under_way.get(name)
        more = min(clips, unit.clips) - unit.reached[stage] if unit else 0
        if unit and more > 0:
            unit.reached[stage] += more
            self._clips[stage] += more

    def complete(self, stage: ClipStage, unit: Unit) -> None:
        self.reach(stage, unit.name, len(unit.clips))

    def take(self, counts: Mapping[tuple[ClipStage, UnitName], int]) -> None:
        for (stage, name), clips in counts.items():
            self.reach(stage, name, clips)

    def end(self, name: UnitName) -> None:
        self._under_way.pop(name, None)

    @property
    def stages(self) -> Stages:
        clips = self._clips
        return Stages(clips["screened"], clips["asked"], clips["cut"], self.sealed, clips["decided"])
