"""A unit on its way through the engine, and the steps that lie on it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nextscene.curation.plan import PlannedClip, Unit
from nextscene.curation.run.crash_counts import CrashCounts
from nextscene.curation.sealing.remaining import ShardWork
from nextscene.shards.format.layout import ShardName, UnitName

Kind = Literal["seal", "cut", "try", "screen", "decide"]
# Of the steps that need a CPU, what is nearest to its end goes first: as little as possible is under way at any time.
PRIORITY: dict[Kind, int] = {"seal": 0, "cut": 1, "try": 2, "screen": 3}


@dataclass
class UnitProgress:
    """A unit under way. `screened` and `scenes` refer to what its steps made; `untried` is to be tried clip by clip.

    `is_partial` is known once it was asked about: some of its clips are not decided.
    """

    unit: Unit
    shard: ShardWork
    crashes: CrashCounts
    untried: list[PlannedClip] = field(default_factory=list)
    screened: Any = None
    scenes: Any = None
    is_partial: bool = False

    def split(self) -> None:
        """From now on its clips are tried one by one."""
        quarantined = self.crashes.quarantined
        self.untried = [clip for clip in self.unit.clips if self.unit.decides(clip) and clip.clip_id not in quarantined]

    def merge(self) -> None:
        """All were tried: it is one unit again, in which those that kill are not touched."""
        whole = replace(self.unit, quarantined=self.crashes.quarantined)
        self.shard.todo[self.shard.todo.index(self.unit)] = whole
        self.unit = whole


@dataclass(frozen=True)
class Step:
    """What is done next with a unit, or with a shard where there is none. It keeps so many `cpus` busy."""

    kind: Kind
    shard: ShardWork
    flight: UnitProgress | None = None
    cpus: int = 1

    @property
    def name(self) -> UnitName | ShardName:
        """Of the unit, or of the shard where there is none."""
        return self.flight.unit.name if self.flight else self.shard.name

    def over(self, cpus: int) -> Step:
        """The step as it is done with so many: where units are few, the clips of one are worked on side by side."""
        return replace(self, cpus=max(1, min(cpus, self._clips)))

    @property
    def _clips(self) -> int:
        """How many clips it can work on at once."""
        return len(self.flight.unit.clips) if self.flight and self.kind in ("screen", "cut") else 1
