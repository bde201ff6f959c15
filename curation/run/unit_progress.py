"""A unit on its way through the engine, and the steps that lie on it.

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
        """List its clips, to be tried one by one."""
        quarantined = self.crashes.quarantined
        self.untried = [clip for clip in self.unit.clips if self.unit.decides(clip) and clip.clip_id not in quarantined]

    def merge(self) -> None:
        """Make it one unit again, with the clips that kill their worker quarantined."""
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
        """The name of the unit, or of the shard for a step without a unit."""
        return self.progress.unit.name if self.progress else self.shard.name

    def with_cpus(self, cpus: int) -> Step:
        """Return the step with so many CPUs: if units are few, the clips of one are worked on in parallel."""
        return replace(self, cpus=max(1, min(cpus, self._clips)))

    @property
    def _clips(self) -> int:
        """The number of clips it can work on at once."""
        return len(self.progress.unit.clips) if self.progress and self.kind in ("screen", "cut") else 1
