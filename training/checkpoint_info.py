"""Which checkpoints there are, and what each says of itself: known before torch is loaded."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextscene.common.errors import UsageError

VERSION = 1
ABOUT = "about.json"
METRICS = "metrics.jsonl"
"""In the folder of a run: a line for each step and evaluation."""
NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is of.

    `model` is the fingerprint of the pretrained, `bridge` the bridge's configuration. `parameters` are the names of all
    that this run and those before it trained, `averaged` of those that have a moving average. `determining` is the
    recipe's, `loader` the state of the sequence, `world` how many ranks wrote it.
    """

    recipe: str
    stage: str
    step: int
    samples: int
    world: int
    model: str
    bridge: dict[str, Any]
    parameters: list[str]
    averaged: list[str]
    determining: dict[str, Any]
    loader: dict[str, int]
    version: int = VERSION

    @staticmethod
    def read(checkpoint: Path) -> CheckpointInfo:
        """Raises UsageError for a folder that is no checkpoint, or one of another version."""
        try:
            about = CheckpointInfo(**json.loads((checkpoint / ABOUT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            reason = f"there is no {ABOUT} in it" if isinstance(error, OSError) else f"its {ABOUT} is damaged: {error}"
            places = (checkpoint, checkpoint / "checkpoints", *checkpoint.glob("*/checkpoints"))
            near = next(filter(None, map(latest, places)), None)
            meant = f"; is {near} meant?" if near else "; name a folder such as RUN/sft/checkpoints/step-100"
            raise UsageError(f"{checkpoint} is no whole checkpoint: {reason}{meant}") from error
        if about.version != VERSION:
            raise UsageError(f"{checkpoint} is of version {about.version}, not {VERSION}")
        return about


def checkpoints(run: Path, recipe: str) -> Path:
    """The folder of those of a stage."""
    return run / recipe / "checkpoints"


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder."""
    found = [path for path in folder.glob("step-*") if NAME.fullmatch(path.name)]
    return max(found, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """-1 for a name that no checkpoint has."""
    found = NAME.fullmatch(checkpoint.name)
    return int(found[1]) if found else -1
