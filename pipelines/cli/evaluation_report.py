"""The result of an evaluation as tables.

Tested in tests/pipelines/test_evaluate.py.
"""

from __future__ import annotations

from rich.table import Table

from nextscene.evaluation.comparison import EvaluationResult
from nextscene.evaluation.score import Score, ScoreDifference
from nextscene.pipelines.cli import console


def print_evaluation(result: EvaluationResult) -> None:
    table = _table("model", "score", "95 % interval", "judged", "missing", "dollars")
    for model in result.models:
        counts = f"{model.judged:,}", f"{model.missing:,}", f"{model.usd:,.4f}"
        table.add_row(model.name, *_in_words(model.score), *counts)
    console.out.print(table)
    if result.differences:
        table = _table("difference", "", "95 % interval", "scenes")
        for one in result.differences:
            found = one.difference
            table.add_row(f"{one.later} − {one.earlier}", *_in_words(found, "+"), f"{found.scenes:,}")
        console.out.print(table)
    spent = f"${result.calls.spent:,.4f} for {result.calls.answers:,} answers, in all runs on this folder"
    console.out.print(f"spent     {spent}", markup=False)


def unjudged_models(result: EvaluationResult) -> list[str]:
    """Return a line for each model without a judged video."""
    return [f"{one.name}: nothing was judged; last: {one.last_reason}" for one in result.models if not one.judged]


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _in_words(found: Score | ScoreDifference | None, sign: str = "") -> tuple[str, str]:
    """Return the mean and the interval as text, each a dash if there is no score."""
    if found is None:
        return "–", "–"
    return f"{found.mean:{sign}.3f}", f"{found.low:{sign}.3f} – {found.high:{sign}.3f}"
