"""Descriptions of checkpoints, which can be read without loading torch.

Tested in tests/training/test_checkpoint.py.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nextscene.common.errors import UsageError
from nextscene.training.model.model_folders import is_export, read_export_info
from nextscene.training.recipe import with_current_names

VERSION = 1
ABOUT = "about.json"
METRICS = "metrics.jsonl"
"""File in the folder of a stage, with a line for each step and each validation."""
NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class CheckpointInfo:
    """The description of a checkpoint; its fields are the keys of `about.json`.

    `model` is the fingerprint of the pretrained models, `bridge` the configuration of the bridge. `parameters` names
    all parameters that this stage and those before it trained, `averaged` those of them that have a moving average.
    `determining` are the recipe's identity settings, `loader` is the position in the data, `world` the number of ranks
    that wrote the checkpoint. `average_updates` is the number of updates of a moving average that warms up, None for
    one that does not: those of runs that began before there was a warm-up. `settings` are all settings of the run, by
    their dotted names; empty if an earlier version did not record them.
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
    average_updates: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def read(checkpoint: Path) -> CheckpointInfo:
        """Return the description of a checkpoint, its settings by the names that they have today.

        Raise UsageError for a folder that is not a complete checkpoint, or one of another version.
        """
        try:
            info = CheckpointInfo(**json.loads((checkpoint / ABOUT).read_text(encoding="utf-8")))
            info = replace(
                info, determining=with_current_names(info.determining), settings=with_current_names(info.settings)
            )
        except (OSError, ValueError, TypeError, AttributeError) as error:
            reason = f"there is no {ABOUT} in it" if isinstance(error, OSError) else f"its {ABOUT} is damaged: {error}"
            folders = (checkpoint, checkpoint / "checkpoints", *checkpoint.glob("*/checkpoints"))
            near = next(filter(None, map(latest, folders)), None)
            suggestion = f"; is {near} meant?" if near else "; name a folder such as RUN/sft/checkpoints/step-100"
            raise UsageError(f"{checkpoint} is not a complete checkpoint: {reason}{suggestion}") from error
        if info.version != VERSION:
            raise UsageError(f"{checkpoint} is of version {info.version}, not {VERSION}")
        return info


def read_beginning(begin: Path) -> CheckpointInfo:
    """Return the description of a checkpoint, or of the checkpoint that an export equals.

    Raise UsageError as `CheckpointInfo.read`, and for an export without a description of its weights.
    """
    if not is_export(begin):
        return CheckpointInfo.read(begin)
    record = read_export_info(begin)
    try:
        info = CheckpointInfo(**{one.name: record[one.name] for one in fields(CheckpointInfo) if one.name in record})
    except TypeError as error:
        raise UsageError(f"{begin} does not say what was trained: {error}; name a checkpoint") from error
    return replace(info, determining=with_current_names(info.determining))


def checkpoints(run: Path, recipe: str) -> Path:
    """Return the folder of the checkpoints of a stage."""
    return run / recipe / "checkpoints"


def latest(folder: Path) -> Path | None:
    """Return the newest complete checkpoint in a folder, or None."""
    found = [path for path in folder.glob("step-*") if NAME.fullmatch(path.name)]
    return max(found, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return the step of a checkpoint, -1 for a name that no checkpoint has."""
    found = NAME.fullmatch(checkpoint.name)
    return int(found[1]) if found else -1
