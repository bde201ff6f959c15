"""The summary of a stage, which is stored next to its checkpoints and printed at its end.

Tested in tests/training/test_summary.py and tests/training/model/test_pretrained.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nextscene.common import atomic
from nextscene.common.errors import UsageError

_FILE = "summary.json"


class TextAblation(NamedTuple):
    """A comparison of the loss under a clip's own text and under another clip's text, with the same clips and noise.

    `gain` is the mean difference: the loss under the other text minus that under the own text. `share` is the share of
    clips with a lower loss under their own text. `clips` is the number of clips.
    """

    clips: int
    gain: float
    share: float

    @staticmethod
    def read(value: Any) -> TextAblation:
        """Return the comparison from JSON: an object, or the list that earlier versions wrote. Raise TypeError."""
        return TextAblation(**value) if isinstance(value, dict) else TextAblation(*value)


UNKNOWN = TextAblation(0, 0.0, 0.0)


@dataclass(frozen=True)
class StageSummary:
    """The summary of a stage after `step` of its `steps`.

    `heldout_before`, `heldout_after` and `zero` are losses on held-out clips: at the start, at the end, and of
    predicting a velocity of zero. `unaveraged` is that of the weights at the end, of which the export has the moving
    average. They are -1 if there are no held-out clips.

    `reward_first` and `reward_last` are mean rewards over the first and the last tenth of the steps that have rewards,
    -1 if there are none.

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
    unaveraged: float = -1.0
    reward_first: float = -1.0
    reward_last: float = -1.0
    seen: TextAblation = UNKNOWN
    heldout: TextAblation = UNKNOWN

    @property
    def finished(self) -> bool:
        """True if all steps of the stage are done."""
        return self.step == self.steps

    def write(self, folder: Path) -> None:
        """Write the summary to `summary.json` in a folder, atomically."""
        value = asdict(self) | {"seen": self.seen._asdict(), "heldout": self.heldout._asdict()}
        atomic.write_file(folder / _FILE, (json.dumps(value, indent=1) + "\n").encode())

    @staticmethod
    def read(folder: Path) -> StageSummary | None:
        """Return the summary in a folder, or None if there is none. Raise UsageError if it cannot be read."""
        try:
            value = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            pairs = {name: TextAblation.read(value[name]) for name in ("seen", "heldout")}
            return StageSummary(**{**value, **pairs})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"{folder / _FILE} is not the summary of a stage; delete it, and run that stage again with `resume`,"
                " which writes it again"
            ) from error


def describe_step(numbers: Mapping[str, float]) -> str:
    """Return a short description of a step, from its logged numbers: its reward or its loss."""
    if "reward_mean" in numbers:
        return f"reward {numbers['reward_mean']:.2f}"
    return "no reward" if "missing_judgements" in numbers else f"loss {numbers['loss']:.4f}"
