"""The charts of a stage: each metric is in one, with its meaning."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextscene.training.metrics.catalog import EVALUATION_METRICS, STEP_METRICS
from nextscene.training.report.stage_charts import chart_groups
from nextscene.training.report.stage_data import StageData, read_stage


def shown(stage: StageData) -> dict[str, list[str]]:
    """Title → names of the lines."""
    return {chart.title: [line.name for line in chart.lines] for group in chart_groups(stage) for chart in group.charts}


def test_every_metric_of_the_catalog_is_drawn_once() -> None:
    stage = StageData("rl", Path())
    for event, names in (("step", STEP_METRICS), ("evaluation", EVALUATION_METRICS)):
        for name in names:
            stage.series[event, name].add(1, 1.0)
    drawn = [name for names in shown(stage).values() for name in names]
    assert sorted(drawn) == sorted([*STEP_METRICS, *EVALUATION_METRICS.keys() - {"heldout_loss_low_sigma"}])
    notes = {name: text for group in chart_groups(stage) for chart in group.charts for name, text in chart.notes}
    assert notes.items() >= {(name, STEP_METRICS[name]) for name in STEP_METRICS}


def test_a_stage_has_charts_of_what_it_logged(run: Path) -> None:
    assert [*shown(read_stage(run, "sft"))][:4] == [
        "Loss",
        "Held-out loss",
        "Held-out loss by noise level",
        "Held-out loss over the noise level",
    ]
    assert next(iter(shown(read_stage(run, "rl")))) == "Reward"
    assert shown(read_stage(run, "sft"))["own_metric"] == ["own_metric"], "of an extension, which no chart knows"


def test_the_noise_levels_are_compared_at_the_first_and_the_last_evaluation(run: Path) -> None:
    (chart,) = (
        chart for group in chart_groups(read_stage(run, "sft")) for chart in group.charts if "over" in chart.title
    )
    first, last = chart.lines
    assert (first.name, last.name) == ("step 0", "step 40")
    assert [(point.x, point.mean) for point in first.points] == [(sigma, sigma) for sigma in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert [point.mean * 41 for point in last.points] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
