"""How often a unit, and each of its clips alone, ended its worker: counted in OUT, so that a resume still knows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from shards.layout import UnitName
from shards.storage import Storage

CLIP_CRASHES_ALLOWED = 1
UNIT_CRASHES_ALLOWED = 4


@dataclass
class Crashes:
    """Counts for one unit. A clip that was alone in its worker twice when that died is quarantined."""

    unit: int = 0
    clips: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def read(out: Storage, name: UnitName) -> Crashes:
        try:
            value = json.loads(out.read(name.crashes))
            return Crashes(value["unit"], value["clips"])
        except FileNotFoundError:
            return Crashes()

    def publish(self, out: Storage, name: UnitName) -> None:
        out.write(name.crashes, json.dumps({"unit": self.unit, "clips": self.clips}, sort_keys=True).encode())

    @property
    def quarantined(self) -> frozenset[str]:
        return frozenset(clip for clip, count in self.clips.items() if count > CLIP_CRASHES_ALLOWED)
