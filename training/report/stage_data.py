"""The data of a stage on the page, read from its folder in bounded memory; also while the stage is being trained."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nextscene.common.errors import UsageError
from nextscene.common.page.series import Series
from nextscene.training.checkpoint_info import METRICS, CheckpointInfo, checkpoints, latest
from nextscene.training.summary import StageSummary

SUMMED = ("usd", "texts_cut")
"""Metrics of a step that are shown as the sum up to it."""
_MAX_METRICS = 200


@dataclass
class StageData:
    """A stage: its series by event and name, its first and last evaluation, and what its end left behind.

    `settings` are those of the newest checkpoint, by their dotted names; empty if there is none yet.
    """

    name: str
    folder: Path
    series: dict[tuple[str, str], Series] = field(default_factory=lambda: defaultdict(Series))
    first: Mapping[str, float] = field(default_factory=dict)
    last: Mapping[str, float] = field(default_factory=dict)
    step: int = 0
    summary: StageSummary | None = None
    stage: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """The duration of all steps together."""
        return self._total("seconds")

    @property
    def usd(self) -> float:
        return self._last("usd")

    @property
    def is_rewarded(self) -> bool:
        return ("step", "reward_deviation") in self.series

    def _total(self, name: str) -> float:
        found = self.series.get(("step", name))
        return found.total if found else 0.0

    def _last(self, name: str) -> float:
        found = self.series.get(("step", name))
        return found.last if found else 0.0


def is_stage(folder: Path) -> bool:
    """Return whether a folder in a run is that of a stage that has begun."""
    return (folder / METRICS).is_file()


def read_stage(run: Path, name: str) -> StageData:
    """Return what is known of a stage by now. Lines and files that are incomplete are left out."""
    found = StageData(name, run / name)
    sums: dict[str, float] = defaultdict(float)
    for line in _lines(found.folder / METRICS):
        step, event = line.pop("step"), line.pop("event")
        found.step = max(found.step, step)
        if event == "evaluation":
            found.last = {"step": step, **line}
            found.first = found.first or found.last
        for key, value in line.items():
            sums[key] += value
            if (event, key) in found.series or len(found.series) < _MAX_METRICS:
                found.series[event, key].add(step, sums[key] if key in SUMMED else value)
    try:
        found.summary = StageSummary.read(found.folder)
        newest = latest(checkpoints(run, name))
        info = CheckpointInfo.read(newest) if newest else None
    except UsageError:  # it is being replaced, or of another version
        info = None
    found.stage = info.stage if info else found.summary.stage if found.summary else ""
    found.settings = info.settings if info else {}
    return found


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines that are complete, with their numbers alone."""
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    value = json.loads(line)
                    event, step = str(value["event"]), int(value["step"])
                except (ValueError, KeyError, TypeError):  # cut short, or of another program
                    continue
                numbers = {name: one for name, one in value.items() if type(one) in (int, float)}
                yield {**numbers, "event": event, "step": step}
    except FileNotFoundError:
        return
