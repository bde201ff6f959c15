"""Plans made from clips in memory, for tests of what a plan is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.plan import Plan, PlannedClip
from nextscene.curation.plan_writer import write_plan
from nextscene.curation.sources import Clip, SkippedFiles, Source


@dataclass(frozen=True)
class Listed:
    """A source that holds what it is told, and passes over what it is told."""

    listed: Sequence[Clip]
    others: Sequence[str] = ()
    display_uri: str = "here"
    is_manifest: bool = False
    leaves_gaps: bool = False
    likely_layout: str = ""

    def clips(self, passed: SkippedFiles, digests: bool, scenes: bool, archives: object) -> Iterator[Clip]:
        for name in self.others:
            passed.add(name)
        return iter(self.listed)


def plan_of(
    clips: Sequence[Clip],
    out: Path | str,
    config: BuildConfig,
    judge_budget: JudgeBudget | None = None,
    others: Sequence[str] = (),
) -> Plan:
    write_plan(Storage.at(out), cast(Source, Listed(clips, others)), config, judge_budget)
    return Plan(Storage.at(out), config)


def planned(
    source: Path | str, out: Path | str, config: BuildConfig, judge_budget: JudgeBudget | None = None
) -> list[PlannedClip]:
    """The planned clips of a real source, in source order."""
    write_plan(Storage.at(out), Source.at(str(source)), config, judge_budget)
    rows = [PlannedClip(**row) for row in Plan(Storage.at(out), config).rows()]
    return sorted(rows, key=lambda row: row.position)
