"""What a stage came to, as it is kept beside its checkpoints and told at the end.

Tested in tests/training/model/test_pretrained.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from nextscene.common import atomic
from nextscene.common.errors import UsageError

_FILE = "summary.json"


class TextAblation(NamedTuple):
    """The same clips and noise under their own text and under another clip's.

    `gain` is the mean of how much lower the loss is under the own; `share` that of clips for which it is lower.
    """

    clips: int
    gain: float
    share: float


UNKNOWN = TextAblation(0, 0.0, 0.0)


@dataclass(frozen=True)
class StageSummary:
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
    seen: TextAblation = UNKNOWN
    heldout: TextAblation = UNKNOWN

    @property
    def finished(self) -> bool:
        return self.step == self.steps

    def write(self, folder: Path) -> None:
        atomic.write_file(folder / _FILE, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @staticmethod
    def read(folder: Path) -> StageSummary | None:
        """None where none was written. Raises UsageError."""
        try:
            value = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            pairs = {name: TextAblation(*value[name]) for name in ("seen", "heldout")}
            return StageSummary(**{**value, **pairs})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"{folder / _FILE} is no summary of a stage; delete it, and run that stage again with --resume, which"
                " writes it anew"
            ) from error


def describe_step(numbers: Mapping[str, float]) -> str:
    """The gist of a step, from what is written down of it."""
    if "reward_mean" in numbers:
        return f"reward {numbers['reward_mean']:.2f}"
    return "no reward" if "missing_judgements" in numbers else f"loss {numbers['loss']:.4f}"
