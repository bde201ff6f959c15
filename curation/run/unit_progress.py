"""The progress of a unit through the engine, and the steps on its way.

Tested in tests/curation/run/test_engine.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nextscene.curation.plan import PlannedClip, Unit
from nextscene.curation.run.crash_counts import CrashCounts
from nextscene.curation.sealing.remaining import ShardWork
from nextscene.shards.format.layout import ShardName, UnitName

Kind = Literal["seal", "cut", "try", "screen", "decide"]
# Of the steps that need a CPU, those nearest to the end go first, so that as few units as possible are in progress.
PRIORITY: dict[Kind, int] = {"seal": 0, "cut": 1, "try": 2, "screen": 3}


@dataclass
class UnitProgress:
    """A unit in progress. `screened` and `scenes` are references to the results of its steps.

    The clips in `untried` are to be tried one by one. `is_partial` is set after the judge was asked: True means that
    some clips of the unit are not decided.
    """

    unit: Unit
    shard: ShardWork
    crashes: CrashCounts
    untried: list[PlannedClip] = field(default_factory=list)
    screened: Any = None
    scenes: Any = None
    is_partial: bool = False

    def split(self) -> None:
        """List the clips of the unit in `untried`, to be tried one by one."""
        quarantined = self.crashes.quarantined
        self.untried = [clip for clip in self.unit.clips if self.unit.decides(clip) and clip.clip_id not in quarantined]

    def merge(self) -> None:
        """Make one unit of the clips again, with those that kill their worker quarantined."""
        whole = replace(self.unit, quarantined=self.crashes.quarantined)
        self.shard.todo[self.shard.todo.index(self.unit)] = whole
        self.unit = whole


@dataclass(frozen=True)
class Step:
    """The next step of a unit, or of a shard if `progress` is None. It uses `cpus`."""

    kind: Kind
    shard: ShardWork
    progress: UnitProgress | None = None
    cpus: int = 1

    @property
    def name(self) -> UnitName | ShardName:
        """Return the name of the unit, or of the shard for a step without a unit."""
        return self.progress.unit.name if self.progress else self.shard.name

    def with_cpus(self, cpus: int) -> Step:
        """Return the step with up to this many CPUs, to process a unit's clips in parallel if units are few."""
        return replace(self, cpus=max(1, min(cpus, self._clips)))

    @property
    def _clips(self) -> int:
        """Return the number of clips that the step can process at once."""
        return len(self.progress.unit.clips) if self.progress and self.kind in ("screen", "cut") else 1
