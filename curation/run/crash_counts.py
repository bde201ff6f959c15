"""Counts of the crashes caused by a unit and by each of its clips alone; kept in OUT for a resumed run.

Tested in tests/curation/run/test_engine.py.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field

from nextscene.common.storage import Storage
from nextscene.common.strict_json import check_types, parse_json
from nextscene.shards.format.layout import UnitName

_log = logging.getLogger(__name__)

CLIP_CRASHES_ALLOWED = 1
UNIT_CRASHES_ALLOWED = 4


@dataclass
class CrashCounts:
    """Counts for one unit. A clip is quarantined after two crashes in which it was alone in its worker."""

    unit: int = 0
    clips: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def read(out: Storage, name: UnitName) -> CrashCounts:
        """Return the counts; zeros if none are recorded.

        If the record is damaged, return zeros and log a warning: crashes that repeat are counted again.
        """
        try:
            value = check_types(parse_json(out.read(name.crashes)), {"unit": int, "clips": dict})
            return CrashCounts(value["unit"], check_types(value["clips"], dict.fromkeys(value["clips"], int)))
        except FileNotFoundError:
            return CrashCounts()
        except ValueError as error:
            _log.warning("%s is damaged (%s), and counting begins anew", name.crashes, error)
            return CrashCounts()

    def publish(self, out: Storage, name: UnitName) -> None:
        out.write(name.crashes, json.dumps({"unit": self.unit, "clips": self.clips}, sort_keys=True).encode())

    @property
    def quarantined(self) -> frozenset[str]:
        return frozenset(clip for clip, count in self.clips.items() if count > CLIP_CRASHES_ALLOWED)
