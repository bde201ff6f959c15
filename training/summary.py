"""What a stage came to, as it is kept beside its checkpoints and told at the end."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from training.panel import OwnOrSwapped

_FILE = "summary.json"
UNKNOWN = OwnOrSwapped(0, 0.0, 0.0)


@dataclass(frozen=True)
class Summary:
    """`heldout_before`, `heldout_after` and `zero` are losses on held-out clips, -1 where there are none.

    `reward_first` and `reward_last` are means over the first and the last tenth of the steps, -1 where none is given.

    `seen` and `heldout` compare a clip's own text with another's, on clips of the training split and of the test split.
    """

    recipe: str
    stage: str
    step: int
    steps: int
    trained_parameters: int
    heldout_before: float = -1.0
    heldout_after: float = -1.0
    zero: float = -1.0
    reward_first: float = -1.0
    reward_last: float = -1.0
    seen: OwnOrSwapped = UNKNOWN
    heldout: OwnOrSwapped = UNKNOWN

    @property
    def finished(self) -> bool:
        return self.step == self.steps

    def write(self, folder: Path) -> None:
        draft = folder / f".{_FILE}.unfinished"
        draft.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        draft.replace(folder / _FILE)

    @staticmethod
    def read(folder: Path) -> Summary | None:
        try:
            value = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        pairs = {name: OwnOrSwapped(*value[name]) for name in ("seen", "heldout")}
        return Summary(**{**value, **pairs})
