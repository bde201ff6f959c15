"""What an evaluation came to: the models side by side, on paper and on the screen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import combinations
from typing import Any

from rich.table import Table

from nextscene.common.storage import Storage
from nextscene.evaluation.score import Score, ScoreDifference, difference, score
from nextscene.judge.call_progress import CallProgress
from nextscene.pipelines.cli import console


@dataclass(frozen=True)
class Result:
    """Of one model: `about` says which it is and how it made its videos, `rewards` what each scene's videos got."""

    name: str
    about: Mapping[str, Any]
    rewards: Mapping[str, Sequence[float | None]]
    usd: Decimal
    last_reason: str

    @property
    def missing(self) -> int:
        return sum(reward is None for rewards in self.rewards.values() for reward in rewards)

    @property
    def judged(self) -> int:
        return sum(map(len, self.rewards.values())) - self.missing


class Comparison:
    """Scores, and how much higher each model's is than those of the models before it."""

    def __init__(self, results: Sequence[Result]) -> None:
        self._results = results
        self._scores: list[Score | None] = [score(result.rewards) for result in results]
        self._differences: list[tuple[str, str, ScoreDifference]] = []
        for earlier, later in combinations(results, 2):
            if between := difference(later.rewards, earlier.rewards):
                self._differences.append((later.name, earlier.name, between))

    def write(self, out: Storage, about: Mapping[str, Any]) -> None:
        """OUT/summary.json; `about` is what holds for all models."""
        models = [
            {"name": result.name, **result.about, "score": found and asdict(found), "usd": str(result.usd)}
            for result, found in zip(self._results, self._scores, strict=True)
        ]
        differences = [{"of": of, "from": than, **asdict(found)} for of, than, found in self._differences]
        summary = {**about, "models": models, "differences": differences}
        out.write_if_changed("summary.json", (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())

    def print(self, report: CallProgress) -> None:
        table = _table("model", "score", "95 % interval", "judged", "missing", "dollars")
        for result, found in zip(self._results, self._scores, strict=True):
            counts = f"{result.judged:,}", f"{result.missing:,}", f"{result.usd:,.4f}"
            table.add_row(result.name, *_shown(found), *counts)
        console.out.print(table)
        if self._differences:
            table = _table("difference", "", "95 % interval", "scenes")
            for of, than, between in self._differences:
                table.add_row(f"{of} − {than}", *_shown(between, "+"), f"{between.scenes:,}")
            console.out.print(table)
        spent = f"${report.spent:,.4f} for {report.answers:,} answers, in all runs on this folder"
        console.out.print(f"spent     {spent}", markup=False)

    def unjudged(self) -> list[str]:
        """A line for each model of which nothing could be judged."""
        return [
            f"{result.name}: nothing was judged; last: {result.last_reason}"
            for result in self._results
            if not result.judged
        ]


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _shown(found: Score | ScoreDifference | None, sign: str = "") -> tuple[str, str]:
    if found is None:
        return "–", "–"
    return f"{found.mean:{sign}.3f}", f"{found.low:{sign}.3f} – {found.high:{sign}.3f}"
