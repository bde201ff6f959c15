"""How often a unit, and each of its clips alone, ended its worker: counted in OUT, so that a resume still knows."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field

from nextscene.common.storage import Storage
from nextscene.common.strict_json import json_of, typed
from nextscene.shards.format.layout import UnitName

_log = logging.getLogger(__name__)

CLIP_CRASHES_ALLOWED = 1
UNIT_CRASHES_ALLOWED = 4


@dataclass
class Crashes:
    """Counts for one unit. A clip that was alone in its worker twice when that died is quarantined."""

    unit: int = 0
    clips: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def read(out: Storage, name: UnitName) -> Crashes:
        """Counts that are damaged are none, with a warning: who kills a worker is found once more."""
        try:
            value = typed(json_of(out.read(name.crashes)), {"unit": int, "clips": dict})
            return Crashes(value["unit"], typed(value["clips"], dict.fromkeys(value["clips"], int)))
        except FileNotFoundError:
            return Crashes()
        except ValueError as error:
            _log.warning("%s is damaged (%s), and counting begins anew", name.crashes, error)
            return Crashes()

    def publish(self, out: Storage, name: UnitName) -> None:
        out.write(name.crashes, json.dumps({"unit": self.unit, "clips": self.clips}, sort_keys=True).encode())

    @property
    def quarantined(self) -> frozenset[str]:
        return frozenset(clip for clip, count in self.clips.items() if count > CLIP_CRASHES_ALLOWED)
